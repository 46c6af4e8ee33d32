#pragma once
/// @file
/// Storage types: how a weight is kept in memory. A storage type is a template argument of a
/// model; kernels read weights as they are stored.

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include <linnet/simd/operands.hpp>

LINNET_NAMESPACE_BEGIN

/// What the inputs of a matrix product are rounded to before it: the compute type of a model.
namespace activation {
/// Base of the compute types.
struct policy {};
/// Not at all: products in the model's scalar type.
struct f32 : policy {};
/// bfloat16 to nearest even; sums in f32. Weights must be stored as bf16.
struct bf16 : policy {};
/// int8 with one scale per token, found at run time (W8A8, zoo E13); sums in int32, exact. Weights
/// must be stored as 8-bit integers with one scale per row or tensor.
struct int8 : policy {};
}  // namespace activation

/// The ways a weight matrix [out, in] can be stored.
namespace storage {

/// What a scale is shared by.
enum class granularity {
  tensor,  ///< a whole matrix
  row,     ///< the weights of one output feature
  group    ///< consecutive inputs of one output feature
};
/// Where the codes of an integer storage lie.
enum class symmetry {
  symmetric,  ///< x = scale * code, codes from -max to max
  asymmetric  ///< x = scale * (code - zero), codes from 0, the range extended to hold 0
};

/// Whether `x` is a NaN; looks at the bits, so it stays right under -ffast-math.
inline bool is_nan(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & ~(std::uint64_t{1} << 63)) > std::uint64_t{0x7ff} << 52;
}
/// The whole number nearest to `x` from `low` to `high`, half to even; 0 for a NaN.
inline double nearest_whole(double x, double low, double high) {
  return is_nan(x) ? 0 : (std::clamp)(std::nearbyint(x), low, high);
}

/// What all storage types have in common; a type overrides what differs.
struct policy {
  using activation = linnet::activation::f32;  ///< see with_activation
  static constexpr bool scaled = false;        ///< whether codes come with scales
  static constexpr bool centred = false;       ///< whether they also come with zero points
  static constexpr bool per_tensor = false;    ///< whether all scales of a matrix are the same
  static constexpr index group = 0;            ///< inputs that share a scale; 0 for a whole row
  static constexpr index per_value = 1;        ///< codes in one `value` of a canonical row
};
/// Storage of whole numbers: what is in a row is what kernels read.
template <class Real>
struct real : policy {
  using value = Real;  ///< one stored number
  using word = Real;   ///< what packed panels are made of
  static constexpr index per_word = 1;
  /// Whether a stored number is neither infinite nor NaN.
  static bool finite(value x) { return is_finite(x); }
};
/// Storage of codes that kernels decode: packed panels are words of several codes.
template <class Value, simd::code Code>
struct coded : policy {
  using value = Value;
  using word = simd::word;
  static constexpr simd::code code = Code;
  static constexpr int origin = 0;  ///< packed code of the canonical code 0
  static constexpr index per_word = 32 / simd::bits_of(Code);
  /// Whether a code is neither infinite nor NaN: every integer and every table entry.
  static constexpr bool finite(value) { return true; }
};

/// IEEE single precision: exact master weights.
struct f32 : real<float> {
  static constexpr const char* name = "f32";
  static value encode(double x) { return static_cast<float>(x); }
  static double decode(value x) { return x; }
};
/// IEEE double precision, for checks.
struct f64 : real<double> {
  static constexpr const char* name = "f64";
  static value encode(double x) { return x; }
  static double decode(value x) { return x; }
};

/// Small binary floating-point numbers; `Exponent` and `Fraction` count bits. Round to nearest,
/// ties to even; what is too large saturates if `Finite` (no infinities: the OCP e4m3), else
/// becomes infinite.
template <simd::code Code, class Value, int Exponent, int Fraction, bool Finite>
struct small_float : coded<Value, Code> {
  using value = Value;
  static value encode(double x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    constexpr unsigned sign_bit = 1u << (Exponent + Fraction);
    constexpr unsigned all_ones = sign_bit - 1, infinity = ((1u << Exponent) - 1) << Fraction;
    constexpr unsigned largest = Finite ? all_ones - 1 : infinity - 1;
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const unsigned sign = bits >> 63 ? sign_bit : 0u;
    const std::uint64_t magnitude = bits & ~(std::uint64_t{1} << 63);
    constexpr std::uint64_t not_finite = std::uint64_t{0x7ff} << 52;
    if (magnitude > not_finite) {  // a NaN, made quiet
      const auto payload =
          static_cast<unsigned>(magnitude >> (52 - Fraction)) & ((1u << Fraction) - 1);
      return static_cast<value>(sign |
                                (Finite ? all_ones : infinity | 1u << (Fraction - 1) | payload));
    }
    if (magnitude == not_finite) return static_cast<value>(sign | (Finite ? largest : infinity));
    // The exponent of the last place that the code has, no lower than a subnormal's.
    const int exponent = (std::max)(static_cast<int>(magnitude >> 52) - 1023, 1 - bias);
    const double steps = std::nearbyint(std::ldexp(std::abs(x), Fraction - exponent));
    // Steps beyond the fraction carry into the exponent by themselves.
    const double code = steps + static_cast<double>(exponent + bias - 1) * (1 << Fraction);
    const bool fits = code <= static_cast<double>(largest);
    return static_cast<value>(sign | (fits     ? static_cast<unsigned>(code)
                                      : Finite ? largest
                                               : infinity));
  }
  static constexpr bool finite(value x) {
    constexpr unsigned all_ones = (1u << (Exponent + Fraction)) - 1;
    constexpr unsigned infinity = ((1u << Exponent) - 1) << Fraction;
    return (static_cast<unsigned>(x) & all_ones) < (Finite ? all_ones : infinity);
  }
  static double decode(value x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    const auto bits = static_cast<unsigned>(x);
    const unsigned fraction = bits & ((1u << Fraction) - 1);
    const auto exponent = static_cast<int>(bits >> Fraction & ((1u << Exponent) - 1));
    const double sign = bits >> (Exponent + Fraction) & 1u ? -1 : 1;
    constexpr int top = (1 << Exponent) - 1, all_ones = (1 << Fraction) - 1;
    if (exponent == top && (!Finite || fraction == all_ones)) {
      // Assembled from bits, so that it survives -ffast-math.
      const std::uint64_t wide = std::uint64_t{0x7ff} << 52 | std::uint64_t{sign < 0} << 63 |
                                 std::uint64_t{fraction} << (52 - Fraction);
      double special = 0;
      __builtin_memcpy(&special, &wide, sizeof special);
      return special;
    }
    return sign * (exponent ? std::ldexp((1 << Fraction) + fraction, exponent - bias - Fraction)
                            : std::ldexp(fraction, 1 - bias - Fraction));
  }
};
/// bfloat16: the upper half of a float; range of float, 8 bits of precision.
struct bf16 : small_float<simd::code::bf16, simd::bf16_code, 8, 7, false> {
  static constexpr const char* name = "bf16";
};
/// IEEE half precision: 11 bits of precision up to 65504.
struct f16 : small_float<simd::code::f16, std::uint16_t, 5, 10, false> {
  static constexpr const char* name = "f16";
};
/// 8-bit floats of 4 bits precision, up to 448, with one scale per row that maps its largest
/// magnitude to 448 (zoo E2).
struct fp8_e4m3 : small_float<simd::code::f8_e4m3, std::uint8_t, 4, 3, true> {
  static constexpr const char* name = "fp8_e4m3";
  static constexpr bool scaled = true;
  static constexpr double largest = 448;
};
/// 8-bit floats of 3 bits precision, up to 57344, with one scale per row likewise.
struct fp8_e5m2 : small_float<simd::code::f8_e5m2, std::uint8_t, 5, 2, false> {
  static constexpr const char* name = "fp8_e5m2";
  static constexpr bool scaled = true;
  static constexpr double largest = 57344;
};

/// 8-bit integers (zoo E1), round half to even. Symmetric: |code| <= 127, scale = max|x| / 127.
/// Asymmetric: codes 0 to 255 and a zero point. `Group` counts the inputs that share a scale.
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

/// 4-bit integers, symmetric, |code| <= 7, one scale for each `Group` inputs of a row; two codes in
/// a byte, the first in the low half (zoo E1).
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

/// 4-bit codes of normal quantiles with one scale for each 64 inputs of a row (Dettmers et al.
/// 2023, zoo E2); two codes in a byte, the first in the low half.
struct nf4 : coded<std::uint8_t, simd::code::nf4> {
  static constexpr const char* name = "nf4";
  static constexpr bool scaled = true;
  static constexpr index group = 64, per_value = 2;
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

/// Whether storage `S` keeps codes of this kind.
template <class S>
constexpr bool keeps(simd::code kind) {
  if constexpr (S::per_word > 1)
    return S::code == kind;
  else
    return false;
}

/// Storage `S` whose products round their inputs to `A` first.
template <class S, class A>
struct with_activation : S {
  static_assert(!std::is_same_v<A, linnet::activation::bf16> || keeps<S>(simd::code::bf16),
                "linnet: activation::bf16 multiplies weights stored as storage::bf16");
  static_assert(
      !std::is_same_v<A, linnet::activation::int8> || (keeps<S>(simd::code::u8) && S::group == 0),
      "linnet: activation::int8 multiplies 8-bit integer weights with one scale per row or tensor");
  using activation = A;
};

}  // namespace storage

/// Values that hold one canonical row of `columns` codes.
template <class S>
constexpr index row_values(index columns) {
  return (columns + S::per_value - 1) / S::per_value;
}
/// Scales (and zero points) of one row of `columns` inputs.
template <class S>
constexpr index row_scales(index columns) {
  if constexpr (S::group > 0)
    return (columns + S::group - 1) / S::group;
  else
    return S::scaled ? 1 : 0;
}
/// Which of a row's scales belongs to column `j`.
template <class S>
constexpr index group_of(index j) {
  return S::group == 0 ? 0 : j / S::group;
}
/// Bytes of an [rows, columns] matrix in storage `S`, scales and zero points included.
template <class S>
constexpr index matrix_bytes(index rows, index columns) {
  return rows * (row_values<S>(columns) * static_cast<index>(sizeof(typename S::value)) +
                 row_scales<S>(columns) * static_cast<index>(sizeof(float)) * (S::centred ? 2 : 1));
}

/// A canonical matrix [rows, columns] in storage `S`: what files, optimizers and transformations
/// see.
template <class S>
struct matrix_ref {
  typename S::value* data = nullptr;  ///< [rows, row_values]
  float* scales = nullptr;            ///< [rows, row_scales] where the storage is scaled
  float* zeros = nullptr;             ///< likewise where it is centred

  /// The code at row `r`, column `j`, in the low bits.
  typename S::value code(index r, index j, index columns) const {
    const typename S::value x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      return j % 2 ? x >> 4 : x & 15;
    else
      return x;
  }
  /// Stores it; the codes of a row come in ascending order.
  void set_code(index r, index j, index columns, typename S::value code) const {
    typename S::value& x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      x = j % 2 ? static_cast<typename S::value>(x | code << 4) : code;
    else
      x = code;
  }
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    double x = S::decode(code(r, j, columns));
    if constexpr (S::scaled) {
      const index g = r * row_scales<S>(columns) + group_of<S>(j);
      if constexpr (S::centred) x -= static_cast<double>(zeros[g]);
      x *= static_cast<double>(scales[g]);
    }
    return x;
  }
};

namespace detail {

/// The scale (and zero point) that fits numbers between `low` and `high`; 1 where all are zero.
template <class S>
void fit_range(double low, double high, float& scale, float* zero) {
  using numbers = std::numeric_limits<float>;
  const double range = S::centred ? (std::max)(high, 0.0) - (std::min)(low, 0.0)
                                  : (std::max)(std::abs(low), std::abs(high));
  scale = static_cast<float>(range / S::largest);
  // Rounding moves a subnormal scale far, and the largest one beyond what a float holds.
  const double reached = static_cast<double>(scale) * S::largest;
  if (scale < (numbers::min)() && reached < range) scale = std::nextafter(scale, 1.0f);
  if (!S::centred && reached > static_cast<double>((numbers::max)()))
    scale = std::nextafter(scale, 0.0f);
  if (!(scale > 0)) scale = 1;
  if constexpr (S::centred)
    *zero = static_cast<float>((std::clamp)(
        std::nearbyint(-(std::min)(low, 0.0) / static_cast<double>(scale)), 0.0, S::largest));
}

/// Rounds `x`[rows, columns] to storage `S`. What shares a scale with a number that is not finite
/// gets the scale NaN.
template <class S, class T>
void encode_matrix(index rows, index columns, const T* x, const matrix_ref<S>& to) {
  const index per_row = row_scales<S>(columns);
  [[maybe_unused]] const auto range = [&](const T* from, index n, index at) {
    if constexpr (S::scaled) {
      double low = 0, high = 0;
      bool finite = true;
      for (index j = 0; j < n; ++j) {
        finite = finite && is_finite(from[j]);
        low = (std::min)(low, static_cast<double>(from[j]));
        high = (std::max)(high, static_cast<double>(from[j]));
      }
      if (finite)
        fit_range<S>(low, high, to.scales[at], S::centred ? to.zeros + at : nullptr);
      else
        to.scales[at] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  if constexpr (S::per_tensor) range(x, rows * columns, 0);
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    if constexpr (S::per_tensor) {
      to.scales[r] = to.scales[0];
      if constexpr (S::centred) to.zeros[r] = to.zeros[0];
    } else if constexpr (S::scaled) {
      for (index g = 0; g < per_row; ++g) {
        const index first = g * S::group;
        range(row + first, S::group ? (std::min)(S::group, columns - first) : columns,
              r * per_row + g);
      }
    }
    for (index j = 0; j < columns; ++j) {
      double v = static_cast<double>(row[j]);
      if constexpr (S::scaled) {
        const index g = r * per_row + group_of<S>(j);
        const auto scale = static_cast<double>(to.scales[g]);
        v /= scale;
        if constexpr (S::centred) {
          // No further than a float reaches.
          const double most =
              std::floor(static_cast<double>((std::numeric_limits<float>::max)()) / scale);
          v = storage::nearest_whole(v, -most, most) + static_cast<double>(to.zeros[g]);
        }
      }
      to.set_code(r, j, columns, S::encode(v));
    }
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
