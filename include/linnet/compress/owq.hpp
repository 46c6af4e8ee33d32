// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// OWQ: the inputs whose rounding would cost most stay in higher precision (Lee et al. 2023).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include <linnet/compress/error_compensation.hpp>
#include <linnet/compress/quantize_by.hpp>

LINNET_NAMESPACE_BEGIN

/// OWQ (Lee et al. 2023, arXiv:2306.02272), a method of quantize() for storage::outlier_columns.
/// Inputs are weak where rounding them costs most: X^T X times the squared errors. They stay in the
/// storage's higher precision. All others are rounded as by gptq, and the weak ones take over
/// errors, too. Scales are searched for the least sum of |error|^2.4.
struct owq {
  bool act_order = false;  ///< the inputs with the largest norms first
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  index steps = 100;       ///< scales that are tried for a row
  index group_steps = 40;  ///< scales that are tried for a group, and to find the weak inputs

  static constexpr const char* name = "owq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("group_steps", self.group_steps, detail::option_range{.least = 1, .most = 1000});
  }

  class rounder;
};

namespace detail {

/// The grid with the least sum of |error|^2.4 among those of 1/steps, 2/steps, ... of the range.
/// Where there are zero points, each is tried. Grids of ggml, and those whose scales are not any
/// numbers, are those of rounding to nearest.
template <class S>
code_grid<S> fit_truncated(index n, const double* w, index steps) {
  using grid = code_grid<S>;
  grid best = grid::fit(n, w);
  if constexpr (S::ggml || S::fixed_scales) return best;
  double low = 0, high = 0;
  for (index j = 0; j < n; ++j) {
    low = (std::min)(low, w[j]);
    high = (std::max)(high, w[j]);
  }
  const double range = S::centred ? high - low : (std::max)(-low, high);
  const auto made = [&](index step, double zero) {
    grid one;
    one.scale = static_cast<float>(range * static_cast<double>(step) / static_cast<double>(steps) /
                                   S::largest);
    one.zero = static_cast<float>(zero);
    return one;
  };
  // No further than `most`: most grids are much worse than the best.
  const auto error_of = [&](const grid& one, double most) {
    double error = 0;
    for (index j = 0; j < n && error < most; ++j)
      error += std::pow(std::abs(w[j] - one.at(one.nearest(w[j]))), 2.4);
    return error;
  };
  double least = (std::numeric_limits<double>::max)(), enough = least;
  if (!(made(1, 0).scale > 0)) return best;
  const double zero = S::centred ? std::nearbyint(-low / range * S::largest) : 0;
  for (index i = 1; i <= steps && S::centred; ++i)
    enough = (std::min)(enough, error_of(made(i, zero), enough) * (1 + 1e-9));
  for (index i = 1; i <= steps; ++i)
    for (double z = 0; z <= (S::centred ? S::largest : 0); ++z) {
      const grid one = made(i, z);
      const double error = error_of(one, (std::min)(least, enough));
      if (!(error < (std::min)(least, enough))) continue;
      least = error;
      best = one;
    }
  return best;
}

}  // namespace detail

/// Rounds matrices by one owq.
class owq::rounder {
 public:
  explicit rounder(const owq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          S::correction::keeps_columns,
          "linnet::owq: keeps whole inputs of a matrix; give it storage::outlier_columns");
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    std::vector<index> weak;
    if constexpr (kept<S>(1) > 0) weak = weak_inputs<S>(rows, columns, from, x);
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}, weak); !fit) return fit;
    if constexpr (kept<S>(1) > 0)
      for (std::size_t c = 0; c < weak.size(); ++c)
        to.correction.inputs[c] = static_cast<storage::input_number>(weak[c]);
    truncated<S> how{how_, to, columns};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }

 private:
  /// Inputs that stay in higher precision.
  template <class S>
  static constexpr index kept(index columns) {
    if constexpr (requires { requires S::correction::keeps_columns; })
      return S::correction::width(columns);
    else
      return 0;
  }
  /// Scales by a search; weak inputs keep what is left of their numbers.
  template <class S>
  struct truncated : detail::plain_rounding<S> {
    const owq& by;
    const matrix_ref<S>& to;
    index columns;

    truncated(const owq& method, const matrix_ref<S>& all, index width)
        : by(method), to(all), columns(width) {}
    void fit(const detail::group_of_rows<S>& some) {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) =
            detail::fit_truncated<S>(some.size, some.row(r), S::group ? by.group_steps : by.steps);
    }
    void finish([[maybe_unused]] index r, [[maybe_unused]] const double* numbers) const {
      if constexpr (kept<S>(1) > 0) {
        using Value = typename S::correction::value;
        const index weak = kept<S>(columns);
        for (index c = 0; c < weak; ++c) {
          const auto j = static_cast<index>(to.correction.inputs[c]);
          const double left = numbers[columns - weak + c] - to.coded(r, j, columns);
          to.correction.values.set_code(r, c, weak, Value::encode(left));
        }
      }
    }
  };

  /// The inputs with the largest H_jj sum_i (w_ij - q_ij)^2, ascending.
  template <class S>
  std::vector<index> weak_inputs(index rows, index columns, const float* from,
                                 const input_statistics& x) const {
    const auto at = [](index i) { return static_cast<std::size_t>(i); };
    std::vector<double> costs(at(columns)), numbers;
    const index group = S::group > 0 ? S::group : columns;
    for (index r = 0; r < rows; ++r)
      for (index first = 0; first < columns; first += group) {
        const index n = (std::min)(group, columns - first);
        const float* const w = from + r * columns + first;
        numbers.assign(w, w + n);
        const auto grid = detail::fit_truncated<S>(n, numbers.data(), how_.group_steps);
        for (index j = 0; j < n; ++j) {
          const double left = numbers[at(j)] - grid.at(grid.nearest(numbers[at(j)]));
          costs[at(first + j)] += left * left;
        }
      }
    for (index j = 0; j < columns; ++j) costs[at(j)] *= x.moments[j * columns + j];
    std::vector<index> order(at(columns));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](index a, index b) { return costs[at(a)] > costs[at(b)]; });
    order.resize(at(kept<S>(columns)));
    std::sort(order.begin(), order.end());
    return order;
  }

  owq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
