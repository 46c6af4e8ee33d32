// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in 8-bit integers.

#include <cstdint>
#include <type_traits>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// 8-bit integers (Jacob et al. 2018), round half to even. Symmetric: |code| <= 127, scale = max|x|
/// / 127. Asymmetric: codes 0 to 255 and a zero point. `Group` counts the inputs that share a
/// scale.
template <granularity G, symmetry Y = symmetry::symmetric, index Group = 64>
struct int8_per : coded<std::conditional_t<Y == symmetry::symmetric, std::int8_t, std::uint8_t>,
                        simd::code::u8> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int8_per: groups are a multiple of 8 inputs");
  static constexpr bool scaled = true, centred = Y == symmetry::asymmetric,
                        per_tensor = G == granularity::tensor;
  static constexpr index group = G == granularity::group ? Group : 0;
  static constexpr double largest = centred ? 255 : 127;
  static constexpr int origin = centred ? 0 : 128;
  using value = typename int8_per::coded::value;
  static constexpr const char* name = centred ? (per_tensor ? "int8_tensor_asymmetric"
                                                 : group    ? "int8_group_asymmetric"
                                                            : "int8_asymmetric")
                                              : (per_tensor ? "int8_tensor"
                                                 : group    ? "int8_group"
                                                            : "int8");
  static value encode(double x) {
    return static_cast<value>(nearest_whole(x, centred ? 0.0 : -127.0, largest));
  }
  static double decode(value x) { return x; }
};
/// 8-bit integers, symmetric, one scale per output row.
struct int8 : int8_per<granularity::row> {};

}  // namespace storage

LINNET_NAMESPACE_END
