// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrices with blocks of numbers, in the form that products read: a packed matrix of the blocks
/// that are kept, and which these are.

#include <algorithm>
#include <bit>
#include <cstddef>

#include <linnet/ops/masked.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Blocks of a matrix [N, K]: a bit for each block of each row of blocks.
template <class T, index Rows, index Columns, index Percent>
struct packed_pattern<T, storage::inputs_by_blocks<Rows, Columns, Percent>> {
  using kind = storage::inputs_by_blocks<Rows, Columns, Percent>;
  packed_pattern<T, typename kind::choice> of_blocks;  ///< [rows of blocks, blocks]

  constexpr void place(arena& memory, index n, index k) {
    of_blocks.place(memory, kind::rows_of(n), kind::blocks(k));
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    of_blocks.pack(on, kind::rows_of(n), kind::blocks(k), from.of_blocks);
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    of_blocks.unpack(kind::rows_of(n), kind::blocks(k), to.of_blocks);
  }
  /// Whether each row keeps as many blocks as there are numbers.
  bool fits(index n, index k) const { return of_blocks.fits(kind::rows_of(n), kind::blocks(k)); }
  /// The number of input `j` among those that row `n` keeps; -1 if it is none.
  index find(index n, index j, index k) const {
    const index c = of_blocks.find(n / Rows, j / Columns, kind::blocks(k));
    return c < 0 ? c : c * Columns + j % Columns;
  }

  /// How many rows of inputs add_rows() takes.
  template <class Kernels>
  static constexpr detail::summed_rows summed{32, 0};
  /// Calls f(c, j, count) for stretches of inputs that are kept side by side in panel `p`: from
  /// number c and input j on.
  template <class F>
  void each_stretch(index p, index k, F&& f) const {
    const index words = of_blocks.words(kind::blocks(k));
    const simd::word* const masks = of_blocks.masks + p * panel_width / Rows * words;
    index c = 0, first = 0, count = 0;  // blocks of a stretch
    for (index i = 0; i < words; ++i)
      for (simd::word bits = masks[i]; bits != 0; bits &= bits - 1) {
        const index b = 32 * i + std::countr_zero(bits);
        if (count > 0 && (b != first + count || (count + 1) * Columns > most)) {
          f(c, first * Columns, count * Columns);
          c += count * Columns;
          count = 0;
        }
        if (count == 0) first = b;
        ++count;
      }
    if (count > 0) f(c, first * Columns, (std::min)(count * Columns, k - first * Columns));
  }
  /// Adds the products of up to `rows` rows with the blocks that are kept; how many rows these are.
  template <class Kernels, class S>
  index add_rows(Kernels kernels, index rows, index p, index k, const float* x,
                 const packed_matrix<float, S>& w, float* sums) const {
    const index width = kind::kept(k), together = (std::min)(rows, index{32});
    const auto multiply = [&](index j, index count, const float* numbers) {
      Kernels::template multiply<float>(together, panel_width, count, {x + j, k, 1},
                                        {numbers, panel_width, 0}, sums, panel_width,
                                        {nullptr, 1, true}, 0);
    };
    each_stretch(p, k, [&](index c, index j, index count) {
      if constexpr (S::per_word == 1) {
        multiply(j, count, w.panels + (p * width + c) * panel_width);
      } else if (together == 1) {
        using scale = typename packed_matrix<float, S>::scale;
        detail::each_group(p, width, c, c + count, w,
                           [&](index first, index last, const simd::word* words,
                               const scale* scales, const scale* zeros) {
                             Kernels::template row_by_panel<S::code, has_minima<S>, scale>(
                                 last - first, x + j + first - c, words, scales, zeros,
                                 static_cast<float>(S::origin), sums);
                           });
      } else {
        alignas(64) float numbers[static_cast<std::size_t>(most * panel_width)];
        detail::decode_rows(kernels, p, width, c, c + count, w, numbers);
        multiply(j, count, numbers);
      }
    });
    return together;
  }

 private:
  /// Inputs of a stretch, at most.
  static constexpr index most = (std::max)(Columns, detail::decoded_rows);
};

}  // namespace ops

LINNET_NAMESPACE_END
