// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The numbers that codes with one scale stand for.

#include <algorithm>
#include <cmath>
#include <limits>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

/// Whether a number is scale * code + minimum, with minima in place of zero points.
template <class S>
inline constexpr bool has_minima = (S::ggml && S::centred);

namespace detail {

/// Scale (and zero point) for numbers between `low` and `high`; 1 if all are zero.
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

/// A scale and a zero point that is no code.
struct real_grid_numbers {
  double scale, zero;
};
/// The grid for numbers from `low` to `high` in codes from 0 to `most`; it need not hold 0.
inline real_grid_numbers real_grid(double low, double high, double most) {
  const double scale = (high - low) / most;
  if (scale > 0) return {scale, -low / scale};
  if (low == 0) return {1, 0};
  return {std::abs(low), low > 0 ? 0.0 : 1.0};  // all are the same: code 1, or 0
}

/// Makes the scales of each S::rows_together rows differ by powers of two. Each becomes the least
/// that is no smaller than before. `scale(r)` is a reference to that of row `r`; one that is not
/// finite stays.
template <class S, class F>
void relate_scales([[maybe_unused]] index rows, [[maybe_unused]] F&& scale) {
  if constexpr (S::rows_together > 1)
    for (index first = 0; first < rows; first += S::rows_together) {
      const index last = (std::min)(rows, first + S::rows_together);
      float most = 0;
      for (index r = first; r < last; ++r)
        if (is_finite(scale(r))) most = (std::max)(most, scale(r));
      for (index r = first; r < last; ++r)
        if (is_finite(scale(r))) {
          const double ratio = static_cast<double>(most) / static_cast<double>(scale(r));
          // No smaller than the floats that have all their digits, where there is a choice.
          const int most_halves = (std::max)(0, std::ilogb(most) + 126);
          scale(r) = std::ldexp(most, -(std::min)(std::ilogb(ratio), most_halves));
        }
    }
}

/// The numbers that codes of storage `S` with one scale (and zero point or minimum) stand for.
template <class S>
struct code_grid {
  using value = typename S::value;
  float scale = 1, zero = 0;

  /// The grid that rounding to nearest gives `n` finite numbers; the one there is without scales.
  template <class T>
  static code_grid fit(index n, const T* x) {
    code_grid g;
    if constexpr (S::ggml) {
      float numbers[S::group] = {};
      value codes[S::group] = {};
      for (index j = 0; j < n; ++j) numbers[j] = static_cast<float>(x[j]);
      S::round_block(n, numbers, codes, g.scale, g.zero);
    } else if constexpr (requires { S::fit_scale(n, x); }) {
      g.scale = S::fit_scale(n, x);
    } else if constexpr (S::real_zeros) {
      double low = n > 0 ? static_cast<double>(x[0]) : 0, high = low;
      for (index j = 1; j < n; ++j) {
        low = (std::min)(low, static_cast<double>(x[j]));
        high = (std::max)(high, static_cast<double>(x[j]));
      }
      const real_grid_numbers numbers = real_grid(low, high, S::largest);
      g.scale = static_cast<float>(numbers.scale);
      g.zero = static_cast<float>(numbers.zero);
      if (!(g.scale > 0)) g = {1, 0};
    } else if constexpr (S::scaled) {
      double low = 0, high = 0;
      for (index j = 0; j < n; ++j) {
        low = (std::min)(low, static_cast<double>(x[j]));
        high = (std::max)(high, static_cast<double>(x[j]));
      }
      fit_range<S>(low, high, g.scale, &g.zero);
    }
    return g;
  }
  /// The code whose number is nearest to `x`.
  value nearest(double x) const {
    const auto step = static_cast<double>(scale), origin = static_cast<double>(zero);
    if constexpr (S::ggml) {
      return S::encode(scale != 0 ? (x - origin) / step : 0);
    } else if constexpr (S::real_zeros) {
      return S::encode(x / step + origin);
    } else if constexpr (S::centred) {
      // No further than a float reaches.
      const double most =
          std::floor(static_cast<double>((std::numeric_limits<float>::max)()) / step);
      return S::encode(storage::nearest_whole(x / step, -most, most) + origin);
    } else if constexpr (S::scaled) {
      return S::encode(x / step);
    } else {
      return S::encode(x);
    }
  }
  /// The number of a code.
  double at(value code) const {
    double x = S::decode(code);
    if constexpr (S::scaled) {
      if constexpr (S::centred && !S::ggml) x -= static_cast<double>(zero);
      x *= static_cast<double>(scale);
      if constexpr (has_minima<S>) x += static_cast<double>(zero);
    }
    return x;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
