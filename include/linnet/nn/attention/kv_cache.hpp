// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The key-value cache: storage of the keys and values of the tokens that a session was fed.

#include <cassert>

#include <linnet/nn/attention/kv_cache4.hpp>

LINNET_NAMESPACE_BEGIN

/// How the numbers of a key-value cache are stored.
enum class kv_code {
  exact,         ///< in the model's scalar type
  bf16,          ///< bfloat16, half the bytes
  f16,           ///< IEEE half precision, half the bytes
  int8,          ///< 8-bit integers with one scale for each head of each token, about a quarter
  int4,          ///< 4-bit integers, keys with a scale for each channel of 32 tokens, about a sixth
  channel_int8,  ///< 8-bit integers, keys before their rotation with a scale for each channel
  channel_int4   ///< likewise in 4 bits, about an eighth
};

/// Policies for the key-value cache of a model: decoder<shape, kv::int8>. Weights do not depend on
/// it. Models in double keep doubles.
namespace kv {
/// Base of the cache policies.
struct policy {
  static constexpr bool calibrated = false;  ///< asks for scales of keys, see calibrate_keys()
};
/// Keys and values in the model's scalar type.
struct exact : policy {
  static constexpr kv_code code = kv_code::exact;
};
/// Keys and values rounded to bfloat16, nearest even.
struct bf16 : policy {
  static constexpr kv_code code = kv_code::bf16;
};
/// Keys and values rounded to IEEE half precision, nearest even: 11 bits, where bf16 has 8. What
/// is beyond 65504 becomes that, so that finite keys and values stay finite. Infinities and NaN
/// stay.
struct f16 : policy {
  static constexpr kv_code code = kv_code::f16;
};
/// Keys and values rounded to int8, symmetric, with one scale for each head of each token. The
/// error is at most half a scale, max|x| / 254.
struct int8 : policy {
  static constexpr kv_code code = kv_code::int8;
};
/// Keys and values rounded to 4-bit integers (Hooper et al. 2024). Values have one scale for each
/// head of each token, keys one for each channel of 32 tokens, the newest of which stay exact. An
/// error of half a scale, that is max|x| / 14, at most. Attention decodes what it reads; not for
/// paged caches.
struct int4 : policy {
  static constexpr kv_code code = kv_code::int4;
};
/// Keys rounded to int8 before their rotation, with one scale for each channel of a head (Hooper
/// et al. 2024); values as in `int8`. Scales come from a calibration: see calibrate_keys() and
/// packed::set_key_scales(). Keys beyond 127 scales become that. Attention decodes and rotates what
/// it reads. Decoders alone.
struct channel_int8 : policy {
  static constexpr kv_code code = kv_code::channel_int8;
  static constexpr bool calibrated = true;
};
/// Keys and values as in `channel_int8`, in 4 bits: keys beyond 7 scales become that.
struct channel_int4 : policy {
  static constexpr kv_code code = kv_code::channel_int4;
  static constexpr bool calibrated = true;
};
}  // namespace kv

namespace detail {

/// Whether keys are rounded by channel before their rotation.
constexpr bool rounds_channels(kv_code code) {
  return code == kv_code::channel_int8 || code == kv_code::channel_int4;
}

/// Memory of the keys, or values, of one layer: [batch, tokens, Heads, Slot] codes, and with
/// `Scaled` a scale for each head of each token.
template <class Code, index Heads, index Slot, bool Scaled>
struct kv_memory {
  static constexpr index slot = Slot;
  static constexpr bool scaled = Scaled;

  Code* data = nullptr;
  float* scales = nullptr;  ///< [batch, tokens, Heads]
  kv_places places{};
  bool paged = false;  ///< [blocks, token_block, Heads, slot], shared by all sequences

  /// Plans room for `count` tokens of each sequence, or only for the `first` and the last `recent`
  /// ones if those are fewer. With `blocks` above 0, plans that many blocks of tokens altogether
  /// instead.
  constexpr void plan(arena& state, index batch, index count, index first, index recent,
                      index blocks) {
    places = {count, first, recent};
    if (places.ring == 0 && blocks > 0) {
      paged = true;
      places.tokens = blocks * ops::token_block;
      batch = 1;
    }
    data = state.take<Code>(batch * places.tokens * Heads * slot);
    if (scaled) scales = state.take<float>(batch * places.tokens * Heads);
  }
  /// Copies tokens [first, last) of sequence `from` to sequence `to`; paged ones are shared.
  void copy(index from, index to, index first, index last) const {
    if (paged) return;
    if (places.ring > 0) first = 0, last = places.tokens;  // wherever they are
    copy_rows(from * places.tokens + first, to * places.tokens + first, last - first);
  }
  /// Copies block `from` to block `to`.
  void copy_block(index from, index to) const {
    if (paged) copy_rows(from * ops::token_block, to * ops::token_block, ops::token_block);
  }
  /// Copies token `from` of sequence `b` to the place of its token `to`.
  void move(const ops::page_tables& pages, index b, index from, index to) const {
    const simd::token_rows<Code> all{data, Heads * slot, places.fixed, places.ring,
                                     paged ? pages.tables + b * pages.size : nullptr};
    const index first = paged ? 0 : b * places.tokens;
    copy_rows(first + all.place(from), first + all.place(to), 1);
  }

 private:
  void copy_rows(index from, index to, index count) const {
    if (count <= 0) return;
    const index row = Heads * slot;
    std::copy_n(data + from * row, count * row, data + to * row);
    if (scaled) std::copy_n(scales + from * Heads, count * Heads, scales + to * Heads);
  }
};

/// How a number of a cache of `T` is stored.
template <class T, kv_code Code>
struct kv_number {
  static constexpr bool exact = Code == kv_code::exact || sizeof(T) != sizeof(float);
  static_assert(exact || Code == kv_code::bf16 || Code == kv_code::f16 || Code == kv_code::int8);
  using rounded =
      std::conditional_t<Code == kv_code::bf16, ops::bf16_code,
                         std::conditional_t<Code == kv_code::f16, ops::f16_code, std::int8_t>>;
  using type = std::conditional_t<exact, T, rounded>;
  /// Numbers from head to head: kernels write whole words of codes.
  static constexpr index slot(index h) {
    return round_up(h, exact ? 1 : 4 / static_cast<index>(sizeof(type)));
  }
};

/// Keys, or values, of one layer: [batch, tokens, Heads, slot].
template <class T, kv_code Code, index Heads, index H>
struct kv_buffer : kv_memory<typename kv_number<T, Code>::type, Heads, kv_number<T, Code>::slot(H),
                             !kv_number<T, Code>::exact && Code == kv_code::int8> {
  static constexpr bool exact = kv_number<T, Code>::exact;
  using code = typename kv_number<T, Code>::type;
  static constexpr index heads = Heads, width = H;
  using memory =
      kv_memory<code, Heads, kv_number<T, Code>::slot(H), !exact && Code == kv_code::int8>;
  using memory::slot, memory::scaled, memory::data, memory::scales, memory::places, memory::paged;

  /// Whether several queries need a copy of what they look at.
  constexpr bool gathered() const { return !exact || places.ring > 0 || paged; }
  /// The rows that attention reads, in `pages` where the cache is paged.
  constexpr ops::kv_rows<code> rows(const ops::page_tables& pages) const {
    return {data,   places.tokens, Heads * slot, slot,
            scales, places.fixed,  places.ring,  paged ? pages : ops::page_tables{}};
  }
  /// Stores x[Heads, H] as token `j` of sequence `b` of `all`, which are rows(). In any order.
  void put(const ops::execution& on, const ops::kv_rows<code>& all, index b, index j,
           const T* x) const {
    const index row = (paged ? 0 : b * places.tokens) + all.of(b, 0).place(j);
    code* const to = data + row * Heads * slot;
    if constexpr (exact) {
      std::copy_n(x, Heads * H, to);
    } else {
      on.with_kernels([&](auto kernels) {
        using K = decltype(kernels);
        for (index head = 0; head < Heads; ++head) {
          [[maybe_unused]] std::int32_t sum = 0;
          if constexpr (scaled)
            scales[row * Heads + head] =
                K::template to_int8<T>(H, x + head * H, to + head * slot, sum);
          else
            K::template to_16_bits<T>(H, x + head * H, to + head * slot);
        }
      });
    }
  }
  /// Rounds x[rows, Heads, H] as put() does and reads it back, for training.
  static void fake(const ops::execution& on, index rows, T* x) {
    if constexpr (!exact)
      on.threads.each(rows * Heads, [&](index i) {
        on.with_kernels([&](auto kernels) {
          using K = decltype(kernels);
          [[maybe_unused]] std::int32_t sum = 0;
          code codes[std::size_t{slot}];
          T *const head = x + i * H, scale = T(1);
          if constexpr (scaled)
            scale = K::template to_int8<T>(H, head, codes, sum);
          else
            K::template to_16_bits<T>(H, head, codes);
          for (index c = 0; c < H; ++c)
            head[c] = scale * ops::kv_rows<code>::template number<T>(codes[c]);
        });
      });
  }
};

template <class T, kv_code Code, index Heads, index H, bool Keys>
struct pick_kv_buffer {
  using type = kv_buffer<T, Code, Heads, H>;
};
template <index Heads, index H, bool Keys>
struct pick_kv_buffer<float, kv_code::int4, Heads, H, Keys> {
  using type = kv_buffer4<Heads, H, Keys>;
};

/// Keys that a call reads from a cache; `fresh` [batch, length, heads, h] are its own, behind
/// `past` [batch] tokens.
template <class Keys, class T>
auto key_rows(const Keys& keys, const context<T>& ctx, const T* fresh, index length,
              const index* past) {
  auto rows = keys.rows(ctx.pages);
  if constexpr (requires { rows.fresh; })
    rows.fresh = fresh, rows.fresh_length = length, rows.past = past;
  if constexpr (requires { rows.channels; }) {
    assert(ctx.on.key_scales != nullptr && "linnet: a session gives the scales of keys");
    rows.channels = ctx.on.key_scales + ctx.stack.layer * Keys::heads * Keys::width;
  }
  return rows;
}

/// Stores keys k[batch, length, heads of keys, h] and values v[batch, length, heads of values, h]
/// in a cache. They are the new tokens of this call, or with `all` those of the encoder's output.
/// Several heads of keys may share one of values.
template <class Keys, class Values, class T>
void keep_tokens(const Keys& keys, const Values& values, const context<T>& ctx, index length,
                 bool all, const T* k, const T* v) {
  constexpr index heads = Keys::heads, group = heads / Values::heads, h = Keys::width;
  const auto rows = key_rows(keys, ctx, k, length, all ? nullptr : ctx.past);
  const auto value_rows = values.rows(ctx.pages);
  const auto count = [&](index b) { return all ? ctx.memory.length_of(b) : ctx.length_of(b); };
  const auto at = [&](index b, index t) { return all ? t : ctx.past[b] + t; };
  if constexpr (requires { rows.past; }) {  // whole blocks of keys are rounded together
    ctx.on.threads.each(ctx.batch * heads, [&](index unit) {
      const index b = unit / heads, head = unit % heads;
      for (index t = 0, n = count(b); t < n; ++t) {
        const index j = at(b, t);
        if ((j + 1) % Keys::block == 0 || (all && t + 1 == n)) keys.close_block(rows, b, head, j);
        if (head % group == 0)
          values.put(value_rows, b, head / group, j,
                     v + ((b * length + t) * Values::heads + head / group) * h);
      }
    });
  } else {
    ctx.on.threads.each(ctx.batch * length, [&](index row) {
      const index b = row / length, t = row % length;
      if (t >= count(b)) return;
      keys.put(ctx.on, rows, b, at(b, t), k + row * heads * h);
      values.put(ctx.on, value_rows, b, at(b, t), v + row * Values::heads * h);
    });
  }
}

/// Ends a call that used keep_tokens(), once attention has read this call's rows, which are
/// key_rows().
template <class Keys, class Rows, class T>
void keep_newest(const Keys& keys, const Rows& rows, const context<T>& ctx) {
  if constexpr (requires { rows.newest; })
    ctx.on.threads.each(ctx.batch * Keys::heads, [&](index unit) {
      const index b = unit / Keys::heads;
      keys.keep_newest(rows, b, unit % Keys::heads, ctx.length_of(b));
    });
}

}  // namespace detail

LINNET_NAMESPACE_END
