// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The numbers that codes with one scale stand for.

#include <algorithm>
#include <cmath>
#include <limits>

#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The numbers that codes of storage `S` with one scale (and zero point or minimum) stand for.
template <class S>
struct code_grid {
  using value = typename S::value;
  float scale = 1, zero = 0;

  /// The grid that rounding to nearest gives `n` finite numbers; the one there is without scales.
  static code_grid fit(index n, const double* x) {
    code_grid g;
    if constexpr (S::ggml) {
      float numbers[S::group] = {};
      value codes[S::group] = {};
      for (index j = 0; j < n; ++j) numbers[j] = static_cast<float>(x[j]);
      S::round_block(n, numbers, codes, g.scale, g.zero);
    } else if constexpr (S::scaled) {
      double low = 0, high = 0;
      for (index j = 0; j < n; ++j) {
        low = (std::min)(low, x[j]);
        high = (std::max)(high, x[j]);
      }
      fit_range<S>(low, high, g.scale, &g.zero);
    }
    return g;
  }
  /// The code whose number is nearest to `x`, as encode_matrix() rounds.
  value nearest(double x) const {
    const auto step = static_cast<double>(scale), origin = static_cast<double>(zero);
    if constexpr (S::ggml) {
      return S::encode(scale != 0 ? (x - origin) / step : 0);
    } else if constexpr (S::centred) {
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
  /// Writes it as that of group `g` of row `r`.
  void store(index r, index g, index columns, const matrix_ref<S>& to) const {
    if constexpr (S::scaled) to.scales[r * row_scales<S>(columns) + g] = scale;
    if constexpr (S::centred) to.zeros[r * row_scales<S>(columns) + g] = zero;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
