// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Inputs of products, rounded to the compute type of the weights' storage.

#include <algorithm>
#include <cassert>
#include <limits>

#include <linnet/ops/decoded.hpp>
#include <linnet/ops/team_product.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Whether products of storage `S` round their inputs first.
template <class S>
inline constexpr bool converts = !std::is_same_v<typename S::compute, compute::f32>;

/// Whether these are read back as numbers: in training, and in 8-bit floats.
template <class S>
inline constexpr bool fakes_inputs = converts<S> &&
                                     (linnet::detail::is_fake<S> ||
                                      linnet::detail::is_mixed_precision<S> ||
                                      std::is_same_v<typename S::compute, compute::fp8>);
/// Whether products of storage `S` multiply numbers, rounded or not.
template <class S>
inline constexpr bool multiplies_numbers = !converts<S> || fakes_inputs<S>;

/// Rows up to which every thread converts for itself instead of waiting for the others.
inline constexpr index own_rows = 4;

/// Whether products of storage `S` round their inputs to int8.
template <class S>
inline constexpr bool in_int8 = compute::rounds_to_integers<typename S::compute>;
/// Whether such products sum by groups: of codes that kernels unpack a row is one group, too.
template <class S>
inline constexpr bool in_int8_groups = in_int8<S> && (S::group > 0 || S::per_word > 4);
/// How rows of such inputs are rounded.
template <class S>
inline constexpr simd::int8_rounding int8_rounding_of{
    static_cast<float>(S::compute::largest),
    __builtin_bit_cast(std::int32_t, static_cast<float>(S::compute::threshold))};
/// How row `i` of `m` such inputs is rounded.
template <class S>
simd::int8_rounding int8_rounding_at(const execution& on, index m, index i) {
  simd::int8_rounding by = int8_rounding_of<S>;
  if (const float largest = on.bits ? on.bits->of(m, i) : 0; largest > 0) by.largest = largest;
  return by;
}
/// Whether products of storage `S` read some inputs as they are, beside those in int8.
template <class S>
constexpr bool keeps_outliers() {
  if constexpr (in_int8<S> && !fakes_inputs<S>)
    return int8_rounding_of<S>.any();
  else
    return false;
}
/// Words of a row of `k` rounded inputs, to the end of its last word of codes.
template <class S>
constexpr index converted_words(index k) {
  const index depth = packed_matrix<float, S>::depth(k);
  return in_int8<S> ? depth * (S::per_word / 4) : depth;
}
/// Scales of a row of `k` rounded inputs: one for each scale of a row of weights.
template <class S>
constexpr index converted_scales(index k) {
  return in_int8<S> ? row_scales<S>(k) : 0;
}
/// Words for the outliers of a row of `k` inputs: the inputs, their number of blocks, the blocks.
template <class S>
constexpr index outlier_words(index k) {
  if constexpr (keeps_outliers<S>())
    return k + 1 + (k + S::block - 1) / S::block;
  else
    return 0;
}
/// Words of scratch memory for a row of `k` rounded inputs.
template <class S>
constexpr index row_words(index k) {
  return converted_words<S>(k) + 2 * converted_scales<S>(k) + outlier_words<S>(k);
}

/// Scratch bytes for inputs that are read back: the numbers, then the codes of each row.
template <class S>
constexpr index faked_bytes(index rows, index in, index threads) {
  const index all = (std::max)(rows, threads * (std::min)(rows, own_rows));
  return all * (4 * in + round_up(in, 4));
}

/// Scratch bytes for the rounded inputs of products, see converted_bytes().
template <class S>
constexpr index rounded_bytes(index rows, index in, index out, index threads, bool training) {
  if (!converts<S>) return 0;
  if (linnet::detail::is_mixed_precision<S>) return 4 * rows * (in + (training ? out : 0));
  if (fakes_inputs<S>) return faked_bytes<S>(rows, in, threads);
  using matrix = packed_matrix<float, S>;
  const index row = 4 * row_words<S>(in);
  const index forward = (std::max)(rows * row, threads * (std::min)(rows, own_rows) * row);
  const index backward = 4 * (matrix::depth(rows) * (in + out) + rows * matrix::depth(out));
  return training ? (std::max)(forward, backward) : forward;
}
/// Whether products of storage `S` need scratch memory.
template <class S>
inline constexpr bool uses_scratch = converts<S> || reduced_inputs<S>(1) > 0;
/// Scratch bytes for products of `rows` inputs of width `in`, and for their derivatives, on up to
/// `threads` threads.
template <class S>
constexpr index converted_bytes(index rows, index in, index out, index threads, bool training) {
  const index rounded = rounded_bytes<S>(rows, in, out, threads, training);
  if (reduced_inputs<S>(in) == 0) return rounded;
  return round_up(rounded, alignment) +
         rows * reduced_inputs<S>(in) * static_cast<index>(sizeof(float));
}

namespace detail {

/// Numbers [rows, columns].
struct matrix_view {
  index rows, columns;
  const float* data;
};

/// The inputs of a product as words of low precision.
struct converted_rows {
  simd::rows_operand<simd::word> codes{};
  float* scales = nullptr;         ///< int8: one per row, or per row and group
  std::int32_t* sums = nullptr;    ///< int8: of the codes that share a scale
  float* outliers = nullptr;       ///< [rows, k]: zeros in place of the inputs that are codes
  std::int32_t* blocks = nullptr;  ///< of each row: how many blocks hold outliers, and which
};
/// The sum of a group's inputs in the form that its products read, see simd::grouped_rows.
template <class S>
std::int32_t group_extra(std::int32_t sum) {
  if constexpr (offset_of<S> == simd::code_offset::origin) return -S::origin * sum;
  const auto x = static_cast<float>(sum);
  std::int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
/// Rounds x[m, k] to the compute type of `S`. Codes in int8 have one scale for each row, or for
/// each group of a row where weights have scales of groups.
template <class S>
converted_rows convert(const execution& on, index m, index k, const float* x) {
  assert(on.converted && "linnet::ops: this storage type needs execution::converted");
  const index width = converted_words<S>(k), scales = converted_scales<S>(k);
  auto* words = static_cast<simd::word*>(on.converted);
  if (m <= own_rows) words += on.threads.rank() * m * row_words<S>(k);
  converted_rows to{{words, width, 1}};
  to.scales = reinterpret_cast<float*>(words + m * width);
  to.sums = reinterpret_cast<std::int32_t*>(to.scales + m * scales);
  if constexpr (keeps_outliers<S>()) {
    to.outliers = reinterpret_cast<float*>(to.sums + m * scales);
    to.blocks = reinterpret_cast<std::int32_t*>(to.outliers + m * k);
  }
  const auto row = [&](index i) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (in_int8<S>) {
        auto* const codes = reinterpret_cast<std::int8_t*>(words + i * width);
        float* const scale = to.scales + i * scales;
        std::int32_t* const sum = to.sums + i * scales;
        constexpr bool outliers = int8_rounding_of<S>.any();
        const simd::int8_rounding by = int8_rounding_at<S>(on, m, i);
        if constexpr (keeps_outliers<S>()) {
          std::int32_t* const blocks = to.blocks + i * (outlier_words<S>(k) - k);
          *blocks = K::template keep_outliers<float>(k, x + i * k, by, S::block,
                                                     to.outliers + i * k, blocks + 1);
        }
        if constexpr (in_int8_groups<S>) {
          K::template to_int8_groups<S::code, float, outliers>(k, S::group ? S::group : k,
                                                               x + i * k, codes, scale, sum, by);
          for (index g = 0; g < scales; ++g) sum[g] = group_extra<S>(sum[g]);
        } else {
          *scale = K::template to_int8<float, outliers>(k, x + i * k, codes, *sum, by);
        }
      } else {
        K::template to_16_bits<float>(k, x + i * k,
                                      reinterpret_cast<simd::bf16_code*>(words + i * width));
      }
    });
  };
  if (m <= own_rows)
    for (index i = 0; i < m; ++i) row(i);
  else
    on.threads.each(m, row);
  return to;
}

/// y[n] = x[n] rounded to storage `Q` with one scale; all NaN where one is not finite.
template <class Q>
void round_row(index n, const float* x, float* y) {
  linnet::detail::code_grid<Q> grid;
  if (std::all_of(x, x + n, [](float v) { return is_finite(v); }))
    grid = grid.fit(n, x);
  else
    grid.scale = std::numeric_limits<float>::quiet_NaN();
  for (index j = 0; j < n; ++j)
    y[j] = static_cast<float>(grid.at(grid.nearest(static_cast<double>(x[j]))));
}
/// to[m, k] = x[m, k] rounded to `Q` in units of 1 / `scale`; the largest magnitude goes into
/// `largest`, as bits, if it is given. Maxima are the same in any order.
template <class Q, bool Saturates>
void round_rows(const execution& on, const matrix_view& x, float scale, float* to,
                std::uint32_t* largest) {
  on.threads.each(x.rows, [&](index i) {
    const float* const from = x.data + i * x.columns;
    std::uint32_t bits = 0;  // of magnitudes, which they order; those of a NaN are above all
    for (index j = 0; j < x.columns; ++j) {
      to[i * x.columns + j] = linnet::detail::rounded_to<Q, Saturates>(from[j], scale);
      std::uint32_t one = 0;
      __builtin_memcpy(&one, from + j, sizeof one);
      bits = (std::max)(bits, one & 0x7fff'ffffu);
    }
    if (!largest) return;
    std::uint32_t now = __atomic_load_n(largest, __ATOMIC_RELAXED);
    while (now < bits && !__atomic_compare_exchange_n(largest, &now, bits, true, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED)) {
    }
  });
}
/// The inputs or the gradients of a product with `w`, rounded for mixed precision, in scratch
/// memory `to`.
template <bool Gradients, class S>
const float* round_operand(const execution& on, const matrix_view& x,
                           const packed_matrix<float, S>& w, float* to) {
  using Q = std::conditional_t<Gradients, typename S::backward, typename S::forward>;
  if constexpr (S::delayed) {
    auto& of = Gradients ? w.delayed.at->gradient : w.delayed.at->input;
    round_rows<Q, true>(on, x, of.factor(), to, on.notes_ranges ? &of.largest : nullptr);
  } else {
    round_rows<Q, false>(on, x, Gradients ? on.loss_scale : 1.0f, to, nullptr);
  }
  return to;
}

/// x[m, k] rounded as the compute type of `S` says, and read back; x itself without memory for it.
template <class S>
const float* fake_inputs(const execution& on, index m, index k, const float* x) {
  if (!on.converted) return x;
  const index width = round_up(k, 4);
  auto* numbers = static_cast<float*>(on.converted);
  if (m <= own_rows) numbers += on.threads.rank() * m * (k + width / 4);
  [[maybe_unused]] auto* const codes = reinterpret_cast<std::int8_t*>(numbers + m * k);
  const auto row = [&](index i) {
    if constexpr (in_int8<S>) {
      const index group = S::grid::group ? S::grid::group : k;
      simd::dispatch(on.level, [&](auto kernels) {
        for (index j = 0; j < k; j += group) {
          const index n = (std::min)(group, k - j);
          std::int8_t* const q = codes + i * width;
          std::int32_t sum = 0;
          const simd::int8_rounding by = int8_rounding_at<S>(on, m, i);
          const float* const from = x + i * k + j;
          const float scale = decltype(kernels)::template to_int8<float, int8_rounding_of<S>.any()>(
              n, from, q, sum, by);
          for (index l = 0; l < n; ++l)
            numbers[i * k + j + l] = by.keeps(from[l]) ? from[l] : scale * static_cast<float>(q[l]);
        }
      });
    } else {
      round_row<storage::fp8_e4m3>(k, x + i * k, numbers + i * k);
    }
  };
  if (m <= own_rows)
    for (index i = 0; i < m; ++i) row(i);
  else
    on.threads.each(m, row);
  return numbers;
}

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
