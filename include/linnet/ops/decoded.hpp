// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Panels of codes as numbers: a row of inputs times a panel, and parts of a panel decoded.

#include <algorithm>

#include <linnet/ops/packed.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops::detail {

/// Inputs whose products with decoded weights are summed at a time, at most.
inline constexpr index decoded_rows = 128;

/// Calls f(first, last, words, scales, zeros) for stretches of the inputs [k0, k1) that share their
/// scales in panel `p`.
template <class S, class F>
void each_group(index p, index k, index k0, index k1, const packed_matrix<float, S>& w, F&& f) {
  using matrix = packed_matrix<float, S>;
  [[maybe_unused]] alignas(64) float numbers[2][panel_width];  // of scales that are stored as codes
  for (index at = k0; at < k1;) {
    const index end = S::group ? (std::min)(k1, (group_of<S>(at) + 1) * S::group) : k1;
    const auto* const words = w.panels + (p * matrix::depth(k) + matrix::depth(at)) * panel_width;
    const typename matrix::scale *scales = nullptr, *zeros = nullptr;
    if constexpr (has_levels<S>) {
      const index groups = row_scales<S>(k);
      for (index j = 0; j < panel_width; ++j) {
        numbers[0][j] = w.levels.scale(p * panel_width + j, group_of<S>(at), groups);
        numbers[1][j] = w.levels.zero(p * panel_width + j, group_of<S>(at), groups);
      }
      scales = numbers[0], zeros = numbers[1];
    } else if constexpr (S::scaled) {
      const index scale = matrix::scale_at(p * panel_width, at, k);
      scales = w.scales + scale;
      if constexpr (S::centred) zeros = w.zeros + scale;
    }
    f(at, end, words, scales, S::centred ? zeros : nullptr);
    at = end;
  }
}

/// How the codes of storage `S` become numbers.
template <class S>
inline constexpr simd::code_offset offset_of = !S::centred ? simd::code_offset::origin
                                               : S::ggml   ? simd::code_offset::minimum
                                                           : simd::code_offset::zero;
/// How many rows of inputs are multiplied with the codes themselves.
struct summed_rows {
  index together = 1;  ///< at a time, at most
  index most = 1;      ///< more are multiplied with decoded weights; 0 for any number
};
/// Rows whose inputs are rounded and read back stand alone: another order of sums would round the
/// inputs of the next product to other codes.
template <class Kernels, class S>
inline constexpr summed_rows rows_summed{
    .most = std::is_same_v<typename S::compute, compute::fp8> ? 0 : 1};

/// Adds to sums[rows][32] the products of up to `rows` rows of `k` inputs with panel `p`; how many
/// rows these are.
template <class Kernels, class S>
index add_rows(Kernels, index, index p, index k, const float* x, const packed_matrix<float, S>& w,
               float* sums) {
  using scale = typename packed_matrix<float, S>::scale;
  constexpr auto origin = static_cast<float>(S::origin);
  each_group(p, k, 0, k, w,
             [&](index first, index last, const simd::word* words, const scale* scales,
                 const scale* zeros) {
               Kernels::template row_by_panel<S::code, has_minima<S>, scale>(
                   last - first, x + first, words, scales, zeros, origin, sums);
             });
  return 1;
}
/// Decodes inputs [k0, k1) of panel `p` to rows of 32 numbers. Those that share words with the last
/// ones follow. k0 is the first of a block of codes.
template <class Kernels, class S>
void decode_rows(Kernels, index p, index k, index k0, index k1, const packed_matrix<float, S>& w,
                 float* numbers) {
  using scale = typename packed_matrix<float, S>::scale;
  constexpr auto origin = static_cast<float>(S::origin);
  each_group(p, k, k0, k1, w,
             [&](index first, index last, const simd::word* words, const scale* scales,
                 const scale* zeros) {
               Kernels::template decode_panel<S::code, has_minima<S>, scale>(
                   (last - first + S::block - 1) / S::block, words, scales, zeros, origin,
                   numbers + (first - k0) * panel_width);
             });
}

}  // namespace ops::detail

LINNET_NAMESPACE_END
