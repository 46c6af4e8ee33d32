// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in 4-bit floats.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <linnet/storage/code_grid.hpp>
#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Which numbers are scales of fp4.
enum class fp4_scales {
  any,                 ///< the largest magnitude over 6
  power_of_two,        ///< the least power of two that is no smaller
  power_of_two_ratios  ///< those of 32 rows differ by powers of two
};

/// 4-bit floats, e2m1, with one scale for each `Group` inputs of a row (Wu et al. 2023,
/// ZeroQuant-FP). Where `Group` is 0 a row has one scale. The numbers are 0, 0.5, 1, 1.5, 2, 3, 4
/// and 6, and their negatives. Two codes share a byte, the first in the low half.
template <index Group = 32, fp4_scales Scales = fp4_scales::any>
struct fp4 : small_float<simd::code::f4_e2m1, std::uint8_t, 2, 1, specials::none> {
  static_assert(Group >= 0 && Group % 8 == 0,
                "linnet::storage::fp4: groups are a multiple of 8 inputs; 0 is a whole row");
  static constexpr const char* name = "fp4";
  static constexpr bool scaled = true;
  static constexpr index group = Group;
  static constexpr double largest = 6;
};
/// 4-bit floats with scales that are powers of two: the paper's constraint M1, by which products
/// with inputs in 8-bit floats need shifts alone. Groups of 32 have the numbers of the OCP's MXFP4.
template <index Group>
struct fp4<Group, fp4_scales::power_of_two> : fp4<Group> {
  static constexpr const char* name = "fp4_power_of_two";
  static constexpr bool fixed_scales = true;
  /// The scale of `n` numbers, by which none is cut but those beyond 6 * 2^125: 8 * 2^125 is no
  /// float.
  template <class T>
  static float fit_scale(index n, const T* x) {
    double most = 0;
    for (index i = 0; i < n; ++i) most = (std::max)(most, std::abs(static_cast<double>(x[i])));
    float scale = 1;
    linnet::detail::fit_range<fp4<Group>>(-most, most, scale, nullptr);
    int exponent = 0;
    const bool power = std::frexp(scale, &exponent) == 0.5f;
    return std::ldexp(1.0f, (std::min)(125, exponent - (power ? 1 : 0)));
  }
};
/// 4-bit floats with scales that differ by powers of two, each from the largest of 32 rows in the
/// same inputs: the paper's constraint M2. Each is the least of these by which no number is cut.
template <index Group>
struct fp4<Group, fp4_scales::power_of_two_ratios> : fp4<Group> {
  static constexpr const char* name = "fp4_power_of_two_ratios";
  static constexpr bool fixed_scales = true;
  static constexpr index rows_together = 32;
};

}  // namespace storage

LINNET_NAMESPACE_END
