// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SparseGPT: prunes a matrix input by input, and lets later inputs make up for the error (Frantar
/// and Alistarh 2023).

#include <algorithm>
#include <cstddef>
#include <vector>

#include <linnet/compress/error_compensation.hpp>
#include <linnet/compress/prune.hpp>

LINNET_NAMESPACE_BEGIN

/// SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774), a method of prune(). It is gptq with
/// weights that become 0 instead of the nearest code. The mask of some inputs is chosen when the
/// first of them is reached, from the weights as they are then. Given to quantize() it prunes and
/// rounds in one pass.
struct sparsegpt {
  double fraction = 0.5;   ///< of all outputs' weights of `mask_block` inputs
  n_of_m pattern{};        ///< instead of `fraction`
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index mask_block = 128;  ///< inputs whose mask is chosen together, where there is no pattern
  index block = 128;  ///< inputs treated before the rest is updated; no number changes a weight

  static constexpr const char* name = "sparsegpt";
  static constexpr bool reads_inputs = true;  ///< needs calibration with moments
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("pattern", self.pattern);
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("mask_block", self.mask_block, detail::count(1));
    f("block", self.block, detail::count(1));
  }

  class rounder;
};

/// Prunes matrices by one sparsegpt. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class sparsegpt::rounder {
 public:
  explicit rounder(const sparsegpt& how) : how_(how) {}

  /// Prunes from[rows, columns] and rounds it to storage `S`. Errors: errc::invalid for inputs that
  /// the pattern does not divide, and for X^T X that was not gathered. Also for one that is
  /// singular even with `damp`; the caller says of which matrix. errc::out_of_memory.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    if (auto fit = loop_.factor(name, x, {false, how_.damp}); !fit) return fit;
    if (!detail::has_memory(detail::array_bytes(rows, columns, 4 * sizeof(double))))
      return detail::out_of_memory(name);
    masked<S> how(how_, loop_, from, columns, x);
    loop_.round(rows, columns, from, to, {false, how_.block}, how);
    return {};
  }

 private:
  /// Marked weights take the code of 0, others the nearest.
  template <class S>
  class masked : public detail::plain_rounding<S> {
   public:
    masked(const sparsegpt& by, const detail::error_compensation& loop, const float* from,
           index columns, const input_statistics& x)
        : by_(by), loop_(loop), from_(from), columns_(columns), x_(x) {}

    index unit() const {
      return by_.pattern ? by_.pattern.of : (std::min)(by_.mask_block, columns_);
    }
    bool sees_all_rows() const { return !by_.pattern; }
    void fit(const detail::group_of_rows<S>& some) const {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) = detail::code_grid<S>::fit(some.size, some.row(r));
    }
    /// Chooses the mask of some inputs, which are at their places in the loop.
    void choose(const detail::group_of_rows<S>& some) {
      first_row_ = some.first;
      first_ = some.inputs[0];
      size_ = some.size;
      const index n = some.count * some.size;
      scores_.resize(static_cast<std::size_t>(n));
      marks_.resize(static_cast<std::size_t>(n));
      for (index r = 0; r < some.count; ++r)
        for (index i = 0; i < some.size; ++i)
          scores_[static_cast<std::size_t>(r * some.size + i)] =
              score(some.first + r, first_ + i, some.row(r)[i]);
      if (by_.pattern)
        detail::mark_row(n, by_.pattern, 0, scores_.data(), order_, marks_.data());
      else
        detail::mark_least(n, detail::fraction_of(by_.fraction, n), scores_.data(), order_,
                           marks_.data());
      for (index i = 0; i < n; ++i)
        if (scores_[static_cast<std::size_t>(i)] < 0) marks_[static_cast<std::size_t>(i)] = 1;
    }
    typename S::value round(index r, index j, double number, const detail::code_grid<S>& g,
                            double& left) const {
      const bool pruned =
          marks_[static_cast<std::size_t>((r - first_row_) * size_ + j - first_)] != 0;
      const auto code = g.nearest(pruned ? 0 : number);
      left = number - g.at(code);
      return code;
    }

   private:
    /// The cost of pruning a weight. Weights that were 0 stay so; those whose input was always 0
    /// cost nothing.
    double score(index r, index j, double number) const {
      if (from_[r * columns_ + j] == 0) return -1;
      if (!(x_.moments[j * columns_ + j] > 0)) return 0;
      const double error = number / loop_.pivot(j);
      return error * error;
    }

    const sparsegpt& by_;
    const detail::error_compensation& loop_;
    const float* from_;
    index columns_;
    const input_statistics& x_;
    index first_row_ = 0, first_ = 0, size_ = 1;  ///< of what is marked
    std::vector<double> scores_;
    std::vector<index> order_;
    std::vector<char> marks_;
  };

  sparsegpt how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
