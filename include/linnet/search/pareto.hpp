// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pareto fronts: candidates that no other is better than in everything.

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

/// The numbers of the points that no other point dominates. They are in rising order of their
/// costs, the first cost first; of equal points all stay, in their order. A point dominates another
/// if none of its costs is larger and one is smaller. Points with a cost that is not finite are
/// left out. Takes n log n steps for two costs. Errors: errc::out_of_memory.
template <std::size_t K>
result<std::vector<index>> pareto_front(std::span<const std::array<double, K>> points) LINNET_TRY {
  static_assert(K > 0, "linnet::pareto_front: give a point one cost at least");
  const auto cost = [&](index i) -> const std::array<double, K>& {
    return points[static_cast<std::size_t>(i)];
  };
  std::vector<index> order, front;
  for (index i = 0; i < std::ssize(points); ++i)
    if (std::all_of(cost(i).begin(), cost(i).end(), [](double x) { return is_finite(x); }))
      order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return cost(a) < cost(b); });
  const auto dominates = [&](index a, index b) {
    for (std::size_t k = 0; k < K; ++k)
      if (cost(a)[k] > cost(b)[k]) return false;
    return cost(a) != cost(b);
  };
  for (const index i : order) {
    // Only earlier points can dominate; of two costs the last of the front has the lowest second.
    const auto first = K <= 2 && !front.empty() ? front.end() - 1 : front.begin();
    if (std::none_of(first, front.end(), [&](index other) { return dominates(other, i); }))
      front.push_back(i);
  }
  return front;
}
LINNET_OR_OUT_OF_MEMORY("pareto_front")

LINNET_NAMESPACE_END
