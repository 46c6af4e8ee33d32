#pragma once
/// @file
/// Storage types: how a weight is kept in memory. A storage type is a template argument of a
/// model; kernels read weights as they are stored.

#include <cmath>

#include <linnet/simd/operands.hpp>

LINNET_NAMESPACE_BEGIN

/// The ways a weight matrix can be stored.
namespace storage {

/// IEEE single precision: exact master weights.
struct f32 {
  using value = float;                   ///< one stored code
  static constexpr bool scaled = false;  ///< whether each output row carries a scale
  static constexpr const char* name = "f32";
  static value encode(double x) { return static_cast<float>(x); }
  static double decode(value x) { return x; }
};

/// IEEE double precision, for checks.
struct f64 {
  using value = double;
  static constexpr bool scaled = false;
  static constexpr const char* name = "f64";
  static value encode(double x) { return x; }
  static double decode(value x) { return x; }
};

/// bfloat16: the upper half of a float, rounded to nearest even; range of float, 8 bits precision.
struct bf16 {
  using value = simd::bf16_code;
  static constexpr bool scaled = false;
  static constexpr const char* name = "bf16";
  static value encode(double x) {
    const auto f = static_cast<float>(x);
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
      return static_cast<value>((bits >> 16) | 0x40u);  // quiet NaN
    return static_cast<value>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
  static double decode(value x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float f = 0;
    __builtin_memcpy(&f, &bits, sizeof f);
    return f;
  }
};

/// 8-bit integers, symmetric, one scale per output row: x = scale * code, |code| <= 127,
/// scale = max|x| / 127 (1 for a row of zeros), round half to even.
struct int8 {
  using value = std::int8_t;
  static constexpr bool scaled = true;
  static constexpr const char* name = "int8";
  /// The scale of a row whose largest magnitude is `largest`.
  static float scale(double largest) {
    return largest > 0 ? static_cast<float>(largest / 127.0) : 1.0f;
  }
  /// The code of `x` in units of the row's scale.
  static value encode(double x) {
    const double r = std::nearbyint(x);
    return static_cast<value>(r > 127 ? 127 : r < -127 ? -127 : r);
  }
  static double decode(value x) { return x; }
};

}  // namespace storage

/// Bytes of an [rows, cols] matrix in storage `S`, scales included.
template <class S>
constexpr index matrix_bytes(index rows, index cols) {
  return rows * cols * static_cast<index>(sizeof(typename S::value)) +
         (S::scaled ? rows * static_cast<index>(sizeof(float)) : 0);
}

LINNET_NAMESPACE_END
