// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pruning of whole blocks of weights, for storage::block_sparse.

#include <algorithm>
#include <cstddef>
#include <vector>

#include <linnet/compress/prune.hpp>

LINNET_NAMESPACE_BEGIN

/// Magnitude pruning of blocks, a method of prune(). In each `rows` rows the blocks of `columns`
/// inputs with the least norms become 0. Blocks at the ends may be smaller; of equals the first go.
struct block_magnitude {
  double fraction = 0.5;  ///< of the blocks of each row of them, rounded down; one is left
  index rows = 32;        ///< of a block; storage::block_sparse has multiples of 32
  index columns = 32;     ///< of a block

  static constexpr const char* name = "block_magnitude";
  static constexpr bool reads_inputs = false;  ///< needs no calibration
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("rows", self.rows, detail::count(1));
    f("columns", self.columns, detail::count(1));
  }

  class rounder;
};

/// Prunes matrices by one block_magnitude.
class block_magnitude::rounder {
 public:
  explicit rounder(const block_magnitude& how) : how_(how) {}

  /// Prunes from[n, k] and rounds what is left to storage `S`. Errors:
  /// errc::out_of_memory.
  template <class S>
  result<void> round(index n, index k, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    const index width = (std::min)(how_.columns, k), count = (k + width - 1) / width;
    std::vector<double> sizes(static_cast<std::size_t>(count));
    std::vector<char> least(sizes.size());
    std::vector<index> order;
    return detail::round_pruned(name, n, k, from, to, [&](index r, char* marks) {
      if (r % how_.rows == 0) {
        std::fill(sizes.begin(), sizes.end(), 0.0);
        for (index i = r; i < n && i - r < how_.rows; ++i)
          for (index j = 0; j < k; ++j) {
            const auto x = static_cast<double>(from[i * k + j]);
            sizes[static_cast<std::size_t>(j / width)] += x * x;
          }
        detail::mark_least(count, detail::fraction_of(how_.fraction, count), sizes.data(), order,
                           least.data());
      }
      for (index j = 0; j < k; ++j) marks[j] = least[static_cast<std::size_t>(j / width)];
    });
  }

 private:
  block_magnitude how_;
};

LINNET_NAMESPACE_END
