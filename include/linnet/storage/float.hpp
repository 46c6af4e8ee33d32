// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage without rounding: float and double.

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

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

}  // namespace storage

LINNET_NAMESPACE_END
