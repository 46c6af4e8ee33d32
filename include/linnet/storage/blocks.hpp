// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sparse storage with whole blocks of numbers: rows that keep the same inputs.

#include <algorithm>
#include <cstdint>

#include <linnet/storage/masked.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// `Percent` of the blocks of `Columns` inputs are kept, rounded up, the same ones in each `Rows`
/// rows that follow each other. The last block of a row, and of a column, may be smaller.
template <index Rows, index Columns, index Percent>
struct inputs_by_blocks {
  static_assert(Rows > 0 && Rows % simd::panel_width == 0,
                "linnet::storage::block_sparse: a block has 32 rows, which products compute "
                "together, or a multiple of them");
  static_assert(Columns > 0, "linnet::storage::block_sparse: a block has at least one column");
  using choice = inputs_by_mask<Percent>;  ///< of the blocks of a row of them
  static constexpr index rows_together = Rows;

  /// Blocks in a row of so many inputs, and rows of blocks in so many rows.
  static constexpr index blocks(index columns) { return (columns + Columns - 1) / Columns; }
  static constexpr index rows_of(index rows) { return (rows + Rows - 1) / Rows; }
  /// Numbers that a row of so many inputs keeps, with zeros behind the end of its last block.
  static constexpr index kept(index columns) { return choice::kept(blocks(columns)) * Columns; }
  static constexpr index bytes(index rows, index columns) {
    return choice::bytes(rows_of(rows), blocks(columns));
  }
  /// Sum of f(x) over block `b` of `rows` rows.
  template <class T, class F>
  static double sum_of(index rows, index columns, const T* x, index b, F&& f) {
    double sum = 0;
    for (index i = 0; i < rows; ++i)
      for (index j = b * Columns; j < (std::min)(columns, (b + 1) * Columns); ++j)
        sum += f(static_cast<double>(x[i * columns + j]));
    return sum;
  }
  /// Calls put(n, b) for block number n that rows keep, block b: those with the largest sums of
  /// squares, of equal ones the first. `mask` becomes that of the blocks. `room` is for 2 numbers
  /// of each block.
  template <class T, class F>
  static void choose(index rows, index columns, const T* x, std::uint8_t* mask, double* room,
                     F&& put) {
    const index count = blocks(columns);
    for (index b = 0; b < count; ++b)
      room[b] = sum_of(rows, columns, x, b, [](double v) { return v * v; });
    typename choice::canonical{mask}.choose(0, 1, count, room, room + count,
                                            [&](index, index n, index b) { put(n, b); });
  }
  /// Nonzero numbers of `rows` rows that find no place; all of them without memory.
  template <class T>
  static index dropped(index columns, const T* x, index rows) {
    const auto nonzero = [&](index b) {
      return static_cast<index>(
          sum_of(rows, columns, x, b, [](double v) { return v == 0 ? 0.0 : 1.0; }));
    };
    index left = 0;
    for (index b = 0; b < blocks(columns); ++b) left += nonzero(b);
    const memory_block room(3 * blocks(columns) * index{sizeof(double)});
    if (auto* const numbers = static_cast<double*>(room.data()))
      choose(rows, columns, x, reinterpret_cast<std::uint8_t*>(numbers + 2 * blocks(columns)),
             numbers, [&](index, index b) { left -= nonzero(b); });
    return left;
  }

  struct canonical {
    typename choice::canonical of_blocks;  ///< a bit for each block, in [rows_of, row_bytes]

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".blocks", of_blocks.mask, rows_of(rows), choice::row_bytes(blocks(columns)));
    }
    /// Keeps blocks of rows [r, r + rows); calls put(i, c, j) for number c of row r + i at input j.
    template <class T, class F>
    void choose(index r, index rows, index columns, const T* x, double* room, F&& put) const {
      std::uint8_t* const mask = of_blocks.mask + r / Rows * choice::row_bytes(blocks(columns));
      inputs_by_blocks::choose(rows, columns, x, mask, room, [&](index n, index b) {
        for (index i = 0; i < rows; ++i)
          for (index j = b * Columns; j < (std::min)(columns, (b + 1) * Columns); ++j)
            put(i, n * Columns + j % Columns, j);
      });
    }
    /// The number of input `j` among those that row `r` keeps; -1 if it is none.
    index find(index r, index j, index columns) const {
      const index n = of_blocks.find(r / Rows, j / Columns, blocks(columns));
      return n < 0 ? n : n * Columns + j % Columns;
    }
  };
  /// Whether `data` are the masks of a matrix with so many rows of blocks.
  static bool fits(index block_rows, index columns, const std::uint8_t* data) {
    return choice::fits(block_rows, blocks(columns), data);
  }
};

/// The name of storage::block_sparse in files and errors: int4_50_of_32x16.
template <index Rows, index Columns, index Percent>
struct block_sparse_name {
  template <class S>
  static constexpr auto of() {
    if constexpr (S::per_word > 1)
      static_assert(Columns % S::block == 0,
                    "linnet::storage::block_sparse: the columns of a block fill whole words of "
                    "codes: a multiple of 4 with 8 bits, of 8 with 4 bits, of 16 with 2 bits");
    return joined_name({S::name, "_", Percent, "_of_", Rows, "x", Columns});
  }
};

/// Storage `S` of `Percent` of the blocks of `Rows` by `Columns` weights, anywhere in their rows,
/// for weights that are pruned by blocks. Rounding keeps the blocks with the largest norms. A bit
/// for each block says which have numbers. Products skip the others, in steps that vectors like.
template <class S, index Rows, index Columns, index Percent = 50>
using block_sparse =
    sparse<S, inputs_by_blocks<Rows, Columns, Percent>, block_sparse_name<Rows, Columns, Percent>>;

}  // namespace storage

LINNET_NAMESPACE_END
