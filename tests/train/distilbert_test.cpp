// SPDX-License-Identifier: MIT
// DistilBERT's three losses on encoders: the definition, gradients, equal models, and a student
// that begins with layers of its teacher.

#include "support/encoders.hpp"
#include "support/resumed.hpp"
#include "support/scoring.hpp"

#include <linnet/compression.hpp>

namespace test::distilbert_test {

namespace {

constexpr ln::encoder_shape teacher_shape = [] {
  ln::encoder_shape s = tiny_encoder_shape;
  s.layers = 3;
  return s;
}();
using student = ln::encoder<tiny_encoder_shape>;
using teacher = ln::encoder<teacher_shape>;
template <class M>
using f64 = ln::packed<M, double>;
using objective = ln::distilbert<f64<student>, f64<teacher>>;
using options = ln::distilbert_options;

BOOST_AUTO_TEST_SUITE(distilbert)

BOOST_AUTO_TEST_CASE(equals_the_definition) {
  const auto data = encoder_data<student>();
  const auto l = data.limits();
  const auto s = random_packed<student, double>(1);
  const auto t = random_packed<teacher, double>(2);
  const double tau = 1.5;
  auto from = objective::open(t, l, {.soft = 3, .labels = 2, .hidden = 4, .temperature = tau});
  BOOST_REQUIRE(static_cast<bool>(from));
  auto scores = ln::evaluator<student, double>::open(s, l);
  const auto got = scores->loss(data.view(), *from), plain = scores->loss(data.view());
  const auto q = logits_of(s, data.view(), l), p = logits_of(t, data.view(), l);
  const auto hs = states_of(s, data.view(), l).back(), ht = states_of(t, data.view(), l).back();
  const auto soft = [&](std::span<const double> logits) {
    std::vector<double> row;
    double sum = 0;
    for (const double x : logits) sum += row.emplace_back(std::exp(x / tau));
    for (double& x : row) x /= sum;
    return row;
  };
  double kl = 0, cosines = 0, tokens = 0;
  for (index i = 0; i < data.batch * data.length; ++i) {
    if (i % data.length >= data.lengths[at(i / data.length)]) continue;
    ++tokens;
    const auto a = soft(row_of<teacher>(p, i)), b = soft(row_of<student>(q, i));
    for (std::size_t j = 0; j < a.size(); ++j) kl += a[j] * std::log(a[j] / b[j]);
    double ss = 0, tt = 0, st = 0;
    for (index j = i * 6; j < (i + 1) * 6; ++j) {
      ss += hs[at(j)] * hs[at(j)];
      tt += ht[at(j)] * ht[at(j)];
      st += hs[at(j)] * ht[at(j)];
    }
    cosines += 1 - st / std::sqrt(ss * tt);
  }
  BOOST_TEST(tokens == 6 + 4 + 2);
  BOOST_TEST(kl / tokens > 0.01);
  BOOST_TEST(cosines / tokens > 0.01);
  BOOST_TEST(got.tokens == plain.tokens);
  BOOST_TEST(distance_of(got.mean(), 2 * plain.mean() + 3 * tau * tau * kl / tokens +
                                         4 * cosines / tokens) < 1e-12);
}

BOOST_AUTO_TEST_CASE(gradients) {
  const auto data = encoder_data<student>();
  const auto t = random_packed<teacher, double>(2);
  for (const options& how : {options{}, {.soft = 0, .labels = 0, .hidden = 1}}) {
    auto from = objective::open(t, data.limits(), how);
    ln::weights<student, double> w;
    randomize(w);
    const auto r =
        ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, 0.2}, 1e-5, 0, *from);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(3 * r.nonzero > r.entries, text_of(r));
  }
}

// A student that is its teacher learns from the labels alone.
BOOST_AUTO_TEST_CASE(equal_models) {
  const auto data = encoder_data<student>();
  ln::weights<student> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto from = ln::distilbert<student, student>::open(p, data.limits(), {.labels = 1});
  auto one = ln::trainer<student>::open(w, data.limits());
  auto other = ln::trainer<student>::open(w, data.limits());
  const auto got = one->accumulate(data.view(), *from), want = other->accumulate(data.view());
  BOOST_TEST(distance_of(got.nats, want.nats) < 1e-4);
  const auto a = all_values(one->gradient()), b = all_values(other->gradient());
  BOOST_TEST(magnitude(b) > 0.01);
  BOOST_TEST(distance(a, b) < 1e-5);
}

// Layers 0 and 2 of the teacher are a nearer start than random layers, and training goes on.
BOOST_AUTO_TEST_CASE(begins_with_layers_of_its_teacher, *boost::unit_test::label("tsan")) {
  const auto data = encoder_data<student>(8, 10);
  ln::weights<teacher> taught;
  randomize(taught, 2);
  const auto t = ln::pack(taught);
  auto begun = ln::drop_layers<0, 2>(taught);
  BOOST_REQUIRE(static_cast<bool>(begun));
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(*begun)>, ln::weights<student>>);
  BOOST_TEST(std::equal(begun->tree().embedding.data, begun->tree().embedding.data + 66,
                        taught.tree().embedding.data));
  ln::weights<student> random;
  randomize(random, 3);
  std::vector<double> ends;
  for (const int threads : {1, 3}) {
    auto l = data.limits(threads);
    l.run_on = std_threads();
    auto from = ln::distilbert<student, teacher>::open(t, l, {.labels = 0});
    auto trained = begun->clone();
    auto train = ln::trainer<student>::open(trained, l, {.rate = ln::schedule::constant(3e-3)});
    auto other = ln::trainer<student>::open(random, l);
    const double first = train->step(data.view(), *from);
    BOOST_TEST(first < other->accumulate(data.view(), *from).mean());
    const int steps = threads == 1 ? 40 : 8;
    for (int n = 0; n < steps; ++n) ends.push_back(train->step(data.view(), *from));
    if (threads == 1) BOOST_TEST(ends.back() < 0.5 * first);
  }
  for (std::size_t n = 0; n < 8; ++n) BOOST_TEST(ends[n] == ends[40 + n]);
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const auto t = random_packed<teacher, float>(2);
  ln::weights<student> w;
  randomize(w);
  check_resumed(w, encoder_data<student>(),
                [&](const ln::limits& l) { return *ln::distilbert<student, teacher>::open(t, l); });
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto data = encoder_data<student>();
  const auto t = random_packed<teacher, double>(2);
  const auto refused = objective::open(t, data.limits(), {.temperature = 0});
  BOOST_TEST(refused.error().message() ==
             "distilbert::open: distilbert_options.temperature: expected above 0, finite, got 0");
  auto from = objective::open(t, {.batch = 2, .target = 6});
  ln::weights<student, double> w;
  randomize(w);
  auto train = ln::trainer<student, ln::adamw, double>::open(w, data.limits());
  BOOST_TEST(!ln::is_finite(train->step(data.view(), *from)));
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::objective));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::distilbert_test
