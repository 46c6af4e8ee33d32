// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in small floating-point numbers: bf16, f16 and two of 8 bits.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// 2^exponent, a normal number.
inline double power_of_two(int exponent) {
  const std::uint64_t bits = static_cast<std::uint64_t>(exponent + 1023) << 52;
  double x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

/// Which codes of a small float are no numbers.
enum class specials {
  ieee,  ///< those with the largest exponent: infinities and NaN
  nan,   ///< one of each sign, a NaN: the OCP e4m3
  none   ///< all are numbers
};

/// Small binary floating-point numbers; `Exponent` and `Fraction` count bits. Round to nearest,
/// ties to even. What is too large becomes infinite, or the largest number where there are no
/// infinities. A NaN becomes 0 where there is none.
template <simd::code Code, class Value, int Exponent, int Fraction, specials Specials>
struct small_float : coded<Value, Code> {
  using value = Value;
  static value encode(double x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    constexpr unsigned sign_bit = 1u << (Exponent + Fraction);
    constexpr unsigned all_ones = sign_bit - 1, infinity = ((1u << Exponent) - 1) << Fraction;
    constexpr unsigned largest = Specials == specials::none  ? all_ones
                                 : Specials == specials::nan ? all_ones - 1
                                                             : infinity - 1;
    constexpr bool saturates = Specials != specials::ieee;
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const unsigned sign = bits >> 63 ? sign_bit : 0u;
    const std::uint64_t magnitude = bits & ~(std::uint64_t{1} << 63);
    constexpr std::uint64_t not_finite = std::uint64_t{0x7ff} << 52;
    if (magnitude > not_finite) {  // a NaN, made quiet
      if (Specials == specials::none) return value{};
      const auto payload =
          static_cast<unsigned>(magnitude >> (52 - Fraction)) & ((1u << Fraction) - 1);
      return static_cast<value>(sign |
                                (saturates ? all_ones : infinity | 1u << (Fraction - 1) | payload));
    }
    if (magnitude == not_finite) return static_cast<value>(sign | (saturates ? largest : infinity));
    // The exponent of the last place that the code has, no lower than a subnormal's.
    const int exponent = (std::max)(static_cast<int>(magnitude >> 52) - 1023, 1 - bias);
    const double steps = std::nearbyint(std::abs(x) * power_of_two(Fraction - exponent));
    // Steps beyond the fraction carry into the exponent by themselves.
    const double code = steps + static_cast<double>(exponent + bias - 1) * (1 << Fraction);
    const bool fits = code <= static_cast<double>(largest);
    return static_cast<value>(sign | (fits        ? static_cast<unsigned>(code)
                                      : saturates ? largest
                                                  : infinity));
  }
  static constexpr bool finite(value x) {
    if (Specials == specials::none) return true;
    constexpr unsigned all_ones = (1u << (Exponent + Fraction)) - 1;
    constexpr unsigned infinity = ((1u << Exponent) - 1) << Fraction;
    return (static_cast<unsigned>(x) & all_ones) <
           (Specials == specials::nan ? all_ones : infinity);
  }
  static double decode(value x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    const auto bits = static_cast<unsigned>(x);
    const unsigned fraction = bits & ((1u << Fraction) - 1);
    const auto exponent = static_cast<int>(bits >> Fraction & ((1u << Exponent) - 1));
    const double sign = bits >> (Exponent + Fraction) & 1u ? -1 : 1;
    constexpr int top = (1 << Exponent) - 1, all_ones = (1 << Fraction) - 1;
    if (exponent == top &&
        (Specials == specials::ieee || (Specials == specials::nan && fraction == all_ones))) {
      // Assembled from bits, so that it survives -ffast-math.
      const std::uint64_t wide = std::uint64_t{0x7ff} << 52 | std::uint64_t{sign < 0} << 63 |
                                 std::uint64_t{fraction} << (52 - Fraction);
      double special = 0;
      __builtin_memcpy(&special, &wide, sizeof special);
      return special;
    }
    return sign * (exponent
                       ? ((1 << Fraction) + fraction) * power_of_two(exponent - bias - Fraction)
                       : fraction * power_of_two(1 - bias - Fraction));
  }
};
/// bfloat16: the upper half of a float; range of float, 8 bits of precision.
struct bf16 : small_float<simd::code::bf16, simd::bf16_code, 8, 7, specials::ieee> {
  static constexpr const char* name = "bf16";
};
/// IEEE half precision: 11 bits of precision up to 65504.
struct f16 : small_float<simd::code::f16, std::uint16_t, 5, 10, specials::ieee> {
  static constexpr const char* name = "f16";
};
/// 8-bit floats of 4 bits precision, up to 448, with one scale per row that maps its largest
/// magnitude to 448 (Micikevicius et al. 2022).
struct fp8_e4m3 : small_float<simd::code::f8_e4m3, std::uint8_t, 4, 3, specials::nan> {
  static constexpr const char* name = "fp8_e4m3";
  static constexpr bool scaled = true;
  static constexpr double largest = 448;
};
/// 8-bit floats of 3 bits precision, up to 57344, with one scale per row likewise.
struct fp8_e5m2 : small_float<simd::code::f8_e5m2, std::uint8_t, 5, 2, specials::ieee> {
  static constexpr const char* name = "fp8_e5m2";
  static constexpr bool scaled = true;
  static constexpr double largest = 57344;
};

}  // namespace storage

LINNET_NAMESPACE_END
