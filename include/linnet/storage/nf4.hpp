// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in 4-bit codes of normal quantiles.

#include <cmath>
#include <cstdint>

#include <linnet/storage/levels.hpp>
#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// 4-bit codes of normal quantiles with one scale for each `Group` inputs of a row (Dettmers et al.
/// 2023). Where `Group` is 0 a row has one scale. Two codes share a byte, the first in the low
/// half.
template <index Group>
struct nf4_per : coded<std::uint8_t, simd::code::nf4> {
  static_assert(Group >= 0 && Group % 8 == 0,
                "linnet::storage::nf4_per: groups are a multiple of 8 inputs; 0 is a whole row");
  using value = std::uint8_t;
  static constexpr const char* name = "nf4";
  static constexpr bool scaled = true;
  static constexpr index group = Group;
  static constexpr double largest = 1;
  /// The nearest of the 16 values; that of 0 for a NaN.
  static value encode(double x) {
    if (!is_finite(x)) return static_cast<value>(is_nan(x) ? 7 : x > 0 ? 15 : 0);
    int best = 0;
    for (int i = 1; i < 16; ++i)
      if (std::abs(x - decode(static_cast<value>(i))) <
          std::abs(x - decode(static_cast<value>(best))))
        best = i;
    return static_cast<value>(best);
  }
  static double decode(value x) { return static_cast<double>(simd::nf4_values[x & 15]); }
};
/// 4-bit codes of normal quantiles, one scale for each 64 inputs of a row.
struct nf4 : nf4_per<64> {};
/// 4-bit codes of normal quantiles whose scales are rounded to 8 bits: double quantization. Blocks
/// of 256 scales share a step, and all of a matrix share their mean.
template <index Group>
struct nf4_double_per : nf4_per<Group> {
  static_assert(Group > 0, "linnet::storage::nf4_double_per: scales are those of groups, not rows");
  static constexpr const char* name = "nf4_double";
  using levels = mean_levels<256>;
};
/// Double quantization with one scale for each 64 inputs of a row, as QLoRA has it.
struct nf4_double : nf4_double_per<64> {};

}  // namespace storage

LINNET_NAMESPACE_END
