// SPDX-License-Identifier: MIT
// F1 and correlations: by hand, against their definitions, and where there is nothing to judge.

#include <cmath>

#include "support/test.hpp"

namespace test::correlation_test {

namespace {

using classes = std::vector<index>;
using numbers = std::vector<double>;

/// Matthews' correlation of any number of classes as covariances of indicators (Gorodkin 2004).
double by_covariances(const classes& p, const classes& a, index least, index most) {
  const auto n = static_cast<double>(p.size());
  const auto covariance = [&](const classes& x, const classes& y) {
    double sum = 0;
    for (index k = least; k <= most; ++k) {
      double both = 0, in_x = 0, in_y = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        both += x[i] == k && y[i] == k;
        in_x += x[i] == k;
        in_y += y[i] == k;
      }
      sum += both / n - in_x / n * in_y / n;
    }
    return sum;
  };
  return covariance(p, a) / std::sqrt(covariance(p, p) * covariance(a, a));
}

classes drawn(std::uint64_t seed, std::size_t n, index least, index most) {
  ln::random_stream random(ln::seed{seed}, 1);
  classes all(n);
  for (index& x : all)
    x = least + static_cast<index>(random.bits() % static_cast<std::uint64_t>(most - least + 1));
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(correlation)

BOOST_AUTO_TEST_CASE(classes_by_hand) {
  const classes actual{1, 1, 1, 0, 0, 1, 0, 0}, predicted{1, 0, 1, 0, 1, 1, 0, -1};
  // Of class 1: 3 right, 1 wrongly taken for it, 1 missed.
  BOOST_TEST(ln::f1_score(predicted, actual) == 2 * 3.0 / (2 * 3 + 1 + 1));
  BOOST_TEST(ln::f1_score(predicted, actual, 0) == 2 * 2.0 / (2 * 2 + 1 + 2));
  const classes yes(4, 1), no(4, 0), mixed{1, 0, 1, 0}, turned{0, 1, 0, 1};
  BOOST_TEST(ln::f1_score(no, no) == 0);
  BOOST_TEST(ln::f1_score(yes, yes) == 1);
  BOOST_TEST(ln::matthews_correlation(mixed, mixed) == 1);
  BOOST_TEST(ln::matthews_correlation(turned, mixed) == -1);
  BOOST_TEST(ln::matthews_correlation(yes, mixed) == 0);
  BOOST_TEST(ln::matthews_correlation(yes, yes) == 0);
  const classes a{1, 1, 1, 1, 0, 0}, p{1, 1, 1, 0, 0, 1};  // 3 1, 1 1
  BOOST_TEST(std::abs(ln::matthews_correlation(p, a) -
                      (3 * 1 - 1 * 1) / std::sqrt(4.0 * 4 * 2 * 2)) < 1e-15);
  for (const auto& [one, other] : {std::pair(classes{}, classes{}), std::pair(yes, classes{1})}) {
    BOOST_TEST(ln::is_nan(ln::f1_score(one, other)));
    BOOST_TEST(ln::is_nan(ln::matthews_correlation(one, other)));
    BOOST_TEST(ln::is_nan(ln::main_figure(ln::glue::sst2, one, other)));
  }
}

BOOST_AUTO_TEST_CASE(matthews_is_a_correlation_of_indicators) {
  for (const index most : {1, 2, 5}) {
    const classes a = drawn(1, 200, 0, most);
    classes p = drawn(2, 200, -1, most);
    for (std::size_t i = 0; i < p.size(); i += 2) p[i] = a[i];
    BOOST_TEST(std::abs(ln::matthews_correlation(p, a) - by_covariances(p, a, -1, most)) < 1e-12);
  }
}

// Values of Python's statistics.correlation, of the numbers and of their ranks.
BOOST_AUTO_TEST_CASE(correlations_of_numbers) {
  const numbers x{1.5, 2, 2, 3.25, 4, 0.5, 5}, y{2.2, 1.8, 2.6, 3, 5, 0, 3.8};
  BOOST_TEST(std::abs(ln::pearson_correlation(x, y) - 0.8762944237945082) < 1e-14);
  BOOST_TEST(std::abs(ln::spearman_correlation(x, y) - 0.900937462695559) < 1e-14);
  numbers cubes = x, falling = x;
  for (double& v : cubes) v = v * v * v;
  for (double& v : falling) v = -std::exp(v);
  BOOST_TEST(std::abs(ln::spearman_correlation(x, cubes) - 1) < 1e-15);
  BOOST_TEST(std::abs(ln::spearman_correlation(x, falling) + 1) < 1e-15);
  BOOST_TEST(ln::pearson_correlation(x, cubes) < 0.95);
  const numbers same(7, 3.0), few{1.0}, wrong{1, 2, 3, 4, 5, 6, std::nan("")};
  for (const numbers& other : {same, few, wrong}) {
    BOOST_TEST(ln::is_nan(ln::pearson_correlation(x, other)));
    BOOST_TEST(ln::is_nan(ln::spearman_correlation(x, other)));
  }
  BOOST_TEST(ln::is_nan(ln::pearson_correlation(few, few)));
  // Constant, though the mean of such numbers is not exactly one of them.
  const numbers tenth(3, 0.1), rising{1, 2, 3};
  BOOST_TEST(ln::is_nan(ln::pearson_correlation(tenth, rising)));
  BOOST_TEST(ln::is_nan(ln::pearson_correlation(rising, tenth)));
  BOOST_TEST(ln::is_nan(ln::pearson_correlation(tenth, tenth)));
}

BOOST_AUTO_TEST_CASE(each_task_has_its_figure) {
  const classes actual{1, 1, 1, 0, 0, 1}, predicted{1, 0, 1, 0, 1, 1};
  const double right = 4.0 / 6, f1 = ln::f1_score(predicted, actual);
  namespace glue = ln::glue;
  for (const auto& task : {glue::sst2, glue::mnli, glue::qnli, glue::rte, glue::wnli})
    BOOST_TEST(ln::main_figure(task, predicted, actual) == right);
  for (const auto& task : {glue::mrpc, glue::qqp})
    BOOST_TEST(ln::main_figure(task, predicted, actual) == (right + f1) / 2);
  BOOST_TEST(ln::main_figure(glue::cola, predicted, actual) ==
             ln::matthews_correlation(predicted, actual));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::correlation_test
