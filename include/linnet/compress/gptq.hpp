// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// GPTQ: rounds a matrix input by input, and lets later inputs make up for the error (Frantar et
/// al. 2022).

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Cholesky>

#include <linnet/compress/after_eigen.inl>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <linnet/compress/clip_search.hpp>

LINNET_NAMESPACE_BEGIN

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), a method of quantize(). Inputs are rounded one
/// after the other. What rounding one adds to the output's error, later ones take back as well as
/// X^T X allows. Inputs that calibration never saw are rounded to nearest.
struct gptq {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code

  clip_search clip{.least = 1};  ///< how scales are found; this one cuts nothing

  static constexpr const char* name = "gptq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("clip", self.clip);
  }

  class rounder;
};

/// Rounds matrices by one gptq. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class gptq::rounder {
 public:
  explicit rounder(const gptq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    using grid = detail::code_grid<S>;
    if (auto fit = factor(x); !fit) return fit;
    const index group = S::group > 0 ? S::group : columns;
    const bool ahead = S::group == 0 || how_.act_order;  // scales of the weights as they were
    // A block ends where a group does, so that a group's scale sees no weight that is behind.
    const index stride = round_up((std::min)(how_.block, columns), ahead ? 1 : group);
    grid whole;
    if constexpr (S::per_tensor) {
      const std::vector<double> all(from, from + rows * columns);
      whole = grid::fit(rows * columns, all.data());
    }
    const index groups = (columns + group - 1) / group, strip = (std::min)(rows, rows_at_a_time);
    std::vector<double> numbers(at(strip * columns)), errors(at(stride));
    std::vector<grid> grids(at(strip * groups), whole);
    std::vector<typename S::value> codes(at(strip * columns));
    std::vector<index> natural(at(columns));
    std::iota(natural.begin(), natural.end(), index{0});
    for (index r0 = 0; r0 < rows; r0 += strip) {
      const index count = (std::min)(strip, rows - r0);
      for (index r = 0; r < count; ++r) {
        const float* const w = from + (r0 + r) * columns;
        for (index i = 0; i < columns; ++i)
          numbers[at(r * columns + i)] = static_cast<double>(w[order_[at(i)]]);
        for (index g = 0; g < groups && ahead && !S::per_tensor; ++g) {
          const index first = g * group, end = (std::min)(columns, first + group);
          const std::vector<double> some(w + first, w + end);
          grids[at(r * groups + g)] =
              how_.clip.fit<S>(end - first, some.data(), natural.data() + first, x);
        }
      }
      for (index first = 0; first < columns; first += stride) {
        const index last = (std::min)(columns, first + stride);
        for (index r = 0; r < count; ++r) {
          double* const row = numbers.data() + r * columns;
          for (index i = first; i < last; ++i) {
            const index j = order_[at(i)];
            grid& g = grids[at(r * groups + j / group)];
            if (!ahead && i % group == 0)
              g = how_.clip.fit<S>((std::min)(group, columns - i), row + i, natural.data() + i, x);
            const auto code = g.nearest(row[i]);
            codes[at(r * columns + j)] = code;
            errors[at(i - first)] = (row[i] - g.at(code)) / factor_(i, i);
            subtract(i + 1, last, errors[at(i - first)], i, row);
          }
          for (index i = first; i < last; ++i)
            subtract(last, columns, errors[at(i - first)], i, row);
        }
      }
      for (index r = 0; r < count; ++r) {
        for (index j = 0; j < columns; ++j)
          to.set_code(r0 + r, j, columns, codes[at(r * columns + j)]);
        for (index g = 0; g < groups; ++g)
          to.set_grid(r0 + r, g, columns, grids[at(r * groups + g)]);
      }
    }
    return {};
  }

 private:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  static constexpr index rows_at_a_time = 64;

  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  /// row[first, last) -= error * factor_(i, .)
  void subtract(index first, index last, double error, index i, double* row) const {
    const double* const u = factor_.data() + i * factor_.cols();
    for (index j = first; j < last; ++j) row[j] -= error * u[j];
  }
  /// The order of the inputs and the upper U with H^-1 = U^T U, for H = X^T X in that order. With R
  /// = U^-1 it is H = R R^T: a Cholesky decomposition from the last row to the first.
  result<void> factor(const input_statistics& x) {
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    if (x.moments == factored_) return {};
    factored_ = nullptr;
    const index k = x.width;
    if (!detail::has_memory(4 * detail::array_bytes(k, k, sizeof(double))))
      return detail::out_of_memory("gptq");
    const auto diagonal = [&](index j) {
      const double d = x.moments[j * k + j];
      return d > 0 ? d : static_cast<double>(x.rows) / 2;  // an input that was always 0
    };
    order_.resize(at(k));
    std::iota(order_.begin(), order_.end(), index{0});
    if (how_.act_order)
      std::stable_sort(order_.begin(), order_.end(),
                       [&](index a, index b) { return diagonal(a) > diagonal(b); });
    double mean = 0;
    for (index j = 0; j < k; ++j) mean += diagonal(j) / static_cast<double>(k);
    matrix h(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j) {
        const index a = order_[at(k - 1 - i)], b = order_[at(k - 1 - j)];
        h(i, j) = a == b ? diagonal(a) + how_.damp * mean : x.moments[a * k + b];
      }
    const Eigen::LLT<matrix> lower(h);
    bool regular = static_cast<int>(lower.info()) == 0 && (how_.damp > 0 || x.rows >= k);
    for (index i = 0; i < k && regular && how_.damp == 0; ++i) {
      const double pivot = lower.matrixLLT()(i, i);
      regular = pivot * pivot > 1e-12 * h(i, i);
    }
    if (!regular)
      return error{errc::invalid,
                   "gptq",
                   {},
                   "X^T X that can be inverted: give more text or a larger gptq.damp",
                   "a singular one"};
    matrix upper = matrix::Zero(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = i; j < k; ++j) upper(i, j) = lower.matrixLLT()(k - 1 - i, k - 1 - j);
    factor_ = matrix::Identity(k, k);
    upper.triangularView<Eigen::Upper>().solveInPlace(factor_);
    factored_ = x.moments;
    return {};
  }

  gptq how_;
  const double* factored_ = nullptr;  ///< what order_ and factor_ are of
  std::vector<index> order_;          ///< of the inputs
  matrix factor_;                     ///< U
};

LINNET_NAMESPACE_END
