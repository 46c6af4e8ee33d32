// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Clipped ranges: a group's largest numbers are cut where the others gain more (Lin et al. 2023).

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/round_groups.hpp>

LINNET_NAMESPACE_BEGIN

/// AWQ's search of clipped ranges (Lin et al. 2023, arXiv:2306.00978), a method of quantize() and a
/// part of gptq. The range of each group shrinks by steps, as long as it is above `least`. The
/// group keeps the range with the least error in the outputs, by its own block of X^T X. That of
/// rounding to nearest is among them, so no group's error grows.
struct clip_search {
  index steps = 20;    ///< ranges from 0 to the whole one
  double least = 0.5;  ///< smallest range, over the whole one; 1 searches nothing

  static constexpr const char* name = "clip_search";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("least", self.least, detail::option_range{.least = 0, .most = 1, .above = true});
  }

  /// The grid for inputs [first, first + n) of a row, `w`, that are numbers order[first + i] of X.
  template <class S>
  detail::code_grid<S> fit(index n, const double* w, const index* order,
                           const input_statistics& x) const {
    using grid = detail::code_grid<S>;
    grid best = grid::fit(n, w);
    if (!S::scaled || S::per_tensor || least == 1) return best;
    std::vector<double> cut(w, w + n), off(cut);
    double least_error = 0;
    for (index i = 0; i < steps; ++i) {
      const double share = 1 - static_cast<double>(i) / static_cast<double>(steps);
      if (share < least) break;
      for (index j = 0; j < n; ++j) cut[at(j)] = w[j] * share;
      const grid one = grid::fit(n, cut.data());
      for (index j = 0; j < n; ++j) off[at(j)] = w[j] - one.at(one.nearest(w[j]));
      double error = 0;
      for (index j = 0; j < n; ++j) {
        const double* const row = x.moments + order[j] * x.width;
        double sum = 0;
        for (index c = 0; c < n; ++c) sum += row[order[c]] * off[at(c)];
        error += sum * off[at(j)];
      }
      if (i > 0 && !(error < least_error)) continue;
      best = one;
      least_error = error;
    }
    return best;
  }

  class rounder;

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
};

/// Rounds matrices by one clip_search.
class clip_search::rounder {
 public:
  explicit rounder(const clip_search& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    if constexpr (!S::scaled || S::per_tensor) {
      detail::encode_matrix(rows, columns, from, to);
    } else {
      std::vector<index> order(at(columns));
      std::iota(order.begin(), order.end(), index{0});
      detail::round_groups(
          rows, columns, from, to, [&](index first, const std::vector<double>& w, auto& codes) {
            const auto grid = how_.fit<S>(std::ssize(w), w.data(), order.data() + first, x);
            for (std::size_t j = 0; j < w.size(); ++j) codes[j] = grid.nearest(w[j]);
            return grid;
          });
    }
    return {};
  }

 private:
  clip_search how_;
};

LINNET_NAMESPACE_END
