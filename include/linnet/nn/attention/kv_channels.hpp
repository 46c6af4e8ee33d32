// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The key-value cache whose keys are rounded by channel before their rotation, with scales from a
/// calibration (Hooper et al. 2024).

#include <algorithm>
#include <cmath>

#include <linnet/nn/attention/kv_cache.hpp>
#include <linnet/ops/channel_rows.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Keys, or values, of one layer in codes of `Bits` bits; see ops::kv_rows<channel_code>. Any token
/// is rounded alone: keys by the scales of their channels, a head of values by max|x|.
template <int Bits, index Heads, index H, bool Keys>
struct kv_channels
    : kv_memory<ops::channel_code<Bits>, Heads, ops::channel_code<Bits>::bytes(H), !Keys> {
  using code = ops::channel_code<Bits>;
  using memory = kv_memory<code, Heads, code::bytes(H), !Keys>;
  using memory::data, memory::scales, memory::places, memory::paged;
  static constexpr bool exact = false;
  static constexpr index heads = Heads, width = H;

  constexpr bool gathered() const { return true; }
  /// The rows that attention reads. Those of keys lack their `channels` yet, and `angles`.
  constexpr ops::kv_rows<code> rows(const ops::page_tables& pages) const {
    return {data,   places.tokens, Heads,       H,
            scales, places.fixed,  places.ring, paged ? pages : ops::page_tables{}};
  }
  /// Stores x[Heads, H] as token `j` of sequence `b` of `all`, which are rows(). In any order.
  void put(const ops::execution&, const ops::kv_rows<code>& all, index b, index j,
           const float* x) const {
    const index place = all.of(b, 0).place(j);
    for (index head = 0; head < Heads; ++head, x += H) {
      const index at = all.row(b, head, place);
      code* const to = data + at * code::bytes(H);
      if constexpr (Keys) {
        code::encode(
            H, x, [&](index c) { return all.channels[head * H + c]; }, to);
      } else {
        float largest = 0;
        for (index c = 0; c < H; ++c)
          if (is_finite(x[c])) largest = (std::max)(largest, std::abs(x[c]));
        scales[at] = code_scale(largest, code::most);
        code::encode(
            H, x, [&](index) { return scales[at]; }, to);
      }
    }
  }
};

template <index Heads, index H, bool Keys>
struct pick_kv_buffer<float, kv_code::channel_int8, Heads, H, Keys> {
  using type = kv_channels<8, Heads, H, Keys>;
};
template <index Heads, index H, bool Keys>
struct pick_kv_buffer<float, kv_code::channel_int4, Heads, H, Keys> {
  using type = kv_channels<4, Heads, H, Keys>;
};

/// Raises largest[n], the largest magnitudes of n channels, by rows x[rows, n]. What is not finite
/// stays so.
template <class T>
void note_largest(const ops::execution& on, index rows, index n, const T* x, float* largest) {
  on.threads.each(n, [&](index c) {
    for (index row = 0; row < rows && is_finite(largest[c]); ++row) {
      const auto v = static_cast<float>(x[row * n + c]);
      largest[c] = is_finite(v) ? (std::max)(largest[c], std::abs(v)) : v;
    }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
