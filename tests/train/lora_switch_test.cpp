// SPDX-License-Identifier: MIT
// Low-rank deltas that one router chooses for all layers of a token: every parameter by central
// differences, one expert as lora, and a choice that is merged into the base.

#include "support/adapters.hpp"

namespace test::lora_switch_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using learned = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                            ln::ffn::gelu_tanh, ln::bias::all>;
template <class M, index Experts, index Rank, index Top, class Targets = ln::all_linear>
using routed = ln::adapted<M, ln::lora_switch<Experts, Rank, Top, Targets>>;

template <class M>
double loss_of(const ln::packed<M, double>& p, const ln::decoder_batch& b, int threads = 1) {
  auto e = ln::evaluator<M, double>::open(
      p, {.batch = b.batch, .target = b.length, .threads = threads, .min_flops_per_thread = 0});
  LINNET_REQUIRE_OK(e);
  return e->loss(b).nats;
}

template <class A>
void check(const ln::lora_options& how, double dropout = 0) {
  adapted_pair<A> p(how);
  const auto data = decoder_data<A>();
  BOOST_TEST(loss_of(ln::pack(p.adapter), data.view()) == loss_of(p.base, data.view()));
  randomize(p.adapter, 2);
  check_weights(p.adapter, data, dropout, 0, 3);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(lora_switches)

BOOST_AUTO_TEST_CASE(gradients) {
  check<routed<small, 3, 2, 2>>({.alpha = 3});
  check<routed<learned, 3, 2, 1>>({.alpha = 3, .rslora = true, .dropout = 0.25}, 0.25);
  check<routed<small, 2, 1, 2, ln::target_modules<"o", "v">>>({});
  check<routed<small, 2, 1, 1, ln::target_modules<"up", "gate", "down">>>({});
}

BOOST_AUTO_TEST_CASE(sizes) {
  using A = routed<small, 3, 2, 2>;
  static_assert(A::routed.first == 3 && A::routed.columns == 8);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"o", "v">>::routed.first == 1);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"up", "gate">>::routed.first == 2);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"down">>::routed.first == 1);
  static_assert(routed<learned, 2, 1, 2>::routed.first == 3);
  static_assert(A::parameters() == 3 * 8 + ln::adapted<small, ln::lora<6>>::parameters());
}

BOOST_AUTO_TEST_CASE(one_expert_is_lora) {
  ln::weights<small, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto one = ln::adapt<ln::lora_switch<1, 2, 1>>(base, {.alpha = 3});
  auto plain = ln::adapt<ln::lora<2>>(base, {.alpha = 3});
  BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(plain));
  randomize(*one, 2);
  one->visit([&](const ln::parameter_path& from, const ln::tensor_info& info, const auto& leaf) {
    plain->visit([&](const ln::parameter_path& to, const ln::tensor_info&, auto& other) {
      if (to.str() == from.str()) std::copy_n(values_of(leaf), info.size(), values_of(other));
    });
  });
  const auto data = decoder_data<small>();
  BOOST_TEST(loss_of(ln::pack(*one), data.view()) == loss_of(ln::pack(*plain), data.view()));
}

// Where all tokens of a text are the same, all have the gates of that token's embedding behind the
// first norm. The deltas of such a choice are merged into the base's weights, as lora's are.
BOOST_AUTO_TEST_CASE(a_choice_is_merged) {
  constexpr index experts = 3, rank = 2, d = small::d;
  ln::weights<small, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto adapter = ln::adapt<ln::lora_switch<experts, rank, 2>>(base, {.alpha = 3});
  LINNET_REQUIRE_OK(adapter);
  randomize(*adapter, 2);
  const auto packed = ln::pack(*adapter);
  const double* scale = nullptr;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto& leaf) {
    if (at.str() == "blocks.0.attention.norm.weight") scale = values_of(leaf);
  });
  BOOST_REQUIRE(scale != nullptr);
  std::vector<std::vector<double>> seen;
  for (token t = 0; t < 6; ++t) {
    // The gates of the token, by hand.
    const double* const x = w.tree().embedding.data + t * d;
    double square = 0, scores[experts], sum = 0;
    for (index j = 0; j < d; ++j) square += x[j] * x[j];
    for (index e = 0; e < experts; ++e) {
      scores[e] = 0;
      for (index j = 0; j < d; ++j)
        scores[e] += adapter->tree().router.data[e * d + j] * x[j] * scale[j] /
                     std::sqrt(square / d + small::shape.eps);
      sum += scores[e] = std::exp(scores[e]);
    }
    std::vector<double> gates(experts);
    const auto least = std::min_element(scores, scores + experts) - scores;
    for (index e = 0; e < experts; ++e) gates[at(e)] = e == least ? 0 : scores[e] / sum;
    seen.push_back(gates);
    // lora of all experts' ranks: A as it is, B by the gates; its scale is that of all ranks.
    auto merged = ln::adapt<ln::lora<experts * rank>>(base, {.alpha = 3 * experts});
    LINNET_REQUIRE_OK(merged);
    adapter->visit(
        [&](const ln::parameter_path& from, const ln::tensor_info& info, const auto& leaf) {
          merged->visit([&](const ln::parameter_path& to, const ln::tensor_info&, auto& other) {
            if (to.str() != from.str()) return;
            const bool b = from.parent->name == "lora_B";
            for (index i = 0; i < info.size(); ++i)
              values_of(other)[i] =
                  values_of(leaf)[i] * (b ? gates[at(i % (experts * rank) / rank)] : 1);
          });
        });
    auto sums = w.clone();
    LINNET_REQUIRE_OK(ln::merge(sums, *merged));
    const std::vector<token> text(5, t), labels = tokens(5, small::vocabulary, 3);
    const ln::decoder_batch batch{text.data(), labels.data(), 1, 5};
    const double want = loss_of(ln::pack(sums), batch);
    BOOST_TEST(std::abs(loss_of(packed, batch) - want) <= 1e-12 * want);
    BOOST_TEST(std::abs(loss_of(base, batch) - want) > 1e-3);
  }
  BOOST_TEST((seen[0] != seen[1] && seen[1] != seen[2]));
  // All texts at once, on three threads.
  std::vector<token> all, labels;
  double want = 0;
  for (token t = 0; t < 6; ++t) {
    const std::vector<token> text(5, t), of = tokens(5, small::vocabulary, 3);
    want += loss_of(packed, {text.data(), of.data(), 1, 5});
    all.insert(all.end(), text.begin(), text.end());
    labels.insert(labels.end(), of.begin(), of.end());
  }
  BOOST_TEST(std::abs(loss_of(packed, {all.data(), labels.data(), 6, 5}, 3) - want) <=
             1e-12 * want);
}

// On codes: steps change the adapter alone, with the same bits on any number of threads, also where
// layers are computed again.
BOOST_AUTO_TEST_CASE(training) {
  using A = routed<coded_decoder, 3, 2, 2>;
  const auto base = random_codes();
  (void)check_adapter_training<A>(base,
                                  {.rate = 1e-2, .steps = 30, .most = 0.9, .recompute = true});
  // Layer dropout leaves tokens out of some layers.
  auto adapter = ln::adapt<A::method>(base);
  LINNET_REQUIRE_OK(adapter);
  const auto data = decoder_data<A>();
  auto train = ln::trainer<A>::open(*adapter, data.limits(), {}, {.layer_dropout = {.rate = 0.1}});
  LINNET_REQUIRE_OK(train);
  BOOST_TEST(ln::is_nan(train->step(data.view())));
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::switch_layer_dropout));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::lora_switch_test
