// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Numbers of messages in half of the bytes: bfloat16. Knows no MPI.

#include <cstdint>
#include <type_traits>

#include <linnet/core/shapes.hpp>
#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The code of the bfloat16 next to `x`, of two the even one.
template <class T>
std::uint16_t bf16_message(T x) {
  if constexpr (std::is_same_v<T, float>) {  // as storage::bf16, in a few operations
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  } else {
    return static_cast<std::uint16_t>(storage::bf16::encode(static_cast<double>(x)));
  }
}
/// The number of a code.
template <class T>
T number_of_bf16(std::uint16_t code) {
  const std::uint32_t bits = std::uint32_t{code} << 16;
  float x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return static_cast<T>(x);
}
/// The bfloat16 next to `x`.
template <class T>
T rounded_to_bf16(T x) {
  return number_of_bf16<T>(bf16_message(x));
}

}  // namespace detail

LINNET_NAMESPACE_END
