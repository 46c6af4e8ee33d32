// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Figures that GLUE judges answers by beside accuracy: F1 and three correlations.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include <linnet/data/glue.hpp>
#include <linnet/eval/estimates.hpp>

LINNET_NAMESPACE_BEGIN

/// F1 of the class `positive`: the harmonic mean of precision and recall. 0 where nothing is, and
/// is taken for, that class; NaN for spans that are empty or of unlike lengths.
inline double f1_score(std::span<const index> predicted, std::span<const index> actual,
                       index positive = 1) {
  if (predicted.size() != actual.size() || actual.empty()) return detail::unknown;
  double both = 0, either = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    both += predicted[i] == positive && actual[i] == positive;
    either += (predicted[i] == positive) + (actual[i] == positive);
  }
  return either > 0 ? 2 * both / either : 0;
}

/// Matthews' correlation of classes, for any number of them (Gorodkin 2004, eq. 8): 1 for the same,
/// 0 for chance and where one side is always one class, -1 for the opposite of two. A prediction of
/// -1, no class, is one more class. NaN for spans that are empty or of unlike lengths, or where
/// memory lacks.
inline double matthews_correlation(std::span<const index> predicted,
                                   std::span<const index> actual) LINNET_TRY {
  if (predicted.size() != actual.size() || actual.empty()) return detail::unknown;
  std::vector<index> p(predicted.begin(), predicted.end()), a(actual.begin(), actual.end());
  std::sort(p.begin(), p.end());
  std::sort(a.begin(), a.end());
  // Pairs of equal classes: all of two sides, each with each.
  const auto pairs = [](const std::vector<index>& x, const std::vector<index>& y) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size();) {
      const auto end = std::upper_bound(x.begin(), x.end(), x[i]);
      const auto others = std::equal_range(y.begin(), y.end(), x[i]);
      const auto n = static_cast<std::size_t>(end - x.begin()) - i;
      sum += static_cast<double>(n) * static_cast<double>(others.second - others.first);
      i += n;
    }
    return sum;
  };
  const auto n = static_cast<double>(actual.size());
  double right = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) right += predicted[i] == actual[i];
  const double spread = (n * n - pairs(p, p)) * (n * n - pairs(a, a));
  return spread > 0 ? (right * n - pairs(p, a)) / std::sqrt(spread) : 0;
}
LINNET_WITHOUT_MEMORY(return detail::unknown)

/// Pearson's correlation of two variables. NaN where one of them is constant or not finite, and for
/// spans of fewer than two numbers or of unlike lengths.
inline double pearson_correlation(std::span<const double> x, std::span<const double> y) {
  if (x.size() != y.size() || x.size() < 2) return detail::unknown;
  // A sum of equal numbers is rounded, so that the mean may be another one.
  for (const auto side : {x, y})
    if (std::equal(side.begin() + 1, side.end(), side.begin())) return detail::unknown;
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
               mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, xy = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = x[i] - mean_x, b = y[i] - mean_y;
    xx += a * a;
    xy += a * b;
    yy += b * b;
  }
  const double spread = std::sqrt(xx) * std::sqrt(yy);
  return is_finite(spread) && spread > 0 ? xy / spread : detail::unknown;
}

namespace detail {
/// The rank of each number, from 1; equal ones have the mean of their ranks.
inline std::vector<double> ranks_of(std::span<const double> x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  std::vector<double> ranks(x.size());
  for (std::size_t i = 0; i < x.size();) {
    std::size_t end = i + 1;
    while (end < x.size() && !(x[order[i]] < x[order[end]])) ++end;
    for (std::size_t j = i; j < end; ++j) ranks[order[j]] = static_cast<double>(i + 1 + end) / 2;
    i = end;
  }
  return ranks;
}
}  // namespace detail

/// Spearman's correlation: that of Pearson between the ranks, of which equal numbers have the mean.
/// NaN as for pearson_correlation(), or where memory lacks.
inline double spearman_correlation(std::span<const double> x,
                                   std::span<const double> y) LINNET_TRY {
  for (const auto side : {x, y})
    if (!std::all_of(side.begin(), side.end(), [](double v) { return is_finite(v); }))
      return detail::unknown;
  return pearson_correlation(detail::ranks_of(x), detail::ranks_of(y));
}
LINNET_WITHOUT_MEMORY(return detail::unknown)

/// The one figure that GLUE's mean is made of for a task of classes, see text_task::judged_by.
/// Classes are places of their labels, or -1; NaN for spans that are empty or of unlike lengths.
inline double main_figure(const text_task& task, std::span<const index> predicted,
                          std::span<const index> actual) {
  if (predicted.size() != actual.size() || actual.empty()) return detail::unknown;
  if (task.judged_by == task_figure::matthews) return matthews_correlation(predicted, actual);
  accuracy right;
  for (std::size_t i = 0; i < actual.size(); ++i) right.add(predicted[i] == actual[i]);
  if (task.judged_by == task_figure::accuracy) return right.value();
  return (f1_score(predicted, actual) + right.value()) / 2;
}

LINNET_NAMESPACE_END
