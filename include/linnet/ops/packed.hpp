// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A weight matrix in the form that products read: panels of 32 output features.

#include <algorithm>

#include <linnet/core/parallel.hpp>
#include <linnet/ops/correction.hpp>
#include <linnet/ops/execution.hpp>
#include <linnet/ops/levels.hpp>
#include <linnet/simd/kernels.hpp>
#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

/// Operations on plain arrays, value and derivative side by side. Called by every thread of a team
/// with the same arguments; each computes its share of the outputs and all meet at the end.
namespace ops {

using simd::panel_width;

namespace detail {

/// A scale as a float, and the code of one that half precision holds.
inline float float_of(float x) { return x; }
inline float float_of(simd::f16_code x) {
  return static_cast<float>(storage::f16::decode(static_cast<std::uint16_t>(x)));
}
/// Stores scales of the columns of a panel, which half precision holds where they become halves.
inline void store_scales(const float (&x)[panel_width], float* to) {
  std::copy_n(x, panel_width, to);
}
inline void store_scales(const float (&x)[panel_width], simd::f16_code* to) {
  bool common = true;  // normal numbers and zeros, which need no rounding
  for (index i = 0; i < panel_width; ++i) {
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, &x[i], sizeof bits);
    const std::uint32_t size = bits & 0x7fffffff, base = size == 0 ? 0 : 0x38000000;
    common &= size == 0 || (size - 0x38800000 < 0x0f000000 && (size & 0x1fff) == 0);
    to[i] = static_cast<simd::f16_code>((bits >> 16 & 0x8000) | (size - base) >> 13);
  }
  for (index i = 0; i < panel_width && !common; ++i)
    to[i] = static_cast<simd::f16_code>(storage::f16::encode(static_cast<double>(x[i])));
}

/// Whether words of panels are bytes of canonical rows, with the origin added to each code.
template <class S>
constexpr bool has_words_of_rows() {
  if constexpr (S::per_word == 1)
    return false;
  else
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && simd::spare_bits(S::code) == 0 &&
           (S::shared_bits == 0 || S::shared_bits == simd::bits_of(S::code)) &&
           (S::origin == 0 || S::origin == 1 << (simd::bits_of(S::code) - 1));
}
/// Fills the whole words of a panel from `count` canonical rows of so many bytes; returns how many
/// words of a row there are.
template <class S>
index copy_words(index k, index count, const void* rows, index bytes, simd::word* out) {
  simd::word origins = 0;
  for (int j = 0; j < S::per_word; ++j)
    origins |= static_cast<simd::word>(S::origin) << j * simd::bits_of(S::code);
  const index whole = k / S::per_word;
  for (index d = 0; d < whole; ++d, out += panel_width) {
    const auto* from = static_cast<const unsigned char*>(rows) + d * index{sizeof(simd::word)};
    for (index i = 0; i < count; ++i, from += bytes) {
      simd::word codes;
      __builtin_memcpy(&codes, from, sizeof codes);
      out[i] = codes ^ origins;
    }
    std::fill_n(out + count, panel_width - count, simd::word{0});
  }
  return whole;
}

}  // namespace detail

/// A weight matrix W[N, K] packed for products: panels of 32 output features, each K rows of
/// numbers or of words of codes (see simd::word). The last panel is padded. The layout is the same
/// at every instruction-set level and can be inverted exactly.
template <class T, class S>
struct packed_matrix {
  using storage = S;
  using word = typename S::word;
  /// Scales of ggml's blocks are halves in files, too.
  using scale = std::conditional_t<S::ggml, simd::f16_code, float>;
  const word* panels = nullptr;
  const scale* scales = nullptr;  ///< [panels, row_scales, 32] when the storage is scaled
  const scale* zeros = nullptr;   ///< likewise when it is centred: zero points or minima
  const word* rows = nullptr;     ///< what backward reads, only while training: see matmul_dx()
  /// Scales of what products read in 8-bit training.
  [[no_unique_address]] linnet::detail::scales_place<S> delayed{};
  /// Codes of the scales, in place of `scales` and `zeros`.
  [[no_unique_address]] packed_levels<typename S::levels> levels{};
  /// Numbers that are added to those of the codes, see storage::corrected.
  [[no_unique_address]] packed_correction<T, typename S::correction> correction{};

  /// Rows of words in a panel of `k` inputs.
  static constexpr index depth(index k) { return S::words(k); }
  /// Words that the panels of an [n, k] matrix occupy.
  static constexpr index size(index n, index k) { return round_up(n, panel_width) * depth(k); }
  /// Scales of an [n, k] matrix, padded like the panels.
  static constexpr index scales_size(index n, index k) {
    return round_up(n, panel_width) * row_scales<S>(k);
  }
  /// Where the scale of W(n, j) is.
  static constexpr index scale_at(index n, index j, index k) {
    return simd::place_in_panel(n, group_of<S>(j), row_scales<S>(k));
  }
  /// The canonical code of W(n, j), in the low bits.
  typename S::value code(index n, index j, index k) const {
    const word* const column = panels + n / panel_width * depth(k) * panel_width + n % panel_width;
    if constexpr (S::per_word == 1) {
      return column[j * panel_width];
    } else {
      const word x = simd::code_at(S::code, column + depth(j / S::block * S::block) * panel_width,
                                   panel_width, static_cast<int>(j % S::block));
      return static_cast<typename S::value>((x - S::origin) & ((1u << simd::bits_of(S::code)) - 1));
    }
  }
  /// W(n, j).
  T at(index n, index j, index k) const {
    auto x = static_cast<T>(S::decode(code(n, j, k)));
    if constexpr (has_levels<S>) {
      const index g = group_of<S>(j), groups = row_scales<S>(k);
      if constexpr (S::centred) x -= static_cast<T>(levels.zero(n, g, groups));
      x *= static_cast<T>(levels.scale(n, g, groups));
    } else if constexpr (S::scaled) {
      const index g = scale_at(n, j, k);
      if constexpr (S::centred && !S::ggml) x -= static_cast<T>(zeros[g]);
      x *= static_cast<T>(detail::float_of(scales[g]));
      if constexpr (has_minima<S>) x += static_cast<T>(detail::float_of(zeros[g]));
    }
    if constexpr (is_corrected<S>) x += correction.at(n, j, k);
    return x;
  }
};

/// Fills the panels and scales of `to` from W[n, k], this thread's share of the team.
template <class T, class S>
__attribute__((noinline)) void pack(const execution& on, index n, index k,
                                    const matrix_ref<S>& from, const packed_matrix<T, S>& to) {
  using matrix = packed_matrix<T, S>;
  using word = typename S::word;
  const index depth = matrix::depth(k), groups = row_scales<S>(k);
  constexpr index step = matrix::depth(1);  // words of a block
  on.threads.each(round_up(n, panel_width) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    word* const out = const_cast<word*>(to.panels) + first * depth;
    index whole = 0;
    if constexpr (detail::has_words_of_rows<S>()) {
      const index bytes = row_values<S>(k) * static_cast<index>(sizeof(typename S::value));
      const auto* const rows = from.data + first * row_values<S>(k);
      whole = detail::copy_words<S>(k, count, rows, bytes, out);
    }
    for (index i = 0; i < panel_width; ++i)
      for (index d = whole; d < depth; d += step) {
        word block[std::size_t{step}] = {};
        if constexpr (S::per_word == 1) {
          if (i < count) block[0] = from.data[(first + i) * k + d];
        } else {
          constexpr word mask = (1u << simd::bits_of(S::code)) - 1;
          for (int j = 0; j < S::block && i < count; ++j) {
            const index column = d / step * S::block + j;
            const word code = column < k ? static_cast<word>(from.code(first + i, column, k)) : 0u;
            simd::add_code(S::code, block, j, (code + S::origin) & mask);
          }
        }
        for (index b = 0; b < step; ++b) out[(d + b) * panel_width + i] = block[b];
      }
    for (index g = 0; S::scaled && !has_levels<S> && g < groups; ++g) {
      const auto store = [&](const float* x, const typename matrix::scale* y) {
        float some[panel_width] = {};
        for (index i = 0; i < count; ++i) some[i] = x[(first + i) * groups + g];
        detail::store_scales(
            some, const_cast<typename matrix::scale*>(y) + (panel * groups + g) * panel_width);
      };
      store(from.scales, to.scales);
      if constexpr (S::centred) store(from.zeros, to.zeros);
    }
  });
  if constexpr (has_levels<S>) to.levels.pack(on, n, groups, from.levels);
  if constexpr (is_corrected<S>) to.correction.pack(on, n, k, from.correction);
}

/// Fills the panels of `to` from f32 master weights, for training in bf16. Also fills `rows`: pairs
/// of output features, [ceil(n / 2), k], for the derivative by the inputs.
template <class S>
void pack(const execution& on, index n, index k, const matrix_ref<storage::f32>& from,
          const packed_matrix<float, S>&
              to) requires(std::is_same_v<typename S::compute, compute::bf16>) {
  using matrix = packed_matrix<float, S>;
  on.threads.each((n + panel_width - 1) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    auto* const out = const_cast<simd::word*>(to.panels) + first * matrix::depth(k);
    constexpr index stretch = 128;
    simd::word codes[stretch / 2];
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index i = 0; i < count; ++i) {
        const float* const row = from.data + (first + i) * k;
        for (index j = 0; j < k; j += stretch) {
          const index some = (std::min)(stretch, k - j);
          K::template to_16_bits<float>(some, row + j, reinterpret_cast<simd::bf16_code*>(codes));
          for (index d = 0; d < matrix::depth(some); ++d)
            out[(j / 2 + d) * panel_width + i] = codes[d];
        }
        if (i % 2 == 0)
          K::template to_bf16_pairs<float>(k, row, i + 1 < count ? row + k : nullptr,
                                           const_cast<simd::word*>(to.rows) + (first + i) / 2 * k);
      }
    });
  });
}

/// The canonical matrix that `from` was packed from.
template <class T, class S>
void unpack(index n, index k, const packed_matrix<T, S>& from, const matrix_ref<S>& to) {
  const index groups = row_scales<S>(k);
  for (index i = 0; i < n; ++i) {
    for (index j = 0; j < k; ++j) to.set_code(i, j, k, from.code(i, j, k));
    for (index g = 0; g < groups && !has_levels<S>; ++g) {
      const index at = from.scale_at(i, g * S::group, k);
      to.scales[i * groups + g] = detail::float_of(from.scales[at]);
      if constexpr (S::centred) to.zeros[i * groups + g] = detail::float_of(from.zeros[at]);
    }
  }
  if constexpr (has_levels<S>) {
    from.levels.unpack(n, groups, to.levels);
    to.open(n, k);
  }
  if constexpr (is_corrected<S>) from.correction.unpack(n, k, to.correction);
}

}  // namespace ops

LINNET_NAMESPACE_END
