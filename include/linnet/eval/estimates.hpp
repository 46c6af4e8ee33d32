// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Figures with their standard errors: shares, means and ratios over samples that may come in
/// clusters.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// A figure of too few samples.
inline constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
}  // namespace detail

/// Counts of right answers, and their share.
struct accuracy {
  index right = 0;
  index total = 0;

  /// Counts one answer.
  void add(bool is_right) {
    right += is_right;
    ++total;
  }
  /// The share; NaN without answers.
  double value() const {
    return total > 0 ? static_cast<double>(right) / static_cast<double>(total) : detail::unknown;
  }
  /// Standard error of the share over samples of this size: sqrt(p (1 - p) / n). NaN for fewer
  /// than two.
  double standard_error() const {
    return total > 1 ? std::sqrt(value() * (1 - value()) / static_cast<double>(total))
                     : detail::unknown;
  }
};

/// A figure and its standard error, in the figure's unit; NaN where there are too few samples.
struct estimate {
  double value = detail::unknown;
  double error = detail::unknown;
};

namespace detail {
/// ratio_estimate() of n samples top(i) and bottom(i).
template <class Top, class Bottom>
estimate ratio_of(std::size_t n, Top&& top, Bottom&& bottom) {
  double all_top = 0, all_bottom = 0, squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    all_top += top(i);
    all_bottom += bottom(i);
  }
  if (!(all_bottom > 0)) return {};
  const double ratio = all_top / all_bottom;
  for (std::size_t i = 0; i < n; ++i) {
    const double rest = top(i) - ratio * bottom(i);
    squares += rest * rest;
  }
  const auto count = static_cast<double>(n);
  return {ratio, n > 1 ? std::sqrt(count / (count - 1) * squares) / all_bottom : unknown};
}
}  // namespace detail

/// The ratio sum(top) / sum(bottom) of samples [n] that are whole documents, such as bits over
/// bytes. Its error is that of the delta method: sqrt(n / (n - 1) sum (top - ratio bottom)^2) /
/// sum(bottom) (Cochran 1977, 6.4). Both are NaN for no samples or a bottom of 0. The error is NaN
/// for one sample, too.
inline estimate ratio_estimate(std::span<const double> top, std::span<const double> bottom) {
  if (top.size() != bottom.size()) return {};
  return detail::ratio_of(
      top.size(), [&](std::size_t i) { return top[i]; }, [&](std::size_t i) { return bottom[i]; });
}

/// The mean of samples [n] and the error of independent samples, sqrt(sum (x - mean)^2 / (n (n -
/// 1))).
inline estimate mean_estimate(std::span<const double> samples) {
  return detail::ratio_of(
      samples.size(), [&](std::size_t i) { return samples[i]; }, [](std::size_t) { return 1.0; });
}
/// The mean of samples that are alike within a cluster, such as the sentences of one template.
/// `clusters` [n] numbers them from 0. The error of g clusters is sqrt(g / (g - 1) sum over
/// clusters of (sum within (x - mean))^2) / n. It is larger where clusters agree in themselves
/// (Cameron and Miller 2015). It is the error over clusters drawn anew, so of another test like
/// this one. Both are NaN where memory lacks.
inline estimate mean_estimate(std::span<const double> samples,
                              std::span<const index> clusters) LINNET_TRY {
  if (samples.empty() || clusters.size() != samples.size()) return {};
  const index most = *std::max_element(clusters.begin(), clusters.end());
  std::vector<double> sums(static_cast<std::size_t>(most) + 1), sizes(sums.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    sums[static_cast<std::size_t>(clusters[i])] += samples[i];
    sizes[static_cast<std::size_t>(clusters[i])] += 1;
  }
  // Numbers that no sample has are no clusters.
  std::size_t kept = 0;
  for (std::size_t c = 0; c < sums.size(); ++c)
    if (sizes[c] > 0) {
      sums[kept] = sums[c];
      sizes[kept++] = sizes[c];
    }
  return ratio_estimate(std::span(sums).first(kept), std::span(sizes).first(kept));
}
LINNET_WITHOUT_MEMORY(return estimate{})

LINNET_NAMESPACE_END
