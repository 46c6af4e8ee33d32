// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Cached keys in codes with a scale for each channel, from before their rotation (Hooper et al.
/// 2024, section 3). Values have a scale for each token.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <linnet/core/finite.hpp>
#include <linnet/ops/kv_rows.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Codes of `Bits` bits, x = scale * (code - 2^(Bits - 1)): one in a byte, or two, the first in the
/// low half. Code 0 stands for a number that is not finite.
template <int Bits>
struct channel_code {
  std::uint8_t byte = 0;

  static_assert(Bits == 4 || Bits == 8);
  static constexpr int most = (1 << (Bits - 1)) - 1;  ///< the largest number without its scale
  static constexpr index in_byte = 8 / Bits;

  /// Bytes of n codes.
  static constexpr index bytes(index n) { return (n + in_byte - 1) / in_byte; }
  /// Number `i` of those that begin at `from`, without its scale; NaN for one that is not finite.
  static float number(const channel_code* from, index i) {
    const auto both = static_cast<unsigned>(from[i / in_byte].byte);
    const unsigned code = in_byte == 1 ? both : i % 2 ? both >> 4 : both & 15u;
    if (code == 0) return std::numeric_limits<float>::quiet_NaN();
    return static_cast<float>(static_cast<int>(code) - (most + 1));
  }
  /// Rounds x[n] by scale_of(i), to the nearest code; numbers beyond the last become that.
  template <class Scale>
  static void encode(index n, const float* x, Scale&& scale_of, channel_code* to) {
    for (index i = 0; i < n; i += in_byte) {
      unsigned both = 0;
      for (index k = 0; k < in_byte && i + k < n; ++k) {
        if (!is_finite(x[i + k])) continue;
        constexpr auto last = static_cast<float>(most);
        const float v = std::nearbyint(std::clamp(x[i + k] / scale_of(i + k), -last, last));
        both |= static_cast<unsigned>(static_cast<int>(v) + most + 1) << (Bits * k);
      }
      to[i / in_byte].byte = static_cast<std::uint8_t>(both);
    }
  }
};

/// Keys or values in such codes, [batch, tokens, heads, bytes of a head]. Keys are stored as they
/// were before their positions and rotated as they are read.
template <int Bits>
struct kv_rows<channel_code<Bits>> {
  using code = channel_code<Bits>;
  const code* data = nullptr;
  index tokens = 0;               ///< of each sequence
  index heads = 0, width = 0;     ///< heads of `width` numbers
  const float* scales = nullptr;  ///< of values, [batch, tokens, heads], or null
  index fixed = 0, ring = 0;
  page_tables pages{};
  const float* channels = nullptr;  ///< of keys, [heads, width]
  const float* angles = nullptr;    ///< of keys, [positions, width], or null for none
  rope_pairing pairing = rope_pairing::none;

  constexpr bool paged() const { return pages.tables != nullptr; }
  /// Where tokens are.
  constexpr simd::token_rows<code> of(index b, index) const {
    return {data, 0, fixed, ring, paged() ? pages.tables + b * pages.size : nullptr};
  }
  constexpr bool plain() const { return false; }
  /// Number of row `place` of a head, among those of all heads.
  constexpr index row(index b, index head, index place) const {
    return ((paged() ? 0 : b * tokens) + place) * heads + head;
  }
  /// out[c * step] = number c of the head's in row `place`, which holds token `j`.
  template <class T>
  void load(index b, index head, index j, index place, index h, T* out, index step,
            index /*view*/) const {
    const index at = row(b, head, place);
    const code* const from = data + at * code::bytes(width);
    for (index c = 0; c < h; ++c)
      out[c * step] = static_cast<T>((scales ? scales[at] : channels[head * width + c]) *
                                     code::number(from, c));
    if (angles) rope_head(pairing, h, angles + j * width, out, step, false);
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
