// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sparse storage with numbers anywhere in a row: a bit for each input says where.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>

#include <linnet/storage/sparse.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// `Percent` of the inputs of each row are kept, rounded up, anywhere in the row.
template <index Percent>
struct inputs_by_mask {
  static_assert(Percent > 0 && Percent < 100,
                "linnet::storage::bit_mask: from 1 to 99 percent of the inputs of a row are kept");
  static constexpr bool by_rows = true;  ///< see is_masked
  static constexpr index rows_together = 1;
  /// Numbers that a row of so many inputs keeps.
  static constexpr index kept(index columns) { return (columns * Percent + 99) / 100; }
  static constexpr index row_bytes(index columns) { return (columns + 7) / 8; }
  static constexpr index bytes(index rows, index columns) { return rows * row_bytes(columns); }
  /// Nonzero numbers of a row that find no place.
  template <class T>
  static index dropped(index columns, const T* row, index = 1) {
    const index nonzero = columns - std::count(row, row + columns, T(0));
    return (std::max)(index{0}, nonzero - kept(columns));
  }

  struct canonical {
    std::uint8_t* mask = nullptr;  ///< [rows, row_bytes]: bit j, the lowest first, is input j's

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".mask", mask, rows, row_bytes(columns));
    }
    /// Keeps the largest magnitudes of row `r`, of equal ones the first; calls put(0, c, j) for
    /// number c at input j.
    template <class T, class F>
    void choose(index r, index, index columns, const T* row, double* sizes, F&& put) const {
      std::uint8_t* const bits = mask + r * row_bytes(columns);
      std::fill_n(bits, row_bytes(columns), std::uint8_t{0});
      for (index j = 0; j < columns; ++j) sizes[j] = kept_size(row[j]);
      double* const last = sizes + kept(columns) - 1;
      std::nth_element(sizes, last, sizes + columns, std::greater<double>{});
      const double least = *last;
      index equal = std::count(sizes, last + 1, least);  // of those that are as large as the least
      for (index j = 0, c = 0; j < columns; ++j) {
        const double size = kept_size(row[j]);
        if (!(size > least) && !(size >= least && equal-- > 0)) continue;
        bits[j / 8] = static_cast<std::uint8_t>(bits[j / 8] | 1u << j % 8);
        put(index{0}, c++, j);
      }
    }
    /// The number of input `j` among those that row `r` keeps; -1 if it is none.
    index find(index r, index j, index columns) const {
      const std::uint8_t* const bits = mask + r * row_bytes(columns);
      const auto below = static_cast<std::uint8_t>(bits[j / 8] & ((1u << j % 8) - 1));
      if (!(bits[j / 8] >> j % 8 & 1)) return -1;
      index c = std::popcount(below);
      for (index i = 0; i < j / 8; ++i) c += std::popcount(bits[i]);
      return c;
    }
  };
  /// Whether `data` are the masks of a matrix: as many bits in each row as it keeps, all at inputs.
  static bool fits(index rows, index columns, const std::uint8_t* data) {
    for (index r = 0; r < rows; ++r, data += row_bytes(columns)) {
      index count = 0;
      for (index i = 0; i < row_bytes(columns); ++i) count += std::popcount(data[i]);
      if (count != kept(columns)) return false;
      if (columns % 8 && data[columns / 8] >> columns % 8) return false;
    }
    return true;
  }
};

/// The name of storage::bit_mask in files and errors: int4_mask_50.
template <index Percent>
struct bit_mask_name {
  template <class S>
  static constexpr auto of() {
    static_assert(std::is_same_v<typename S::levels, no_levels>,
                  "linnet::storage::bit_mask: scales of what is kept are numbers, not codes");
    if constexpr (S::per_word > 1)
      static_assert(simd::spare_bits(S::code) == 0,
                    "linnet::storage::bit_mask: what is kept has 2, 4, 8, 16 or 32 bits");
    return joined_name({S::name, "_mask_", Percent});
  }
};

/// Storage `S` of `Percent` of the inputs of each row, anywhere, for weights that are pruned
/// without a pattern. Rounding keeps the largest magnitudes of a row; rows with fewer numbers keep
/// zeros. A bit for each input says which have numbers.
template <class S, index Percent>
using bit_mask = sparse<S, inputs_by_mask<Percent>, bit_mask_name<Percent>>;

}  // namespace storage

/// Whether storage `S` keeps numbers anywhere in a row, so that products go through them by rows.
template <class S>
inline constexpr bool is_masked = requires {
  S::pattern::by_rows;
};

LINNET_NAMESPACE_END
