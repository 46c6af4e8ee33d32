// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in the numbers -1, 0 and 1 times one scale.

#include <algorithm>
#include <cmath>

#include <linnet/storage/grouped.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// -1, 0 or 1 times one scale for the whole matrix, its mean magnitude (BitNet b1.58, Ma et al.
/// 2024). Four codes share a byte. Weights that were trained so keep what they learned; others lose
/// nearly all of it.
struct ternary : grouped<2, 0> {
  static constexpr const char* name = "ternary";
  static constexpr bool per_tensor = true;
  /// The scale of `n` numbers: their mean magnitude, at least 1e-5.
  template <class T>
  static float fit_scale(index n, const T* x) {
    double sum = 0;
    for (index i = 0; i < n; ++i) sum += std::abs(static_cast<double>(x[i]));
    return static_cast<float>((std::max)(1e-5, sum / static_cast<double>(n)));
  }
};

}  // namespace storage

LINNET_NAMESPACE_END
