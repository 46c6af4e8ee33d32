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
#include <linnet/ops/matmul.hpp>

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

  /// Finds the grids of a group of inputs in some rows.
  template <class S>
  void fit(const detail::group_of_rows<S>& some, const input_statistics& x) const {
    using grid = detail::code_grid<S>;
    const index n = some.size;
    for (index r = 0; r < some.count; ++r) some.grid(r) = grid::fit(n, some.row(r));
    if (!S::scaled || S::per_tensor || least == 1) return;
    std::vector<double> block, cut(at(n)), off(at(some.count * n)), product, errors(at(some.count));
    std::vector<grid> tried(at(some.count));
    ops::packed_matrix<double, storage::f64> moments;
    moments.rows = x.moments;
    if (n < x.width) {
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < n; ++j)
          block.push_back(x.moments[some.inputs[i] * x.width + some.inputs[j]]);
      moments.rows = block.data();
    }
    ops::execution on;
    on.level = ops::best();
    for (index i = 0; i < steps; ++i) {
      const double share = 1 - static_cast<double>(i) / static_cast<double>(steps);
      if (share < least) break;
      for (index r = 0; r < some.count; ++r) {
        const double* const w = some.row(r);
        for (index j = 0; j < n; ++j) cut[at(j)] = w[j] * share;
        const grid one = tried[at(r)] = grid::fit(n, cut.data());
        for (index j = 0; j < n; ++j) off[at(r * n + j)] = w[j] - one.at(one.nearest(w[j]));
      }
      product.assign(off.size(), 0);
      ops::matmul_dx(on, some.count, n, n, off.data(), moments, product.data());
      for (index r = 0; r < some.count; ++r) {
        double error = 0;
        for (index j = r * n; j < (r + 1) * n; ++j) error += product[at(j)] * off[at(j)];
        if (i > 0 && !(error < errors[at(r)])) continue;
        some.grid(r) = tried[at(r)];
        errors[at(r)] = error;
      }
    }
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
      constexpr index together = 64;
      static_assert(together % S::rows_together == 0);
      const index group = S::group > 0 ? S::group : columns, groups = row_scales<S>(columns);
      std::vector<index> order(at(columns));
      std::iota(order.begin(), order.end(), index{0});
      for (index first = 0; first < rows; first += together) {
        const index count = (std::min)(together, rows - first);
        const std::vector<double> numbers(from + first * columns, from + (first + count) * columns);
        std::vector<detail::code_grid<S>> grids(at(count * groups));
        for (index g = 0, j = 0; g < groups; ++g, j += group) {
          const detail::group_of_rows<S> some{first,
                                              count,
                                              (std::min)(group, columns - j),
                                              numbers.data() + j,
                                              columns,
                                              order.data() + j,
                                              grids.data() + g,
                                              groups};
          how_.fit<S>(some, x);
          detail::relate_scales<S>(count, [&](index r) -> float& { return some.grid(r).scale; });
        }
        for (index r = 0; r < count; ++r) {
          const auto* const of_row = grids.data() + r * groups;
          for (index j = 0; j < columns; ++j)
            to.set_code(first + r, j, columns,
                        of_row[j / group].nearest(numbers[at(r * columns + j)]));
          for (index g = 0; g < groups; ++g) to.set_grid(first + r, g, columns, of_row[g]);
        }
      }
      to.seal(rows, columns);
    }
    return {};
  }

 private:
  clip_search how_;
};

LINNET_NAMESPACE_END
