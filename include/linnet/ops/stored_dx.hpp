// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The derivative of a product by its inputs, from the panels of a matrix in any storage.

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <linnet/ops/masked.hpp>
#include <linnet/ops/team_product.hpp>
#include <linnet/storage/frozen.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// A matrix as a frozen one, in the same memory.
template <class T, class S>
packed_matrix<T, storage::frozen<S>> frozen_matrix(const packed_matrix<T, S>& w) {
  packed_matrix<T, storage::frozen<S>> same;
  same.panels = w.panels;
  same.scales = w.scales;
  same.zeros = w.zeros;
  same.levels = w.levels;
  same.correction = w.correction;
  if constexpr (is_sparse<S>) same.kept = w.kept;
  return same;
}

namespace detail {

/// Numbers of a product: y[m, n] = x[m, k] W^T.
struct product_extent {
  index m, n, k;
};

/// Inputs [k0, k1), at most 32 from a multiple of 32, of panel `p` of W as numbers: rows of 32.
template <class Kernels, class T, class S>
void panel_tile(Kernels kernels, index p, const product_extent& of, index k0, index k1,
                const packed_matrix<T, S>& w, T* numbers) {
  constexpr bool decodes = [] {
    if constexpr (S::per_word > 1 && !is_sparse<S> && !is_corrected<S>)
      return std::is_same_v<T, float> && panel_width % S::block == 0;
    return false;
  }();
  if constexpr (S::per_word == 1 && !is_sparse<S>) {
    std::copy_n(w.panels + (p * of.k + k0) * panel_width, (k1 - k0) * panel_width, numbers);
  } else if constexpr (decodes) {
    decode_rows(kernels, p, of.k, k0, k1, w, numbers);
  } else {
    for (index r = 0; r < (std::min)(panel_width, of.n - p * panel_width); ++r)
      for (index j = k0; j < k1; ++j)
        numbers[(j - k0) * panel_width + r] = w.at(p * panel_width + r, j, of.k);
  }
}

/// dx[m, k] += alpha dy[m, n] W: decodes W tile by tile, for each block of rows. Split over k, sums
/// in the order of n on any number of threads.
template <class T, class S>
void stored_dx(const execution& on, const product_extent& of, const T* dy,
               const packed_matrix<T, S>& w, T* dx, T alpha) {
  constexpr index wide = panel_width;
  const index m = of.m, n = of.n, k = of.k;
  each_block(on, m, k, [&](index i0, index i1, index p0, index p1) {
    alignas(64) T tile[std::size_t{wide * wide}];
    alignas(64) T right[std::size_t{gathered_steps * wide}];
    for (index p = p0; p < p1; ++p) {
      const index j0 = p * wide, columns = (std::min)(wide, k - j0);
      for (index n0 = 0; n0 < n; n0 += gathered_steps) {
        const index steps = (std::min)(gathered_steps, n - n0);
        for (index s0 = 0; s0 < steps; s0 += wide) {
          on.with_kernels([&](auto kernels) {
            panel_tile(kernels, (n0 + s0) / wide, of, j0, j0 + columns, w, tile);
          });
          for (index s = 0; s < (std::min)(wide, steps - s0); ++s) {
            T* const row = right + (s0 + s) * wide;
            for (index j = 0; j < columns; ++j) row[j] = tile[j * wide + s];
            std::fill(row + columns, row + wide, T(0));
          }
        }
        block_product<T, T, simd::epilogue<T>>{
            i1 - i0,          columns,          steps, {dy + i0 * n + n0, n, 1},
            {right, wide, 0}, dx + i0 * k + j0, k,     {nullptr, alpha, true},
            wide - columns}
            .run(on.level);
      }
    }
  });
}

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
