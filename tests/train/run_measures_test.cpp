// SPDX-License-Identifier: MIT
// Averages of weights, the search of a rate and the noise of gradients against plain doubles.

#include "support/models.hpp"

namespace test::run_measures_test {

namespace {

using model = ln::decoder<tiny_decoder_shape, ln::bias::all>;

using kind = ln::weight_average_options::kind;

/// The average of weights 1 to 9 beside plain sums; `count` of them count.
void check_average(const ln::weight_average_options& how, index count) {
  auto average = ln::weight_average<model, double>::open(how, {.threads = 2});
  auto resumed = ln::weight_average<model, double>::open(how);
  BOOST_REQUIRE((average && resumed));
  ln::weights<model, double> w;
  std::vector<double> want(at(model::parameters()));
  index taken = 0;
  for (index step = 1; step <= 9; ++step) {
    randomize(w, static_cast<std::uint64_t>(step));
    average->follow(w, step);
    if (step == 5) {
      std::ranges::copy(average->block(), resumed->block().begin());
      resumed->resume(average->count());
    }
    if (step > 5) resumed->follow(w, step);
    if (step < how.first || (step - how.first) % how.every != 0) continue;
    const auto x = all_values(w);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (how.form == kind::equal)
        want[i] += x[i] / static_cast<double>(count);
      else
        want[i] = taken == 0 ? x[i] : how.keep * want[i] + (1 - how.keep) * x[i];
    }
    ++taken;
  }
  BOOST_TEST(taken == count);
  BOOST_TEST(average->count() == count);
  BOOST_TEST(distance(all_values(average->current()), want) < 1e-14);
  BOOST_TEST(same_bytes(average->current(), resumed->current()));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(run_measures)

BOOST_AUTO_TEST_CASE(averages_of_weights) {
  check_average({}, 9);
  check_average({.keep = 0.7, .first = 3, .every = 2}, 4);
  check_average({.form = kind::equal}, 9);
  check_average({.form = kind::equal, .first = 2, .every = 3}, 3);
  const auto refused = ln::weight_average<model>::open({.keep = 1});
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().message() ==
             "weight_average::open: weight_average_options.keep: expected 0 <= keep < 1, got 1");
}

// Norms of five batches with 12, 4, 8, 12 and 4 labels against the covariance of gradients, batch
// by batch: with equal weights it is n sum |g - mean|^2 / (k - 1).
BOOST_AUTO_TEST_CASE(noise_of_gradients) {
  ln::weights<model, double> w;
  randomize(w);
  const auto data = data_for<model>(10, 0, 4);
  const auto measure = [&](index (*size)(index), index batches, int threads) {
    index first = 0;
    return ln::estimate_gradient_noise(
        w,
        [&](index i) {
          if (i == batches) return ln::decoder_batch{};
          const index from = first;
          first += size(i);
          return data.part(from, size(i));
        },
        data.limits(threads));
  };
  // Gradients of the parts, each a mean over its labels.
  const auto gradient_of = [&](index from, index count, double& labels) {
    auto v = w.clone();
    auto train = ln::trainer<model, ln::sgd, double>::open(v, data.limits());
    labels = static_cast<double>(train->accumulate(data.part(from, count)).tokens);
    std::vector<double> all;
    train->gradient().visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& g) {
      for (index i = 0; i < info.size(); ++i) all.push_back(g[i] / labels);
    });
    return all;
  };
  // Pairs of sequences: one of 4 and one of 2 labels each.
  const auto pairs = measure([](index) { return index{2}; }, 5, 1);
  BOOST_REQUIRE(static_cast<bool>(pairs));
  std::vector<double> mean(at(model::parameters()));
  std::vector<std::vector<double>> all;
  for (index i = 0; i < 5; ++i) {
    double labels = 0;
    all.push_back(gradient_of(2 * i, 2, labels));
    BOOST_TEST(labels == 6);
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += all.back()[j] / 5;
  }
  double spread = 0, square = 0;
  for (const auto& g : all)
    for (std::size_t j = 0; j < mean.size(); ++j) spread += (g[j] - mean[j]) * (g[j] - mean[j]) / 4;
  for (const double x : mean) square += x * x;
  BOOST_TEST(distance_of(pairs->noise / (6 * spread), 1) < 1e-10);
  BOOST_TEST(distance_of(pairs->signal / (square - spread / 5), 1) < 1e-9);
  BOOST_TEST(pairs->scale() == pairs->noise / pairs->signal);
  BOOST_TEST(pairs->batches == 5);
  for (const int threads : {2, 3}) {
    const auto again = measure([](index) { return index{2}; }, 5, threads);
    BOOST_TEST(again->noise == pairs->noise);
  }
  // Of 1, 2, 3 and 4 sequences: the two equations by hand.
  const auto uneven = measure([](index i) { return i + 1; }, 4, 1);
  BOOST_REQUIRE(static_cast<bool>(uneven));
  double small = 0, shares = 0, tokens = 0;
  std::vector<double> sum(mean.size());
  for (index i = 0, first = 0; i < 4; first += ++i) {
    double labels = 0;
    const auto g = gradient_of(first, i + 1, labels);
    for (std::size_t j = 0; j < g.size(); ++j) {
      small += g[j] * g[j] / 4;
      sum[j] += labels * g[j];
    }
    shares += 1 / labels / 4;
    tokens += labels;
  }
  double large = 0;
  for (const double x : sum) large += x * x / (tokens * tokens);
  BOOST_TEST(distance_of((uneven->signal + uneven->noise * shares) / small, 1) < 1e-12);
  BOOST_TEST(distance_of((uneven->signal + uneven->noise / tokens) / large, 1) < 1e-12);

  const auto one = measure([](index) { return index{1}; }, 1, 1);
  BOOST_REQUIRE(!one);
  BOOST_TEST(one.error().message() ==
             "estimate_gradient_noise: batches: expected at least two with labels, got 1");
}

// SGD without momentum on one batch: rates are a geometric row, losses those of a trainer that is
// told them, and the weights stay.
BOOST_AUTO_TEST_CASE(search_of_a_rate) {
  const auto data = data_for<model>(2, 0, 6);
  ln::weights<model> w;
  randomize(w);
  const auto before = w.clone();
  const auto text = [&](index) { return data.view(); };
  const ln::sgd optimizer{.momentum = 0};
  const auto found =
      ln::find_learning_rate(w, text, data.limits(),
                             {.lowest = 1e-3, .highest = 1e3, .steps = 40, .keep = 0.5}, optimizer);
  BOOST_REQUIRE(static_cast<bool>(found));
  BOOST_TEST(same_bytes(w, before));
  auto train = ln::trainer<model, ln::sgd>::open(w, data.limits(), optimizer);
  double smoothed = 0, weight = 0, lowest = 1e9, below = 0, steepest = 0, slope = 1e9;
  for (std::size_t i = 0; i < found->curve.size(); ++i) {
    const double rate = 1e-3 * std::pow(1e6, static_cast<double>(i) / 39);
    train->optimizer().rate = ln::schedule::constant(rate);
    const auto& p = found->curve[i];
    BOOST_TEST(distance_of(p.rate / rate, 1) < 1e-12);
    const double loss = train->step(data.view());
    BOOST_TEST(std::abs(p.loss - loss) < 1e-5 * loss);
    smoothed = 0.5 * smoothed + 0.5 * loss;
    weight = 0.5 * weight + 0.5;
    BOOST_TEST(std::abs(p.smoothed - smoothed / weight) < 1e-5 * loss);
    if (p.smoothed < lowest) lowest = p.smoothed, below = p.rate / 10;
    if (i > 0 && i + 1 < found->curve.size())
      if (const double d = found->curve[i + 1].smoothed - found->curve[i - 1].smoothed; d < slope)
        slope = d, steepest = p.rate;
  }
  BOOST_TEST(found->below == below);
  BOOST_TEST(found->steepest == steepest);
  BOOST_TEST(found->curve.size() > 10u);
  BOOST_TEST(found->curve.size() < 40u);  // it diverged before
  BOOST_TEST(found->curve.back().smoothed > 4 * lowest);
  BOOST_TEST(steepest > 1e-3);
  BOOST_TEST(steepest < found->curve.back().rate);

  const auto none = ln::find_learning_rate(
      w, [](index) { return ln::decoder_batch{}; }, data.limits());
  BOOST_REQUIRE(!none);
  BOOST_TEST(none.error().message() ==
             "find_learning_rate: steps: expected at least 3 with a finite loss, got 0");
  const auto wrong = ln::find_learning_rate(w, text, data.limits(), {.lowest = 2, .highest = 1});
  BOOST_REQUIRE(!wrong);
  BOOST_TEST(wrong.error().message() ==
             "find_learning_rate: rate_search_options.highest: expected above lowest, 2, got 1");
}

// Up to the peak, there, and down to the floor in the last steps.
BOOST_AUTO_TEST_CASE(warm_up_stable_decay) {
  const auto s = ln::schedule::warmup_stable_decay(0.5, 10, 100, 20, 0.1);
  BOOST_TEST(distance_of(s.at(1), 0.05) < 1e-15);
  BOOST_TEST(distance_of(s.at(9), 0.45) < 1e-15);
  for (const index t : {10, 11, 50, 79, 80}) BOOST_TEST(s.at(t) == 0.5);
  BOOST_TEST(distance_of(s.at(81), 0.48) < 1e-15);
  BOOST_TEST(distance_of(s.at(90), 0.3) < 1e-15);
  for (const index t : {100, 101, 1000}) BOOST_TEST(s.at(t) == 0.1);
  BOOST_TEST(ln::schedule::warmup_stable_decay(1, 0, 5, 0).at(4) == 1);
  ln::weights<model> w;
  const auto refused = ln::trainer<model>::open(
      w, {.target = 4}, {.rate = ln::schedule::warmup_stable_decay(1, 10, 20, 11)});
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().what == "adamw.rate.steps");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::run_measures_test
