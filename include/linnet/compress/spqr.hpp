// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SpQR: the weights that would cost most stay as they are, wherever they are (Dettmers et al.
/// 2023).

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include <linnet/compress/error_compensation.hpp>
#include <linnet/compress/quantize_by.hpp>

LINNET_NAMESPACE_BEGIN

/// How many outliers spqr found, added up over all matrices.
struct spqr_report {
  index outliers = 0;  ///< that are kept
  index dropped = 0;   ///< that found no place, as their rows had more than the storage keeps
};

/// SpQR (Dettmers et al. 2023, arXiv:2306.03078), a method of quantize() for
/// storage::sparse_outliers. It is gptq, but weights whose rounding would cost more than a
/// threshold stay in higher precision. Groups are fitted without their likely outliers. Without
/// places for outliers it is gptq.
struct spqr {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 1;         ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  double threshold = 0.2;  ///< of an outlier's cost, over the mean of var(w) / U^2; fewer above
  bool leave_one_out = true;      ///< whether groups are fitted without their likely outliers
  spqr_report* report = nullptr;  ///< where outliers are counted, or null

  static constexpr const char* name = "spqr";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("threshold", self.threshold, detail::option_range{.least = 0});
    f("leave_one_out", self.leave_one_out, detail::one_of(detail::false_or_true));
  }

  class rounder;
};

/// Rounds matrices by one spqr. It keeps what it computed of the last X^T X.
class spqr::rounder {
 public:
  explicit rounder(const spqr& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Where rows have more outliers than the storage
  /// keeps, those that cost most win, and all is rounded again without the others. Errors:
  /// errc::invalid for X^T X that was not gathered, or that is singular even with `damp`; the
  /// caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          requires { to.correction.values; } && !S::correction::keeps_columns,
          "linnet::spqr: keeps single weights; give it storage::sparse_outliers");
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    sparse<S> how{how_, to, columns};
    how.pivots.resize(at(columns));
    for (index i = 0; i < columns; ++i) how.pivots[at(loop_.input(i))] = loop_.pivot(i);
    if constexpr (is_corrected<S>) how.most = threshold(rows, columns, from, how.pivots);
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    if (how.dropped > 0) {
      how.choose_again = true;
      how.outliers = 0;
      loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    }
    if (how_.report != nullptr) {
      how_.report->outliers += how.outliers;
      how_.report->dropped += how.dropped;
    }
    return {};
  }

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }

  /// A weight that stays as it is.
  struct outlier {
    index input;
    double number, cost;
  };
  /// Rounding with outliers.
  template <class S>
  struct sparse {
    using grid = detail::code_grid<S>;
    const spqr& by;
    const matrix_ref<S>& to;
    index columns;
    double most = (std::numeric_limits<double>::max)();  ///< cost from which a weight stays
    std::vector<double> pivots = {};                     ///< U_jj of each input
    bool choose_again = false;                           ///< only those of `allowed` stay
    std::vector<std::vector<index>> allowed = {};        ///< inputs of each row
    std::vector<std::vector<outlier>> kept = {};         ///< of each row
    index dropped = 0, outliers = 0;

    void fit(const detail::group_of_rows<S>& some) const {
      std::vector<double> rest;
      for (index r = 0; r < some.count; ++r) {
        rest.assign(some.row(r), some.row(r) + some.size);
        if (is_corrected<S> && by.leave_one_out) leave_out(some.first + r, some.inputs, rest);
        some.grid(r) = grid::fit(std::ssize(rest), rest.data());
      }
      if constexpr (constexpr index together = S::levels::block_rows; together > 0) {
        std::vector<float> scales(at(some.count)), zeros(at(some.count));
        for (index r = 0; r < some.count; ++r) {
          scales[at(r)] = some.grid(r).scale;
          zeros[at(r)] = some.grid(r).zero;
        }
        for (index r = 0; r < some.count; r += together)
          to.levels.seal_block(some.first + r, (std::min)(together, some.count - r),
                               some.inputs[0] / S::group, row_scales<S>(columns), &scales[at(r)],
                               &zeros[at(r)], 1);
        for (index r = 0; r < some.count; ++r) some.grid(r) = {scales[at(r)], zeros[at(r)]};
      }
    }
    /// Takes the likely outliers out of a group: those without which the others cost much less.
    void leave_out(index r, const index* inputs, std::vector<double>& group) const {
      const auto cost = [&](const grid& g, std::size_t left_out) {
        double sum = 0;
        for (std::size_t j = 0; j < group.size(); ++j)
          if (j != left_out) sum += square(group[j] - g.at(g.nearest(group[j])), inputs[j]);
        return sum;
      };
      const double all = cost(grid::fit(std::ssize(group), group.data()), group.size());
      std::vector<double> others, remaining;
      for (std::size_t k = 0; k < group.size() && group.size() > 1; ++k) {
        others = group;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
        if (!may_stay(r, inputs[k]) ||
            !(all - cost(grid::fit(std::ssize(others), others.data()), k) > most))
          remaining.push_back(group[k]);
      }
      if (!remaining.empty()) group = remaining;
    }
    /// Whether there is a place for an outlier, as far as that is known.
    bool may_stay(index r, index input) const {
      if (!choose_again) return true;
      const auto& of_row = allowed[at(r)];
      return std::find(of_row.begin(), of_row.end(), input) != of_row.end();
    }
    double square(double left, index input) const {
      const double error = left / pivots[at(input)];
      return error * error;
    }
    typename S::value round(index r, index input, double number, const grid& g, double& left) {
      const auto code = g.nearest(number);
      left = number - g.at(code);
      const double cost = square(left, input);
      if (!(cost > most)) return code;
      if (!may_stay(r, input)) return code;
      if (kept.size() <= at(r)) kept.resize(at(r) + 1);
      kept[at(r)].push_back({input, number, cost});
      left = 0;
      return g.nearest(0);
    }
    /// Stores the outliers of a row, those that cost most where there are too many.
    void finish([[maybe_unused]] index r, const double*) {
      if constexpr (is_corrected<S>) {
        using Value = typename S::correction::value;
        const index width = S::correction::width(columns);
        if (kept.size() <= at(r)) kept.resize(at(r) + 1);
        if (allowed.size() <= at(r)) allowed.resize(at(r) + 1);
        std::vector<outlier> all;
        all.swap(kept[at(r)]);
        std::stable_sort(all.begin(), all.end(),
                         [](const outlier& a, const outlier& b) { return a.cost > b.cost; });
        if (std::ssize(all) > width) {
          dropped += std::ssize(all) - width;
          all.resize(at(width));
        }
        outliers += std::ssize(all);
        std::sort(all.begin(), all.end(),
                  [](const outlier& a, const outlier& b) { return a.input < b.input; });
        allowed[at(r)].clear();
        for (index c = 0; c < width; ++c) {
          const bool padding = c >= std::ssize(all);
          const outlier one = !padding ? all[at(c)] : all.empty() ? outlier{0, 0, 0} : all.back();
          const double base = to.coded(r, one.input, columns);
          to.correction.inputs[r * width + c] = static_cast<storage::input_number>(one.input);
          to.correction.values.set_code(r, c, width,
                                        Value::encode(padding ? 0 : one.number - base));
          if (!padding) allowed[at(r)].push_back(one.input);
        }
      }
    }
    /// Rounds the scales, but those that fit() has rounded.
    static void seal(index rows, index width, const matrix_ref<S>& all) {
      if constexpr (S::levels::block_rows == 0) all.seal(rows, width);
    }
  };

  /// The cost from which a weight is an outlier: a share of the mean of var(w_j) / U_jj^2.
  double threshold(index rows, index columns, const float* from,
                   const std::vector<double>& pivots) const {
    if (rows < 2) return (std::numeric_limits<double>::max)();
    double sum = 0;
    for (index j = 0; j < columns; ++j) {
      double mean = 0, squares = 0;
      for (index r = 0; r < rows; ++r) mean += static_cast<double>(from[r * columns + j]);
      mean /= static_cast<double>(rows);
      for (index r = 0; r < rows; ++r) {
        const double off = static_cast<double>(from[r * columns + j]) - mean;
        squares += off * off;
      }
      sum += squares / static_cast<double>(rows - 1) / (pivots[at(j)] * pivots[at(j)]);
    }
    return how_.threshold * sum / static_cast<double>(columns);
  }

  spqr how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
