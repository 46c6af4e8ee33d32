// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Plain numbers that training rounds to small floats: weights, inputs and gradients of products.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <linnet/storage/float.hpp>
#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// f32 numbers of a trainer in `A`, compute::f16 or compute::fp8: what products read, forward and
/// backward, is rounded.
template <class A>
struct mixed_precision : f32 {
  using compute = A;
  static constexpr bool delayed = std::is_same_v<A, linnet::compute::fp8>;
  using forward = std::conditional_t<delayed, fp8_e4m3, f16>;
  using backward = std::conditional_t<delayed, fp8_e5m2, f16>;
  static constexpr const char* name = "mixed-precision";
};

}  // namespace storage

/// Scales of what the products of a matrix read in 8-bit training: the largest number over the
/// largest magnitude of the last steps (delayed scaling).
struct delayed_scales {
  static constexpr int steps = 16;  ///< that are looked back on

  /// Scale of one tensor.
  struct one {
    float scale = 0;            ///< 0 before the first step, which takes 1
    std::uint32_t largest = 0;  ///< bits of the largest magnitude of this step
    float history[steps] = {};  ///< of the last steps

    float factor() const { return scale > 0 ? scale : 1; }
    /// Takes in the magnitude of a step that ends, which was step `t`.
    void advance(index t, double most) {
      float now = 0;
      __builtin_memcpy(&now, &largest, sizeof now);
      largest = 0;
      if (!is_finite(now)) return;
      history[t % steps] = now;
      const float all = *std::max_element(history, history + steps);
      if (all > 0) scale = static_cast<float>((std::min)(most / static_cast<double>(all), 1e30));
    }
  };
  one input{}, gradient{};
};

namespace detail {

/// Whether training in storage `S` rounds to small floats.
template <class S>
inline constexpr bool is_mixed_precision = false;
template <class A>
inline constexpr bool is_mixed_precision<storage::mixed_precision<A>> = true;

/// Where the scales of a matrix are; nothing for storages without.
template <class S>
struct scales_place {};
template <>
struct scales_place<storage::mixed_precision<compute::fp8>> {
  delayed_scales* at = nullptr;
};

/// x rounded to `Q` in units of 1 / `scale`. With `Saturates`, what is too large becomes the
/// largest number. What is not finite stays so.
template <class Q, bool Saturates>
float rounded_to(float x, float scale) {
  if (!is_finite(x)) return x;
  double y = static_cast<double>(x) * static_cast<double>(scale);
  if constexpr (Saturates) y = (std::clamp)(y, -Q::largest, Q::largest);
  return static_cast<float>(Q::decode(Q::encode(y)) / static_cast<double>(scale));
}

}  // namespace detail

LINNET_NAMESPACE_END
