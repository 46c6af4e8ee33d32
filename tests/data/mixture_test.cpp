// SPDX-License-Identifier: MIT
// Mixtures of streams: the distribution of the draws by chi-square, weights by hand, moving
// weights. Curricula: ranks, pacing and draws.

#include <algorithm>
#include <numeric>
#include <set>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::mixture_test {

namespace {

template <class T, class... A>
T opened(A&&... arguments) {
  auto made = T::open(std::forward<A>(arguments)...);
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}
ln::mixture mixture_of(const std::vector<double>& weights, std::uint64_t key = 1) {
  return opened<ln::mixture>(weights, ln::seed{key});
}
ln::curriculum curriculum_of(const std::vector<double>& difficulty, const ln::pacing& pace,
                             std::uint64_t key = 1) {
  return opened<ln::curriculum>(difficulty, pace, ln::seed{key});
}

/// Chi-square of counts against expected ones.
double chi_square(const std::vector<double>& counts, const std::vector<double>& expected) {
  double sum = 0;
  for (std::size_t k = 0; k < counts.size(); ++k)
    sum += (counts[k] - expected[k]) * (counts[k] - expected[k]) / expected[k];
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture)

BOOST_AUTO_TEST_CASE(weights_by_size) {
  const std::vector<index> sizes{1, 4, 0, 16};
  const auto check = [&](double tau, const std::vector<double>& want) {
    BOOST_TEST(distance(ln::mixing_weights(sizes, tau), want) < 1e-15);
  };
  check(1, {1 / 21., 4 / 21., 0, 16 / 21.});
  check(0.5, {1 / 7., 2 / 7., 0, 4 / 7.});
  check(0, {1 / 3., 1 / 3., 0, 1 / 3.});
  const std::vector<index> nothing{0, 0};
  BOOST_TEST((ln::mixing_weights(nothing, 0) == std::vector<double>{0, 0}));
}

// 40,000 draws of four streams. Three degrees of freedom: above 22.5 in one of 20,000 seeds. The
// same numbers against slightly wrong weights are far above.
BOOST_AUTO_TEST_CASE(draws_follow_the_weights) {
  const std::vector<double> weights{1, 6, 0, 2, 11};
  constexpr int draws = 40'000;
  for (const std::uint64_t key : {1u, 2u, 77u}) {
    const ln::mixture mix = mixture_of(weights, key);
    BOOST_TEST(mix.streams() == 5);
    std::vector<double> counts(5);
    int changes = 0;
    for (std::uint64_t i = 0; i < draws; ++i) {
      ++counts[at(mix(i))];
      changes += mix(i) != mix(i + 1);
    }
    BOOST_TEST(counts[2] == 0);
    counts.erase(counts.begin() + 2);
    const auto expected = [&](std::vector<double> w) {
      for (double& x : w) x *= draws / 20.;
      return w;
    };
    BOOST_TEST(chi_square(counts, expected({1, 6, 2, 11})) < 22.5);
    BOOST_TEST(chi_square(counts, expected({1, 6.5, 2, 10.5})) > 50);
    // Neighbours are independent: they differ with probability 1 - sum p^2, here 0.595.
    BOOST_TEST(std::abs(changes / double(draws) - (1 - (1 + 36 + 4 + 121) / 400.)) < 0.0125);
  }
}

// Example i depends on the seed and i alone.
BOOST_AUTO_TEST_CASE(a_pure_function) {
  const ln::mixture one = mixture_of({1, 2, 3}, 5), two = mixture_of({10, 20, 30}, 5),
                    other = mixture_of({1, 2, 3}, 6);
  int differ = 0;
  for (std::uint64_t i = 1000; i-- > 0;) {
    BOOST_TEST(one(i) == two(i));
    differ += one(i) != other(i);
  }
  BOOST_TEST(differ > 500);
  const ln::mixture alone;
  BOOST_TEST(alone.streams() == 1);
  BOOST_TEST(alone(123) == 0);
  const std::vector<double> last{0, 0, 1};
  const ln::mixture third = mixture_of(last);
  for (std::uint64_t i = 0; i < 100; ++i) BOOST_TEST(third(i) == 2);
}

BOOST_AUTO_TEST_CASE(moving_weights) {
  const std::vector<double> easy{3, 1, 0}, hard{0, 10, 10};
  const auto mix =
      opened<ln::mixture>(easy, hard, std::uint64_t{10'000}, std::uint64_t{20'000}, ln::seed{4});
  const auto is = [&](std::uint64_t i, double a, double b, double c) {
    BOOST_TEST(std::abs(mix.probability(0, i) - a) < 1e-15);
    BOOST_TEST(std::abs(mix.probability(1, i) - b) < 1e-15);
    BOOST_TEST(std::abs(mix.probability(2, i) - c) < 1e-15);
  };
  is(0, 0.75, 0.25, 0);
  is(10'000, 0.75, 0.25, 0);
  is(12'000, 0.6, 0.3, 0.1);
  is(20'000, 0, 0.5, 0.5);
  is(99'999, 0, 0.5, 0.5);
  std::vector<double> counts(3);
  for (std::uint64_t i = 0; i < 10'000; ++i) BOOST_TEST(mix(i) != 2);
  for (std::uint64_t i = 10'000; i < 20'000; ++i) ++counts[at(mix(i))];
  for (std::uint64_t i = 20'000; i < 30'000; ++i) BOOST_TEST(mix(i) != 0);
  // Two degrees of freedom: above 19.8 in one of 20,000.
  BOOST_TEST(chi_square(counts, {3750, 3750, 2500}) < 19.8);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](const std::vector<double>& w, const std::vector<double>& later) {
    return message(ln::mixture::open(w, later, 0, 1, ln::seed{1}));
  };
  const std::string open = "mixture::open: ";
  BOOST_TEST(opening({1}, {2}) == "success");
  const std::vector<double> one{1};
  BOOST_TEST(message(ln::mixture::open(one, one, 5, 5, ln::seed{1})) == "success");
  BOOST_TEST(message(ln::mixture::open(one, one, 6, 5, ln::seed{1})) ==
             open + "mixture.first: expected at most 5, which is mixture.last, got 6");
  BOOST_TEST(opening({1, 2}, {2}) == open + "later weights: expected 2, got 1");
  BOOST_TEST(opening({}, {}).starts_with(open + "sum of the weights"));
  BOOST_TEST(opening({0, 0}, {1, 1}).starts_with(open + "sum of the weights"));
  BOOST_TEST(opening({1, 1}, {0, 0}).starts_with(open + "sum of the weights"));
  BOOST_TEST(opening({1e308, 1e308}, {1, 1}).starts_with(open + "sum of the weights"));
  for (const double bad :
       {-1., std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    BOOST_TEST(opening({1, bad}, {1, 1}).starts_with(open + "weight: "));
    BOOST_TEST(opening({1, 1}, {bad, 1}).starts_with(open + "weight: "));
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(curriculum)

// Difficulties 3 1 2 1 0: ranked 4, 1, 3 (equal ones in their order), 2, 0.
BOOST_AUTO_TEST_CASE(ranks) {
  const auto c = curriculum_of({3, 1, 2, 1, 0}, {});
  std::vector<index> ranked;
  for (index r = 0; r < c.size(); ++r) ranked.push_back(c.by_rank(r));
  BOOST_TEST((ranked == std::vector<index>{4, 1, 3, 2, 0}));
}

BOOST_AUTO_TEST_CASE(paces) {
  const ln::pacing line{.start = 0.2, .full = 80}, root{.start = 0.2, .full = 80, .power = 2};
  BOOST_TEST(std::abs(line.share(0) - 0.2) < 1e-15);
  BOOST_TEST(std::abs(line.share(20) - 0.4) < 1e-15);
  BOOST_TEST(std::abs(line.share(40) - 0.6) < 1e-15);
  BOOST_TEST(line.share(80) == 1);
  BOOST_TEST(line.share(1000) == 1);
  BOOST_TEST(std::abs(root.share(0) - 0.2) < 1e-15);
  BOOST_TEST(std::abs(root.share(40) - std::sqrt(0.04 + 0.48)) < 1e-15);
  for (std::uint64_t i = 1; i < 80; ++i) {
    BOOST_TEST(line.share(i) > line.share(i - 1));
    BOOST_TEST(root.share(i) > line.share(i));
  }
  const auto c = curriculum_of({5, 4, 3, 2, 1}, line);
  for (const auto& [i, count] : {std::pair<int, index>{0, 1},
                                 {9, 1},
                                 {11, 2},
                                 {40, 3},
                                 {49, 3},
                                 {51, 4},
                                 {71, 5},
                                 {80, 5},
                                 {81, 5}})
    BOOST_TEST(c.available(static_cast<std::uint64_t>(i)) == count);
}

// Draws come from the easiest items only, evenly; then each epoch visits all.
BOOST_AUTO_TEST_CASE(draws) {
  std::vector<double> difficulty;
  for (int i = 0; i < 50; ++i) difficulty.push_back(-i);  // item 49 is the easiest
  constexpr std::uint64_t full = 100'000;
  const auto c = curriculum_of(difficulty, {.start = 0.1, .full = full});
  std::vector<double> counts(5);
  for (std::uint64_t i = 0; i < full; ++i) {
    const index rank = 49 - c(i);
    BOOST_TEST_REQUIRE(rank < c.available(i));
    if (c.available(i) == 6) ++counts[at((std::min)(rank, index{4}))];
  }
  // Of six items there, so ranks 0 to 3 a sixth each and 4 or 5 two. Four degrees of freedom.
  const double sixth = std::accumulate(counts.begin(), counts.end(), 0.) / 6;
  BOOST_TEST(sixth > 300);
  BOOST_TEST(chi_square(counts, {sixth, sixth, sixth, sixth, 2 * sixth}) < 25);
  const auto epoch = [&](std::uint64_t from) {
    std::vector<index> items;
    for (std::uint64_t i = 0; i < 50; ++i) items.push_back(c(full + from + i));
    return items;
  };
  const auto first = epoch(0), second = epoch(50);
  for (const auto& one : {first, second})
    BOOST_TEST(std::set<index>(one.begin(), one.end()).size() == 50);
  BOOST_TEST((first != second));
  const auto again = curriculum_of(difficulty, {.start = 0.1, .full = full}),
             other = curriculum_of(difficulty, {.start = 0.1, .full = full}, 2);
  int differ = 0;
  for (std::uint64_t i = 2 * full; i-- > full - 1000;) {
    BOOST_TEST_REQUIRE(again(i) == c(i));
    differ += other(i) != c(i);
  }
  BOOST_TEST(differ > 90'000);
}

// Epochs begin with the first example that all items are there for, whatever its number.
BOOST_AUTO_TEST_CASE(epochs_begin_when_all_are_there) {
  for (const std::uint64_t full : {0u, 1u, 7u, 10u, 12u, 19u}) {
    const auto c = curriculum_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {.start = 0.5, .full = full});
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<index> seen;
      for (std::uint64_t i = 0; i < 10; ++i) seen.insert(c(full + 10 * epoch + i));
      BOOST_TEST(seen.size() == 10u, full << ' ' << epoch);
    }
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto opening = [](const std::vector<double>& difficulty, const ln::pacing& pace) {
    return message(ln::curriculum::open(difficulty, pace, ln::seed{1}));
  };
  const std::string open = "curriculum::open: ";
  BOOST_TEST(opening({1}, {.start = 1}) == "success");
  BOOST_TEST(opening({}, {}).starts_with(open + "items"));
  BOOST_TEST(opening({1, nan}, {}).starts_with(open + "difficulty"));
  for (const double bad : {0., -0.5, 1.01, nan})
    BOOST_TEST(opening({1}, {.start = bad}).starts_with(open + "pacing.start"));
  for (const double bad : {0., -1., nan})
    BOOST_TEST(opening({1}, {.power = bad}).starts_with(open + "pacing.power"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mixture_test
