// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// ggml's element types, which GGUF and rwkv.cpp files hold: small floats, and blocks of codes with
/// scales in half precision. Every type is decoded to the float that ggml's own code gives.

#include <cmath>
#include <span>
#include <string_view>

#include <linnet/formats/tensor.hpp>

LINNET_NAMESPACE_BEGIN

/// Element types of ggml, with its numbers for them.
enum class ggml_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,   ///< d (q - 8), 4 bits, 32 values
  q4_1 = 3,   ///< d q + m, 4 bits, 32 values
  q5_0 = 6,   ///< d (q - 16), 5 bits, 32 values
  q5_1 = 7,   ///< d q + m, 5 bits, 32 values
  q8_0 = 8,   ///< d q, 8 bits, 32 values
  q2_k = 10,  ///< 2 bits, 256 values: sixteen groups with scale and minimum of 4 bits
  q3_k = 11,  ///< 3 bits, 256 values: sixteen groups with scales of 6 bits
  q4_k = 12,  ///< 4 bits, 256 values: eight groups with scale and minimum of 6 bits
  q5_k = 13,  ///< 5 bits, else as q4_k
  q6_k = 14,  ///< 6 bits, 256 values: sixteen groups with scales of 8 bits
  bf16 = 30
};

namespace detail {

/// A type's name, and its blocks: values stand in them along the fastest dimension.
struct ggml_layout {
  ggml_type type;
  std::string_view name;
  index block;  ///< values
  index bytes;  ///< of a block
};
inline constexpr ggml_layout ggml_layouts[] = {
    {ggml_type::f32, "F32", 1, 4},       {ggml_type::f16, "F16", 1, 2},
    {ggml_type::bf16, "BF16", 1, 2},     {ggml_type::q4_0, "Q4_0", 32, 18},
    {ggml_type::q4_1, "Q4_1", 32, 20},   {ggml_type::q5_0, "Q5_0", 32, 22},
    {ggml_type::q5_1, "Q5_1", 32, 24},   {ggml_type::q8_0, "Q8_0", 32, 34},
    {ggml_type::q2_k, "Q2_K", 256, 84},  {ggml_type::q3_k, "Q3_K", 256, 110},
    {ggml_type::q4_k, "Q4_K", 256, 144}, {ggml_type::q5_k, "Q5_K", 256, 176},
    {ggml_type::q6_k, "Q6_K", 256, 210}};
/// The layout of the type with ggml's number `id`, or null.
constexpr const ggml_layout* ggml_layout_of(std::uint32_t id) {
  for (const ggml_layout& one : ggml_layouts)
    if (static_cast<std::uint32_t>(one.type) == id) return &one;
  return nullptr;
}
constexpr const ggml_layout& ggml_layout_of(ggml_type type) {
  return *ggml_layout_of(static_cast<std::uint32_t>(type));
}

/// The float of a half-precision number.
inline float half_at(const std::byte* from) {
  return simd::number_of(load_as<simd::f16_code>(from));
}
inline int byte_at(const std::byte* from, index i) { return std::to_integer<int>(from[i]); }

/// Bits of code number i of a super-block: `bits` of byte i % `span` in the run of `span` bytes
/// that serves `8 / bits` spans of codes.
template <index Span, int Bits>
int packed_code(const std::byte* from, index i) {
  constexpr index per_run = Span * 8 / Bits;
  const auto shift = static_cast<int>(i % per_run / Span) * Bits;
  return byte_at(from, i / per_run * Span + i % Span) >> shift & ((1 << Bits) - 1);
}

/// Scale and minimum number `j` of Q4_K and Q5_K, 6 bits each, eight of both in 12 bytes.
inline std::pair<int, int> scale_and_minimum(const std::byte* from, index j) {
  if (j < 4) return {byte_at(from, j) & 63, byte_at(from, j + 4) & 63};
  const int low = byte_at(from, j + 4);
  return {(low & 15) | (byte_at(from, j - 4) >> 2 & 48), low >> 4 | (byte_at(from, j) >> 2 & 48)};
}
/// Scale number `j` of Q3_K, from -32 to 31: 6 bits, sixteen in 12 bytes.
inline int q3_k_scale(const std::byte* from, index j) {
  const int low = byte_at(from, j % 8) >> (j < 8 ? 0 : 4) & 15;
  return (low | (byte_at(from, 8 + j % 4) >> (j / 4 * 2) & 3) << 4) - 32;
}

/// The values of one block. All products are exact in a float, so each value is rounded once.
inline void decode_block(ggml_type type, const std::byte* from, float* to) {
  const auto each = [&](index values, auto&& value) {
    for (index i = 0; i < values; ++i) to[i] = value(i);
  };
  const auto real = [](int x) { return static_cast<float>(x); };
  const auto fifth = [](std::uint32_t high, index i) {
    return static_cast<int>(high >> static_cast<int>(i) & 1u) << 4;
  };
  switch (type) {
    case ggml_type::f32:
      __builtin_memcpy(to, from, sizeof *to);
      return;
    case ggml_type::f16:
      *to = half_at(from);
      return;
    case ggml_type::bf16: {
      const std::uint32_t bits = std::uint32_t{load_as<std::uint16_t>(from)} << 16;
      __builtin_memcpy(to, &bits, sizeof *to);
      return;
    }
    case ggml_type::q8_0: {
      const float d = half_at(from);
      return each(32, [&](index i) { return d * real(load_as<std::int8_t>(from + 2 + i)); });
    }
    case ggml_type::q4_0: {
      const float d = half_at(from);
      return each(32, [&](index i) { return d * real(packed_code<16, 4>(from + 2, i) - 8); });
    }
    case ggml_type::q4_1: {
      const float d = half_at(from), m = half_at(from + 2);
      return each(32, [&](index i) { return d * real(packed_code<16, 4>(from + 4, i)) + m; });
    }
    case ggml_type::q5_0: {
      const float d = half_at(from);
      const auto high = load_as<std::uint32_t>(from + 2);
      return each(32, [&](index i) {
        return d * real((packed_code<16, 4>(from + 6, i) | fifth(high, i)) - 16);
      });
    }
    case ggml_type::q5_1: {
      const float d = half_at(from), m = half_at(from + 2);
      const auto high = load_as<std::uint32_t>(from + 4);
      return each(32, [&](index i) {
        return d * real(packed_code<16, 4>(from + 8, i) | fifth(high, i)) + m;
      });
    }
    case ggml_type::q2_k: {
      const float d = half_at(from + 80), least = half_at(from + 82);
      return each(256, [&](index i) {
        const int both = byte_at(from, i / 16);
        return d * real(both & 15) * real(packed_code<32, 2>(from + 16, i)) -
               least * real(both >> 4);
      });
    }
    case ggml_type::q3_k: {
      const float d = half_at(from + 108);
      return each(256, [&](index i) {
        const int high = packed_code<32, 1>(from, i) ^ 1;  // the offset is none where the bit is 1
        return d * real(q3_k_scale(from + 96, i / 16)) *
               real(packed_code<32, 2>(from + 32, i) - 4 * high);
      });
    }
    case ggml_type::q4_k: {
      const float d = half_at(from), least = half_at(from + 2);
      return each(256, [&](index i) {
        const auto [scale, minimum] = scale_and_minimum(from + 4, i / 32);
        return d * real(scale) * real(packed_code<32, 4>(from + 16, i)) - least * real(minimum);
      });
    }
    case ggml_type::q5_k: {
      const float d = half_at(from), least = half_at(from + 2);
      return each(256, [&](index i) {
        const auto [scale, minimum] = scale_and_minimum(from + 4, i / 32);
        const int code = packed_code<32, 4>(from + 48, i) | packed_code<32, 1>(from + 16, i) << 4;
        return d * real(scale) * real(code) - least * real(minimum);
      });
    }
    case ggml_type::q6_k: {
      const float d = half_at(from + 208);
      return each(256, [&](index i) {
        const int code = packed_code<64, 4>(from, i) | packed_code<32, 2>(from + 128, i) << 4;
        return d * real(load_as<std::int8_t>(from + 192 + i / 16)) * real(code - 32);
      });
    }
  }
}

}  // namespace detail

/// The name of a type, such as "Q4_1".
constexpr std::string_view name_of(ggml_type type) { return detail::ggml_layout_of(type).name; }
/// Values in one block of a type: 1, 32 or 256.
constexpr index values_per_block(ggml_type type) { return detail::ggml_layout_of(type).block; }
/// Bytes of one block of a type.
constexpr index bytes_per_block(ggml_type type) { return detail::ggml_layout_of(type).bytes; }

/// to[count] = the values of whole blocks at `from`, which need not be aligned. `count` is a
/// multiple of values_per_block(type).
inline void decode_ggml(ggml_type type, const std::byte* from, std::span<float> to) {
  const detail::ggml_layout& layout = detail::ggml_layout_of(type);
  for (index i = 0; i + layout.block <= std::ssize(to); i += layout.block, from += layout.bytes)
    detail::decode_block(type, from, to.data() + i);
}

LINNET_NAMESPACE_END
