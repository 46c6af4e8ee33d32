#pragma once
/// @file
/// The key-value cache in 4 bits: keys per channel, values per token (zoo D15).

#include <cmath>
#include <limits>

#include <linnet/nn/layer.hpp>
#include <linnet/ops/attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The rows of a cache: `fixed` first ones and a ring behind them, or one for each token.
struct kv_places {
  index tokens = 0;  ///< of each sequence
  index fixed = 0, ring = 0;

  constexpr kv_places() = default;
  /// For texts of `count` tokens of which the `first` and the last `recent` ones are looked at: a
  /// ring where that is smaller.
  constexpr kv_places(index count, index first, index recent) : tokens(count) {
    const index block = simd::token_block;
    if (recent >= count || round_up(first, block) + round_up(recent, block) >= count) return;
    fixed = round_up(first, block);
    ring = round_up(recent, block);
    tokens = fixed + ring;
  }
};

/// The keys, or the values, of one layer in 4 bits; see ops::kv_rows<int4_code>.
template <index Heads, index H, bool Keys>
struct kv_buffer4 {
  using code = ops::int4_code;
  static constexpr bool exact = false;
  static constexpr index heads = Heads, width = H;
  static constexpr index block = simd::token_block, pairs = (H + 1) / 2;

  code* data = nullptr;
  float* scales = nullptr;
  float* open = nullptr;        ///< [batch, Heads, block, H] the newest keys as they are
  index* open_block = nullptr;  ///< [batch, Heads] 1 + its number
  kv_places places{};

  /// Like kv_buffer's; never paged.
  constexpr void plan(arena& state, index batch, index count, index first, index recent, index) {
    places = {count, first, recent};
    places.tokens = round_up(places.tokens, block);
    data = state.take<code>(batch * codes());
    scales = state.take<float>(batch * factors());
    if (!Keys) return;
    open = state.take<float>(batch * Heads * block * H);
    open_block = state.take<index>(batch * Heads);
  }
  constexpr bool gathered() const { return true; }
  constexpr ops::kv_rows<code> rows(const std::int32_t*, index) const {
    return {data,   places.tokens, Heads,       H,    Keys,
            scales, places.fixed,  places.ring, open, open_block};
  }
  /// Keeps x[H] for token `j` of a head of sequence `b` of `all`, which are rows(). Tokens come in
  /// order.
  template <class T>
  void put(const ops::kv_rows<code>& all, index b, index head, index j, const T* x) const {
    const index place = all.of(b, head).place(j);
    if constexpr (!Keys) {
      const index at = (b * places.tokens + place) * Heads + head;
      scales[at] = encode(H, x, 1, data + at * pairs);
    } else {
      const index unit = b * Heads + head, t = j % block;
      float* const rows = open + unit * block * H;
      if (open_block[unit] != j / block + 1) {
        // Tokens of this block were kept before, and some of them taken back.
        for (index u = 0; u < t; ++u)
          all.load(b, head, j - t + u, place - t + u, H, rows + u * H, 1);
        open_block[unit] = j / block + 1;
      }
      for (index c = 0; c < H; ++c) rows[t * H + c] = static_cast<float>(x[c]);
      if (t + 1 < block) return;
      const index at = all.block_at(b, head, place);
      for (index c = 0; c < H; ++c)
        scales[at + c] = encode(block, rows + c, H, data + (at + c) * block / 2);
    }
  }
  /// Sequence `to` becomes what `from` is.
  void copy(index from, index to, index, index) const {
    const auto whole = [&](auto* x, index count) {
      std::copy_n(x + from * count, count, x + to * count);
    };
    whole(data, codes());
    whole(scales, factors());
    if (!Keys) return;
    whole(open, Heads * block * H);
    whole(open_block, Heads);
  }
  void copy_block(index, index) const {}

 private:
  /// Bytes of codes, and scales, of one sequence.
  constexpr index codes() const { return places.tokens * Heads * (Keys ? H : 2 * pairs) / 2; }
  constexpr index factors() const { return places.tokens * Heads * (Keys ? H : block) / block; }
  /// Codes of n numbers, `step` apart; returns their scale: max|x| / 7, 1 for what is nearly zero,
  /// NaN if one of them is not finite.
  template <class T>
  static float encode(index n, const T* x, index step, code* to) {
    float most = 0;
    for (index i = 0; i < n; ++i) {
      const auto v = static_cast<float>(x[i * step]);
      if (!is_finite(v)) {
        std::fill_n(to, (n + 1) / 2, static_cast<code>(0x88));
        return std::numeric_limits<float>::quiet_NaN();
      }
      most = (std::max)(most, std::abs(v));
    }
    const float least = (std::numeric_limits<float>::min)();
    const float scale = most / 7 < least ? 1 : most / 7;
    for (index i = 0; i < n; i += 2) {
      unsigned both = 0;
      for (index k = 0; k < 2; ++k) {
        const float v = i + k < n ? static_cast<float>(x[(i + k) * step]) / scale : 0.0f;
        both |= static_cast<unsigned>(static_cast<int>(std::nearbyint(v)) + 8) << (4 * k);
      }
      to[i / 2] = static_cast<code>(both);
    }
    return scale;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
