// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Numbers to ggml's blocks, as llama.cpp's reference code rounds them: F32, F16, BF16, Q8_0, Q4_0
/// and Q4_1.

#include <linnet/formats/ggml_blocks.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class T>
void store_as(T value, std::byte* to) {
  __builtin_memcpy(to, &value, sizeof value);
}
/// Stores a scale as a half; whether it is finite.
inline bool store_half(float x, std::byte* to) {
  const storage::f16::value half = storage::f16::encode(static_cast<double>(x));
  store_as(half, to);
  return storage::f16::finite(half);
}
/// x * y rounded to a float, also where the compiler would join it with a sum.
inline float rounded_product(float x, float y) {
  return static_cast<float>(static_cast<double>(x) * static_cast<double>(y));
}
/// to[16] = 32 codes of 4 bits: value(i) rounded down, at most 15.
template <class F>
void store_nibbles(std::byte* to, F&& value) {
  const auto code = [&](index i) {
    const int whole = static_cast<int>(value(i));
    return whole < 15 ? whole : 15;
  };
  for (index i = 0; i < 16; ++i) to[i] = static_cast<std::byte>(code(i) | code(i + 16) << 4);
}

/// One block of finite numbers; whether its scales fit.
inline bool encode_block(ggml_type type, const float* from, std::byte* to) {
  float least = from[0], most = from[0], farthest = 0;
  if (values_per_block(type) > 1)
    for (index i = 0; i < 32; ++i) {
      if (from[i] < least) least = from[i];
      if (from[i] > most) most = from[i];
      if (std::abs(from[i]) > std::abs(farthest)) farthest = from[i];
    }
  // Of a scale that is too small for it, codes are all the same.
  const auto inverse = [](float d) { return d != 0 && is_finite(1 / d) ? 1 / d : 0.f; };
  switch (type) {
    case ggml_type::f32:
      store_as(*from, to);
      return true;
    case ggml_type::f16:
      store_as(storage::f16::encode(static_cast<double>(*from)), to);
      return true;
    case ggml_type::bf16:
      store_as(storage::bf16::encode(static_cast<double>(*from)), to);
      return true;
    case ggml_type::q8_0: {
      const float d = std::abs(farthest) / 127, scale = inverse(d);
      if (!store_half(d, to)) return false;
      for (index i = 0; i < 32; ++i)
        store_as(static_cast<std::int8_t>(std::round(rounded_product(from[i], scale))), to + 2 + i);
      return true;
    }
    case ggml_type::q4_0: {
      const float d = farthest / -8, scale = inverse(d);
      if (!store_half(d, to)) return false;
      store_nibbles(to + 2, [&](index i) { return rounded_product(from[i], scale) + 8.5f; });
      return true;
    }
    case ggml_type::q4_1: {
      const float d = (most - least) / 15, scale = inverse(d);
      if (!store_half(d, to) || !store_half(least, to + 2)) return false;
      store_nibbles(to + 4,
                    [&](index i) { return rounded_product(from[i] - least, scale) + 0.5f; });
      return true;
    }
    default:
      return false;
  }
}

}  // namespace detail

/// Whether encode_ggml() makes blocks of a type.
constexpr bool encodes_ggml(ggml_type type) {
  return type == ggml_type::f32 || type == ggml_type::f16 || type == ggml_type::bf16 ||
         type == ggml_type::q8_0 || type == ggml_type::q4_0 || type == ggml_type::q4_1;
}
/// Writes values as blocks of a type that encodes_ggml(), rounded as llama.cpp's reference code
/// does. There are as many values as whole blocks hold. Gives false where a block has a number that
/// is not finite or too large for its scale.
inline bool encode_ggml(ggml_type type, std::span<const float> from, std::byte* to) {
  const detail::ggml_layout& layout = detail::ggml_layout_of(type);
  for (const float x : from)
    if (layout.block > 1 && !is_finite(x)) return false;
  bool fits = true;
  for (index i = 0; i + layout.block <= std::ssize(from); i += layout.block, to += layout.bytes)
    fits = detail::encode_block(type, from.data() + i, to) && fits;
  return fits;
}

LINNET_NAMESPACE_END
