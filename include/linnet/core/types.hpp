#pragma once
/// @file
/// The scalar vocabulary of the library: indices, tokens, small helpers.

#include <cstddef>
#include <cstdint>

#include <linnet/config/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// Signed size and index type used for every extent, row, column and count.
using index = std::ptrdiff_t;

/// A token id. Negative ids never reach a model; `ignored` marks label positions without loss.
using token = std::int32_t;

/// The label that contributes neither loss nor gradient (the value -100 of common data loaders).
inline constexpr token ignored = -100;

/// The smallest multiple of `step` that is not below `n`; both positive.
constexpr index round_up(index n, index step) { return (n + step - 1) / step * step; }

/// Whether a floating-point value is neither infinite nor NaN; looks at the bits, so it stays
/// right under -ffast-math.
inline bool is_finite(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}
/// @copydoc is_finite(float)
inline bool is_finite(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

LINNET_NAMESPACE_END
