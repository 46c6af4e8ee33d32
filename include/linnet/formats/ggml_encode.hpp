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
/// Stores a block of Q8_0, Q4_0 or Q4_1, with code(i) as the storage type of that name has codes.
/// Returns whether the scales are finite.
template <class F>
bool store_block(ggml_type type, float scale, float minimum, F&& code, std::byte* to) {
  const bool has_minimum = type == ggml_type::q4_1;
  const bool fits = store_half(scale, to) && (!has_minimum || store_half(minimum, to + 2));
  std::byte* const codes = to + (has_minimum ? 4 : 2);
  const int flipped = type == ggml_type::q4_0 ? 0x88 : 0;
  if (type == ggml_type::q8_0)
    for (index i = 0; i < 32; ++i) codes[i] = static_cast<std::byte>(code(i));
  else
    for (index i = 0; i < 16; ++i)
      codes[i] = static_cast<std::byte>((code(i) | code(i + 16) << 4) ^ flipped);
  return fits;
}
/// Rounds finite numbers to a block of the type that keeps what storage `S` does.
template <class S>
bool encode_codes(ggml_type type, const float* from, std::byte* to) {
  typename S::value codes[S::group];
  float scale = 0, minimum = 0;
  S::round_block(S::group, from, codes, scale, minimum);
  return store_block(
      type, scale, minimum, [&](index i) { return static_cast<int>(codes[i]); }, to);
}

/// One block of finite numbers; whether its scales fit.
inline bool encode_block(ggml_type type, const float* from, std::byte* to) {
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
    case ggml_type::q8_0:
      return encode_codes<storage::q8_0>(type, from, to);
    case ggml_type::q4_0:
      return encode_codes<storage::q4_0>(type, from, to);
    case ggml_type::q4_1:
      return encode_codes<storage::q4_1>(type, from, to);
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
