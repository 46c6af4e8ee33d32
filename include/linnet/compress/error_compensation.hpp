// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The loop of GPTQ (Frantar et al. 2022): inputs are rounded one after the other, and later ones
/// make up for the error.

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Cholesky>

#include <linnet/compress/after_eigen.inl>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include <linnet/compress/input_statistics.hpp>
#include <linnet/compress/round_groups.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A method that leaves inputs out: unit() inputs together, of which choose() sees the numbers
/// before the first of them is rounded.
template <class How>
concept chooses_inputs = requires(How& how) {
  how.unit();
};
/// Rounding for error_compensation::round() in which every number takes the nearest code.
template <class S>
struct plain_rounding {
  /// The code of the number of a row and input. Leaves what later inputs take over: the number
  /// minus that of the code.
  typename S::value round(index, index, double number, const code_grid<S>& g, double& left) const {
    const auto code = g.nearest(number);
    left = number - g.at(code);
    return code;
  }
  /// Rounds the scales, where the storage does.
  void seal(index rows, index columns, const matrix_ref<S>& to) const { to.seal(rows, columns); }
  /// Sees a row's numbers at the end, in the order of the loop.
  void finish(index, const double*) const {}
};

/// H = X^T X with damping, its inverse's factor, and the loop over inputs.
class error_compensation {
 public:
  /// How H is made.
  struct options {
    bool act_order;  ///< inputs with the largest norms first
    double damp;     ///< added to the diagonal, over its mean
  };
  /// How inputs are rounded.
  struct steps {
    bool act_order;
    index block;  ///< inputs rounded before the rest is updated
  };

  /// The order of the inputs and the upper U with H^-1 = U^T U, for H in that order. Inputs `last`,
  /// ascending, come at the end: they are not rounded. With R = U^-1 it is H = R R^T: a Cholesky
  /// decomposition from the last row to the first. Keeps what it computed of the last X^T X.
  result<void> factor(const char* method, const input_statistics& x, const options& how,
                      const std::vector<index>& last = {}) {
    if (auto fit = check_moments(method, x); !fit) return fit;
    if (x.moments == factored_ && last == last_) return {};
    factored_ = nullptr;
    last_ = last;
    const index k = x.width;
    if (!has_memory(4 * array_bytes(k, k, sizeof(double)))) return out_of_memory(method);
    const auto diagonal = [&](index j) {
      const double d = x.moments[j * k + j];
      return d > 0 ? d : static_cast<double>(x.rows) / 2;  // an input that was always 0
    };
    order_.resize(at(k));
    std::iota(order_.begin(), order_.end(), index{0});
    if (how.act_order)
      std::stable_sort(order_.begin(), order_.end(),
                       [&](index a, index b) { return diagonal(a) > diagonal(b); });
    std::stable_partition(order_.begin(), order_.end(), [&](index j) { return !comes_last(j); });
    std::copy(last.begin(), last.end(), order_.end() - std::ssize(last));
    double mean = 0;
    for (index j = 0; j < k; ++j) mean += diagonal(j) / static_cast<double>(k);
    matrix h(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j) {
        const index a = order_[at(k - 1 - i)], b = order_[at(k - 1 - j)];
        h(i, j) = a == b ? diagonal(a) + how.damp * mean : x.moments[a * k + b];
      }
    const Eigen::LLT<matrix> lower(h);
    bool regular = static_cast<int>(lower.info()) == 0 && (how.damp > 0 || x.rows >= k);
    for (index i = 0; i < k && regular && how.damp == 0; ++i) {
      const double pivot = lower.matrixLLT()(i, i);
      regular = pivot * pivot > 1e-12 * h(i, i);
    }
    if (!regular)
      return error{
          errc::invalid,
          method,
          {},
          "X^T X that can be inverted: give more text or a larger " + std::string(method) + ".damp",
          "a singular one"};
    matrix upper = matrix::Zero(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = i; j < k; ++j) upper(i, j) = lower.matrixLLT()(k - 1 - i, k - 1 - j);
    factor_ = matrix::Identity(k, k);
    upper.triangularView<Eigen::Upper>().solveInPlace(factor_);
    factored_ = x.moments;
    return {};
  }
  /// The input at a position of the loop.
  index input(index position) const { return order_[at(position)]; }
  /// U_ii at a position of the loop.
  double pivot(index position) const { return factor_(position, position); }

  /// Rounds from[rows, columns] to storage `S`. Inputs that come last take the code of 0, and what
  /// is left of their numbers goes to how.finish(). Scales are those that how.fit() gives a group
  /// when it begins; with act_order, and for rows, at the beginning.
  template <class S, class How>
  void round(index rows, index columns, const float* from, const matrix_ref<S>& to, const steps& by,
             How& how) const {
    using grid = code_grid<S>;
    const index group = S::group > 0 ? S::group : columns;
    const index groups = (columns + group - 1) / group;
    index strip = (std::min)(rows, rows_at_a_time), unit = 0;
    if constexpr (chooses_inputs<How>) {
      unit = how.unit();
      if (how.sees_all_rows()) strip = rows;
    }
    static_assert(rows_at_a_time % S::rows_together == 0);
    const auto fit = [&](const group_of_rows<S>& some) {
      how.fit(some);
      relate_scales<S>(some.count, [&](index r) -> float& { return some.grid(r).scale; });
    };
    const index rounded = columns - std::ssize(last_);
    const bool ahead = S::group == 0 || by.act_order;  // scales of the weights as they were
    grid whole;
    if constexpr (S::per_tensor) {
      const std::vector<double> all(from, from + rows * columns);
      whole = grid::fit(rows * columns, all.data());
    }
    const index wider = ahead ? unit : unit > 0 ? columns : group;  // than by.block
    const index widest = (std::min)(columns, by.block + wider);
    std::vector<double> numbers(at(strip * columns)), errors(at(strip * widest)), members;
    std::vector<typename S::value> codes(at(strip * columns));
    std::vector<index> inputs;
    for (index r0 = 0; r0 < rows; r0 += strip) {
      const index count = (std::min)(strip, rows - r0);
      std::vector<grid> grids(at(strip * groups), whole);
      for (index r = 0; r < count; ++r)
        for (index i = 0; i < columns; ++i)
          numbers[at(r * columns + i)] =
              static_cast<double>(from[(r0 + r) * columns + order_[at(i)]]);
      for (index g = 0; g < groups && ahead && !S::per_tensor; ++g) {
        inputs.clear();
        for (index j = g * group; j < (std::min)(columns, (g + 1) * group); ++j)
          if (!comes_last(j)) inputs.push_back(j);
        members.clear();
        for (index r = 0; r < count; ++r)
          for (const index j : inputs)
            members.push_back(static_cast<double>(from[(r0 + r) * columns + j]));
        const index size = std::ssize(inputs);
        if (size > 0)
          fit(group_of_rows<S>{r0, count, size, members.data(), size, inputs.data(),
                               grids.data() + g, groups});
      }
      const auto group_at = [&](index i) { return order_[at(i)] / group; };
      const auto new_group = [&](index i) { return i == 0 || group_at(i) != group_at(i - 1); };
      const auto new_unit = [&](index i) { return unit > 0 && i % unit == 0; };
      const auto rows_of = [&](index first, index size, code_grid<S>* g) {
        return group_of_rows<S>{
            r0, count, size, numbers.data() + first, columns, order_.data() + first, g, groups};
      };
      for (index first = 0, end = 0; first < rounded; first = end) {
        // A block ends where a group and a unit do, so that none sees a weight that is behind.
        end = (std::min)(rounded, first + by.block);
        while (end < rounded && ((!ahead && !new_group(end)) || (unit > 0 && !new_unit(end))))
          ++end;
        for (index a = first, b = end; a < end; a = b) {
          for (b = a + 1; b < end && (ahead || !new_group(b)) && !new_unit(b);) ++b;
          if (!ahead && new_group(a)) {
            index last = a + 1;
            while (last < end && !new_group(last)) ++last;
            fit(rows_of(a, last - a, grids.data() + group_at(a)));
          }
          if constexpr (chooses_inputs<How>)
            if (new_unit(a)) how.choose(rows_of(a, (std::min)(unit, rounded - a), nullptr));
          for (index r = 0; r < count; ++r) {
            double* const row = numbers.data() + r * columns;
            for (index i = a; i < b; ++i) {
              double& error = errors[at(r * widest + i - first)];
              codes[at(r * columns + order_[at(i)])] = how.round(
                  r0 + r, order_[at(i)], row[i], grids[at(r * groups + group_at(i))], error);
              error /= factor_(i, i);
              subtract(i + 1, end, error, i, row);
            }
          }
        }
        for (index r = 0; r < count; ++r)
          for (index i = first; i < end; ++i)
            subtract(end, columns, errors[at(r * widest + i - first)], i,
                     numbers.data() + r * columns);
      }
      for (index r = 0; r < count; ++r) {
        for (const index j : last_)
          codes[at(r * columns + j)] = grids[at(r * groups + j / group)].nearest(0);
        for (index j = 0; j < columns; ++j)
          to.set_code(r0 + r, j, columns, codes[at(r * columns + j)]);
        for (index g = 0; g < groups; ++g)
          to.set_grid(r0 + r, g, columns, grids[at(r * groups + g)]);
        how.finish(r0 + r, numbers.data() + r * columns);
      }
    }
    how.seal(rows, columns, to);
  }

 private:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  static constexpr index rows_at_a_time = 64;

  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  bool comes_last(index j) const { return std::find(last_.begin(), last_.end(), j) != last_.end(); }
  /// row[first, last) -= error * factor_(i, .)
  void subtract(index first, index last, double error, index i, double* row) const {
    const double* const u = factor_.data() + i * factor_.cols();
    for (index j = first; j < last; ++j) row[j] -= error * u[j];
  }

  const double* factored_ = nullptr;  ///< what order_ and factor_ are of
  std::vector<index> order_;          ///< of the inputs
  std::vector<index> last_;           ///< inputs that are not rounded
  matrix factor_;                     ///< U
};

}  // namespace detail

LINNET_NAMESPACE_END
