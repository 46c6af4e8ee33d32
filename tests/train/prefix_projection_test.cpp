// SPDX-License-Identifier: MIT
// Prefixes behind a projection: every parameter by central differences, the maps written out, and
// the prefix that stays when the projection is gone.

#include "support/adapters.hpp"
#include "support/encoders.hpp"
#include "support/golden.hpp"

namespace test::prefix_projection_test {

namespace {

constexpr index front = 3, hidden = 5;

using small = ln::decoder<tiny_decoder_shape>;
using learned = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                            ln::ffn::gelu_tanh, ln::bias::all>;
using t5 = ln::t5<tiny_t5_shape>;
using bert = ln::encoder<tiny_encoder_shape>;
template <class M>
using projected = ln::adapted<M, ln::prefix_projection<front, hidden>>;
template <class M>
using prefixed = ln::adapted<M, ln::prefix_tuning<front>>;

template <class M>
auto texts() {
  if constexpr (ln::detail::is_encoder<M>)
    return encoder_data<M>();
  else
    return data_for<M>();
}

/// tanh(E A^T + a) B^T + b by hand.
template <class A>
std::vector<double> prefix_of(const ln::weights<A, double>& w) {
  const auto& p = w.tree();
  std::vector<double> all;
  for (index t = 0; t < front; ++t) {
    double inner[hidden];
    for (index h = 0; h < hidden; ++h) {
      double sum = p.first_bias[h];
      for (index j = 0; j < A::row_width; ++j)
        sum += p.first.data[h * A::row_width + j] * p.embedding[t * A::row_width + j];
      inner[h] = std::tanh(sum);
    }
    for (index i = 0; i < A::width; ++i) {
      double sum = p.second_bias[i];
      for (index h = 0; h < hidden; ++h) sum += p.second.data[i * hidden + h] * inner[h];
      all.push_back(sum);
    }
  }
  return all;
}
/// The loss of a model, or of one with an adapter, on the texts of its base `Base`.
template <class Base, class M>
double loss_of(const ln::packed<M, double>& p) {
  const auto data = texts<Base>();
  auto e = ln::evaluator<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(e);
  return e->loss(data.view()).nats;
}

/// Gradients, and the prefix that fold() makes, which computes the same.
template <class M>
void check(double dropout = 0) {
  using A = projected<M>;
  adapted_pair<A> p;
  randomize(p.adapter, 2);
  check_weights(p.adapter, texts<M>(), dropout);
  const auto folded = ln::fold(p.adapter);
  LINNET_REQUIRE_OK(folded);
  const auto want = prefix_of(p.adapter);
  BOOST_REQUIRE(std::ssize(want) == prefixed<M>::parameters());
  for (std::size_t i = 0; i < want.size(); ++i)
    BOOST_TEST(std::abs(folded->tree().prefix[i] - want[i]) <= 1e-14);
  const double whole = loss_of<M>(ln::pack(p.adapter));
  BOOST_TEST(std::abs(loss_of<M>(ln::pack(*folded)) - whole) <= 1e-12 * whole);
  BOOST_TEST(loss_of<M>(p.base) != whole);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(prefix_projections)

BOOST_AUTO_TEST_CASE(gradients) {
  check<small>();
  check<learned>(0.25);
  check<t5>();
  check<bert>();
}

BOOST_AUTO_TEST_CASE(sizes_and_start) {
  using A = projected<small>;
  static_assert(A::row_width == 4 && A::width == 2 * 2 * 4);
  static_assert(A::parameters() == 3 * 4 + (4 + 1) * 5 + (5 + 1) * 16);
  static_assert(!A::serves_sequences);
  adapted_pair<A> one, two(ln::seed{1});
  BOOST_TEST(!same_bytes(one.adapter, two.adapter));
  const auto most = [&](const auto* x, index n) {
    double largest = 0;
    for (index i = 0; i < n; ++i) largest = (std::max)(largest, std::abs(x[i]));
    return largest;
  };
  const auto& p = one.adapter.tree();
  for (const auto& [largest, inputs] :
       {std::pair(most(p.first.data, 20), 4), std::pair(most(p.first_bias, 5), 4),
        std::pair(most(p.second.data, 80), 5), std::pair(most(p.second_bias, 16), 5)}) {
    BOOST_TEST(largest <= 1 / std::sqrt(inputs));
    BOOST_TEST(largest > 0.5 / std::sqrt(inputs));
  }
  BOOST_TEST(most(p.embedding, 12) > 0.5);
  std::string names;
  one.adapter.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto&) {
    names += at.str() + " ";
  });
  BOOST_TEST(names ==
             "embedding.weight transform.0.weight transform.0.bias transform.2.weight "
             "transform.2.bias ");
}

// On codes: steps change the projection alone, with the same bits on any number of threads. What it
// folds to has the losses of it, serves sequences, and trains on.
BOOST_AUTO_TEST_CASE(training_and_sessions) {
  using Q = coded_decoder;
  const auto base = random_codes();
  const auto adapter = check_adapter_training<projected<Q>>(
      base, {.rate = 1e-2, .steps = 40, .most = 0.95, .recompute = true});
  auto folded = ln::fold(adapter);
  LINNET_REQUIRE_OK(folded);
  const auto data = decoder_data<Q>(3, 6);
  const auto whole = ln::pack(adapter);
  auto e = ln::evaluator<projected<Q>>::open(whole, data.limits());
  auto train = ln::trainer<prefixed<Q>>::open(*folded, data.limits());
  BOOST_REQUIRE(e && train);
  const double before = e->loss(data.view()).mean();
  BOOST_TEST(std::abs(train->evaluate(data.view()).mean() - before) <= 1e-5);
  const auto one = ln::pack(*folded);
  auto s = ln::session<Q>::open(base, {.target = 9});
  BOOST_REQUIRE(s && s->set_adapter(0, one));
  std::vector<float> want(at(3 * 6 * Q::vocabulary));
  (void)e->loss(data.view(), want);
  const auto got = s->feed(std::span(data.inputs).first(6));
  BOOST_REQUIRE(!got.empty());
  for (std::size_t i = 0; i < at(Q::vocabulary); ++i)
    BOOST_TEST(std::abs(got[i] - want[5 * at(Q::vocabulary) + i]) <= 1e-4f);
  for (int i = 0; i < 5; ++i) (void)train->step(data.view());
  BOOST_TEST(train->evaluate(data.view()).mean() < before);
}

// PEFT's file is that of the prefix; linnet's own keeps the projection.
BOOST_AUTO_TEST_CASE(files) {
  const golden_case<llama_gqa> c("llama_gqa_untied");
  const auto base = ln::pack(c.weights<double>());
  auto adapter = ln::adapt<ln::prefix_projection<front, hidden>>(base);
  LINNET_REQUIRE_OK(adapter);
  const auto folded = ln::fold(*adapter);
  LINNET_REQUIRE_OK(folded);
  const scratch_folder one, two;
  LINNET_REQUIRE_OK(ln::save_peft(*adapter, one.path(), "some/base"));
  LINNET_REQUIRE_OK(ln::save_peft(*folded, two.path(), "some/base"));
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"})
    BOOST_TEST(contents(one.path(name)) == contents(two.path(name)));
  const auto file = ln::read_safetensors(one.path("adapter_model.safetensors"));
  LINNET_REQUIRE_OK(file);
  BOOST_TEST(file->tensors().size() == 1u);
  BOOST_TEST(file->find("prompt_embeddings") != nullptr);
  auto prefix = ln::adapt<ln::prefix_tuning<front>>(base, ln::prefix_start::zero);
  LINNET_REQUIRE_OK(prefix);
  LINNET_REQUIRE_OK(ln::load_peft(*prefix, one.path()));
  BOOST_TEST(same_bytes(*prefix, *folded));

  const std::string path = one.path("own");
  LINNET_REQUIRE_OK(ln::save_safetensors(*adapter, path));
  auto other = ln::adapt<ln::prefix_projection<front, hidden>>(base, ln::seed{2});
  LINNET_REQUIRE_OK(other);
  LINNET_REQUIRE_OK(ln::load_safetensors(*other, path));
  BOOST_TEST(same_bytes(*other, *adapter));
  BOOST_TEST(!ln::load_safetensors(*prefix, path));
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<projected<small>> nobodys;
  const std::string want =
      ": weights: expected an adapter that adapt() gave its base, got one without a base";
  BOOST_TEST(message(ln::fold(nobodys)) == "fold" + want);
  BOOST_TEST(message(ln::trainer<projected<small>>::open(nobodys, {.target = 5})) ==
             "trainer::open" + want);
  const scratch_folder folder;
  BOOST_TEST(message(ln::save_peft(nobodys, folder.path())) == "fold" + want);
  adapted_pair<projected<learned>> p;
  BOOST_TEST(message(ln::trainer<projected<learned>, ln::adamw, double>::open(p.adapter,
                                                                              {.target = 62})) ==
             "trainer::open: limits.target: expected no more than 61, the model's context less the "
             "virtual tokens, got 62");
  p.adapter.fail({ln::errc::invalid, "somewhere", "", "", ""});
  BOOST_TEST(message(ln::fold(p.adapter)) == "somewhere");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::prefix_projection_test
