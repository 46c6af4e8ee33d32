#pragma once
/// @file
/// Indices and tokens, and a test for finite values that survives -ffast-math.

#include <linnet/config/types.hpp>

LINNET_NAMESPACE_BEGIN

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
