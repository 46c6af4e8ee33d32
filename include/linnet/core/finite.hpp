// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tests for finite values and NaN that survive -ffast-math, and sums whose bits do not depend on
/// the compiler.

#include <linnet/core/scalars.hpp>

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
/// Whether a floating-point value is NaN; looks at the bits, as is_finite() does.
inline bool is_nan(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffffu) > 0x7f800000u;
}
/// @copydoc is_nan(float)
inline bool is_nan(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffffffffffffull) > 0x7ff0000000000000ull;
}

namespace detail {
/// The sum f(0) + ... + f(n - 1) in eight fixed lanes.
template <class F>
double sum_in_lanes(index n, F&& f) {
  double lane[8] = {};
  index i = 0;
  for (; i + 8 <= n; i += 8)
    for (index k = 0; k < 8; ++k) lane[k] += f(i + k);
  for (index k = 0; i + k < n; ++k) lane[k] += f(i + k);
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}
}  // namespace detail

LINNET_NAMESPACE_END
