// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in 4-bit integers.

#include <cstdint>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Symmetric 4-bit integers, |code| <= 7, with one scale for each `Group` inputs of a row. Two
/// codes share a byte, the first in the low half.
template <index Group = 32>
struct int4 : coded<std::uint8_t, simd::code::u4> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int4: groups are a multiple of 8 inputs");
  static constexpr const char* name = "int4";
  static constexpr bool scaled = true;
  static constexpr index group = Group, per_value = 2;
  static constexpr double largest = 7;
  static constexpr int origin = 8;
  /// One code, in the low half of the byte.
  static value encode(double x) {
    return static_cast<value>(static_cast<int>(nearest_whole(x, -7, 7)) & 15);
  }
  static double decode(value x) { return x < 8 ? x : x - 16; }
};

}  // namespace storage

LINNET_NAMESPACE_END
