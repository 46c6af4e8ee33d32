// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The key-value cache in 4 bits: keys per channel, values per token (Hooper et al. 2024).

#include <cmath>
#include <limits>

#include <linnet/nn/layer.hpp>
#include <linnet/ops/attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Rows of a cache: `fixed` first ones and a ring behind them, or one row for each token.
struct kv_places {
  index tokens = 0;  ///< of each sequence
  index fixed = 0, ring = 0;

  constexpr kv_places() = default;
  /// Plans for texts of `count` tokens of which the `first` and the last `recent` ones are read: a
  /// ring where that is smaller.
  constexpr kv_places(index count, index first, index recent) : tokens(count) {
    const index block = ops::token_block;
    if (recent >= count || round_up(first, block) + round_up(recent, block) >= count) return;
    fixed = round_up(first, block);
    ring = round_up(recent, block);
    tokens = fixed + ring;
  }
};

/// The scale of numbers up to `largest` in codes up to `most`; 1 for what is nearly zero.
inline float code_scale(float largest, int most) {
  const float scale = largest / static_cast<float>(most);
  return scale < (std::numeric_limits<float>::min)() ? 1 : scale;
}

/// Keys, or values, of one layer in 4 bits; see ops::kv_rows<int4_code>.
template <index Heads, index H, bool Keys>
struct kv_buffer4 {
  using code = ops::int4_code;
  static constexpr bool exact = false;
  static constexpr index heads = Heads, width = H;
  static constexpr index block = ops::token_block, pairs = (H + 1) / 2;
  /// Number of exact keys of one sequence.
  static constexpr index kept_newest = Heads * ops::kv_rows<code>::newest_blocks * block * H;

  code* data = nullptr;
  float* scales = nullptr;
  float* newest = nullptr;  ///< [batch, Heads, newest_blocks, block, H] the newest keys as they are
  kv_places places{};

  /// Plans room as kv_buffer::plan() does; never paged.
  constexpr void plan(arena& state, index batch, index count, index first, index recent, index) {
    places = {count, first, recent};
    places.tokens = round_up(places.tokens, block);
    data = state.take<code>(batch * codes());
    scales = state.take<float>(batch * factors());
    if (Keys) newest = state.take<float>(batch * kept_newest);
  }
  constexpr bool gathered() const { return true; }
  constexpr ops::kv_rows<code> rows(const ops::page_tables&) const {
    return {data, places.tokens, Heads, H, Keys, scales, places.fixed, places.ring, newest};
  }
  /// Stores values x[H] as token `j` of a head of sequence `b` of `all`, which are rows().
  template <class T>
  void put(const ops::kv_rows<code>& all, index b, index head, index j, const T* x) const {
    const index at = (b * places.tokens + all.of(b, head).place(j)) * Heads + head;
    scales[at] = encode(H, x, 1, data + at * pairs);
  }
  /// Rounds the keys of the block of tokens that ends with `j`, from their exact values.
  void close_block(const ops::kv_rows<code>& all, index b, index head, index j) const {
    float rows[std::size_t{block * H}] = {};
    for (index t = 0; t <= j % block; ++t)
      std::copy_n(all.given(b, head, j - j % block + t), H, rows + t * H);
    const index at = all.block_at(b, head, all.of(b, head).place(j));
    for (index c = 0; c < H; ++c)
      scales[at + c] = encode(block, rows + c, H, data + (at + c) * block / 2);
  }
  /// Keeps the newest keys exact, once attention has read those before them. Of `length` tokens
  /// these are the last newest_blocks blocks.
  void keep_newest(const ops::kv_rows<code>& all, index b, index head, index length) const {
    const index before = all.past[b], last = (before + length - 1) / block;
    for (index j = (std::max)(before, (last + 1 - all.newest_blocks) * block); j < before + length;
         ++j)
      std::copy_n(all.given(b, head, j), H, newest + all.newest_at(b, head, j) + j % block * H);
  }
  /// Copies sequence `from` to sequence `to`.
  void copy(index from, index to, index, index) const {
    const auto whole = [&](auto* x, index count) {
      std::copy_n(x + from * count, count, x + to * count);
    };
    whole(data, codes());
    whole(scales, factors());
    if (Keys) whole(newest, kept_newest);
  }
  void copy_block(index, index) const {}

 private:
  /// Bytes of codes, and scales, of one sequence.
  constexpr index codes() const { return places.tokens * Heads * (Keys ? H : 2 * pairs) / 2; }
  constexpr index factors() const { return places.tokens * Heads * (Keys ? H : block) / block; }
  /// Codes of n numbers, `step` apart; returns their scale: max|x| / 7. It is 1 for numbers that
  /// are nearly zero, and NaN if one is not finite.
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
    const float scale = code_scale(most, 7);
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
