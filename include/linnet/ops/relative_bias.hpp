// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// T5's buckets of relative positions.

#include <linnet/core/scalars.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// T5's bucket of a relative position key - query (Raffel et al. 2020, section 2.1). Buckets are
/// exact up to a quarter (bidirectional) or half (causal) of them, then logarithmic up to
/// `max_distance`.
constexpr index relative_bucket(index relative, bool bidirectional, index buckets,
                                index max_distance) {
  index base = 0, distance = relative > 0 ? 0 : -relative;
  if (bidirectional) {
    buckets /= 2;
    if (relative > 0) {
      base = buckets;
      distance = relative;
    }
  }
  const index exact = buckets / 2;
  if (distance < exact) return base + distance;
  // bucket = exact + trunc(log(distance/exact) / log(max/exact) * (buckets - exact)), found without
  // logarithms: the largest k with distance/exact >= (max/exact)^(k / (buckets - exact)), that is
  // (distance/exact)^(buckets - exact) >= (max/exact)^k.
  const index logarithmic = buckets - exact;
  double power = 1;
  for (index i = 0; i < logarithmic; ++i)
    power *= static_cast<double>(distance) / static_cast<double>(exact);
  const double step = static_cast<double>(max_distance) / static_cast<double>(exact);
  index k = 0;
  for (double threshold = step; k < logarithmic - 1 && power >= threshold * (1 - 1e-12);
       threshold *= step)
    ++k;
  return base + exact + k;
}

}  // namespace ops

LINNET_NAMESPACE_END
