// SPDX-License-Identifier: MIT
// Contextual sparsity: a feed-forward that leaves out neurons is the whole one where its predictor
// finds all that are active, and reads no weights of others.

#include "support/compression.hpp"
#include "support/models.hpp"

namespace test::contextual_test {

namespace {

constexpr ln::decoder_shape shape = [] {
  auto s = tiny_decoder_shape;
  s.d_ff = 40;
  return s;
}();
using kind = ln::activation_kind;
using gated = ln::decoder<shape, ln::ffn::gated<kind::relu>>;
using plain = ln::decoder<shape, ln::ffn::standard<kind::relu>, ln::bias::all>;
using small = ln::contextualised<gated, 8>;

/// Calls f(name, tensor_info, numbers) for each tensor.
template <class W, class F>
void each(W& w, F&& f) {
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    f(at.str(), info, values_of(leaf));
  });
}
/// A predictor of full rank that scores each neuron by what its activation takes.
template <class C>
void know_all(ln::weights<C>& c) {
  std::map<std::string, const float*> gates;
  each(c,
       [&](const std::string& name, const ln::tensor_info&, const float* x) { gates[name] = x; });
  each(c, [&](const std::string& name, const ln::tensor_info& info, float* x) {
    if (name.ends_with("predictor.reduce.weight"))
      for (index i = 0; i < info.rows; ++i) x[i * info.columns + i] = 1;
    if (const auto at = name.find("predictor.score.weight"); at != std::string::npos)
      std::copy_n(gates.at(name.substr(0, at) + "gate.rows"), info.size(), x);
  });
}
template <class M>
ln::weights<M> random_weights() {
  ln::weights<M> w;
  randomize(w);
  return w;
}
constexpr ln::limits limits{.batch = 2, .target = 17};

}  // namespace

BOOST_AUTO_TEST_SUITE(contextual)

BOOST_AUTO_TEST_CASE(neurons_that_are_not_chosen_are_not_read) {
  const index rows = 3, n = 37, width = 50;
  const auto x = normal<float>(rows * n, 1), scores = normal<float>(rows * width, 2);
  const auto whole = normal<float>(width * n, 3), up = normal<float>(width * n, 4);
  const auto bias = normal<float>(width, 5), residual = normal<float>(rows * n, 6);
  for (const auto level : levels())
    for (index i = 0; i < rows; ++i) {
      auto w = whole;
      for (index j = 0; j < width; ++j)
        if (scores[at(i * width + j)] < 0.5f)
          std::fill_n(w.data() + j * n, n, std::numeric_limits<float>::quiet_NaN());
      std::vector<std::int32_t> counts(1), chosen(at(width));
      std::vector<float> values(at(width)), room(at(width)), y(at(n));
      const ln::ops::chosen_neurons<float> list{width, counts.data(), chosen.data(), values.data()};
      ln::ops::execution on;
      on.level = level;
      ln::ops::choose_neurons(on, 1, scores.data() + i * width, 0.5f, list);
      ln::ops::activate_chosen<kind::relu>(on, 1, n, x.data() + i * n, w.data(), bias.data(), list);
      ln::ops::drop_zeros(on, 1, list);
      const float* const none = nullptr;
      ln::ops::scale_chosen(on, 1, n, x.data() + i * n, up.data(), none, room.data(), list);
      ln::ops::sum_chosen(on, 1, n, w.data(), none, residual.data() + i * n, list, y.data());
      std::vector<double> right(residual.begin() + i * n, residual.begin() + (i + 1) * n);
      index active = 0;
      for (index j = 0; j < width; ++j) {
        if (scores[at(i * width + j)] < 0.5f) continue;
        double gate = static_cast<double>(bias[at(j)]), h = 0;
        for (index k = 0; k < n; ++k) {
          const auto v = static_cast<double>(x[at(i * n + k)]);
          gate += v * static_cast<double>(whole[at(j * n + k)]);
          h += v * static_cast<double>(up[at(j * n + k)]);
        }
        if (!(gate > 0)) continue;
        ++active;
        for (index k = 0; k < n; ++k)
          right[at(k)] += gate * h * static_cast<double>(whole[at(j * n + k)]);
      }
      BOOST_TEST(counts[0] == active);
      BOOST_TEST(active > 0);
      for (index k = 0; k < n; ++k)
        BOOST_TEST(std::abs(static_cast<double>(y[at(k)]) - right[at(k)]) <= 1e-3);
    }
}

// All neurons before training, and with an oracle those that are active: the same model.
BOOST_AUTO_TEST_CASE(an_oracle_is_exact) {
  const auto w = random_weights<gated>();
  const auto whole = prompt_logits(ln::pack(w), 1, false);
  auto c = ln::contextualise<small>(w);
  BOOST_REQUIRE(c);
  const auto all = ln::pack(*c);
  BOOST_TEST(distance(prompt_logits(all, 1, false), whole) <= 1e-5);
  know_all(*c);
  const auto p = ln::pack(*c);
  const auto some = prompt_logits(p, 1, false);
  BOOST_TEST(distance(some, whole) <= 1e-5);
  BOOST_TEST(distance(prompt_logits(p, 1, true), some) <= 1e-5);
  BOOST_TEST(same_bits(prompt_logits(p, 3, false), some));
  BOOST_TEST(same_bytes(ln::unpack(p), *c));

  const auto other = random_weights<plain>();  // with biases
  const auto biased = ln::contextualise<ln::contextualised<plain, 4>>(other);
  BOOST_REQUIRE(biased);
  BOOST_TEST(distance(prompt_logits(ln::pack(*biased), 1, false),
                      prompt_logits(ln::pack(other), 1, false)) <= 1e-5);
}

// Derivatives of what is computed: half of the neurons here. The predictor has none.
BOOST_AUTO_TEST_CASE(gradients) {
  const auto check = []<class Layer>(std::type_identity<Layer>) {
    const ln::gradient_report r = ln::check_layer_gradients<Layer>({.batch = 2, .length = 3});
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(8 * r.nonzero > r.entries, text_of(r));
  };
  check(std::type_identity<ln::ffn::contextual<3>::layer<6, 10, true>>{});
  check(std::type_identity<
        ln::ffn::contextual<3, ln::ffn::gated<kind::relu_squared>>::layer<6, 10, true>>{});
}

BOOST_AUTO_TEST_CASE(predictors_learn) {
  const auto w = random_weights<gated>();
  auto c = ln::contextualise<small>(w);
  BOOST_REQUIRE(c);
  const ln::predictor_options how{
      .batches = 40, .tokens = 1000, .epochs = 60, .batch = 32, .rate = 0.01, .recall = 1};
  const auto found = ln::train_predictors(*c, w, texts_of<gated>{}, limits, how);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  BOOST_REQUIRE(found->size() == 2);
  for (const auto& one : *found) {
    BOOST_TEST(one.recall > 0.97);
    BOOST_TEST(one.active > 0.2);
    BOOST_TEST(one.predicted < one.active + 0.15);
  }
  const auto whole = prompt_logits(ln::pack(w), 1, false);
  BOOST_TEST(distance(prompt_logits(ln::pack(*c), 1, false), whole) <= 0.1);

  auto again = ln::contextualise<small>(w);
  BOOST_REQUIRE(ln::train_predictors(*again, w, texts_of<gated>{}, limits, how));
  BOOST_TEST(same_bytes(*again, *c));
  const auto none = [](index) { return ln::decoder_batch{}; };
  const auto refused = ln::train_predictors(*again, w, none, limits);
  BOOST_TEST(!refused);
  BOOST_TEST(refused.error().message() ==
             "train_predictors: batches: expected at least one, got none");
  BOOST_TEST(!ln::train_predictors(*again, w, texts_of<gated>{}, limits, {.rate = 0}));
}

BOOST_AUTO_TEST_CASE(activity) {
  auto w = random_weights<plain>();
  each(w, [](const std::string& name, const ln::tensor_info&, float* x) {
    if (name.ends_with("wi.bias")) x[3] = -100, x[5] = 100;
  });
  const auto shares = ln::neuron_activity(w, texts_of<plain>{}, limits, {.batches = 3});
  BOOST_REQUIRE(shares);
  BOOST_REQUIRE(shares->size() == 2);
  for (const auto& layer : *shares) {
    BOOST_TEST(layer.place.ends_with("ffn.wi.weight"));
    BOOST_REQUIRE(layer.scores.size() == 40);
    BOOST_TEST(layer.scores[3] == 0);
    BOOST_TEST(layer.scores[5] == 1);
    double sum = 0;
    for (const double x : layer.scores) sum += x / 40;
    BOOST_TEST((sum > 0.3 && sum < 0.7));
    const double tokens = layer.scores[0] * 3 * 2 * 17;
    BOOST_TEST(std::abs(tokens - std::round(tokens)) < 1e-9);
  }
  const auto coded = ln::neuron_activity(ln::quantize<ln::storage::int8>(w), texts_of<plain>{},
                                         limits, {.batches = 1});
  BOOST_REQUIRE(coded);
  BOOST_TEST(coded->size() == 2);
  BOOST_TEST(coded->front().scores[5] == 1);
}

BOOST_AUTO_TEST_CASE(relufied) {
  using silu = ln::decoder<shape>;
  static_assert(std::is_same_v<ln::relufied<silu>, gated>);
  const auto w = random_weights<silu>();
  const ln::weights<gated> made = ln::relufy(w);
  BOOST_TEST(std::memcmp(made.data(), w.data(), static_cast<std::size_t>(w.bytes())) == 0);
  using shifted = ln::relufied<ln::t5<tiny_t5_shape>, kind::shifted_relu>;
  static_assert(std::is_same_v<shifted::encoder_ffn, ln::ffn::standard<kind::shifted_relu>>);
  static_assert(std::is_same_v<shifted::decoder_ffn, shifted::encoder_ffn>);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::contextual_test
