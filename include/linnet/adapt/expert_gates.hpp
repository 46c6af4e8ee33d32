// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gates by which a router chooses the low-rank deltas of each row.

#include <cmath>

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// No router: all deltas count.
struct no_gates {
  static constexpr index experts = 0, top = 0;
};

/// The softmax of a router's scores counts for the `Top` largest of `Experts`, ties to the first.
template <index Experts, index Top>
struct expert_gates {
  static constexpr index experts = Experts, top = Top;

  /// Turns scores[Experts] into probabilities; those that do not count become negative.
  template <class T>
  static void choose(T* scores) {
    T most = scores[0], sum = 0;
    for (index e = 1; e < Experts; ++e) most = scores[e] > most ? scores[e] : most;
    for (index e = 0; e < Experts; ++e) sum += scores[e] = std::exp(scores[e] - most);
    for (index e = 0; e < Experts; ++e) scores[e] = -scores[e] / sum;
    for (index n = 0; n < Top; ++n) {
      index best = -1;
      for (index e = 0; e < Experts; ++e)
        if (!chosen(scores[e]) && (best < 0 || scores[e] < scores[best])) best = e;
      scores[best] = -scores[best];
    }
  }
  /// Whether an expert counts. A probability of 0 may, and adds nothing.
  template <class T>
  static bool chosen(T gate) {
    return gate > 0;
  }
  /// x[Experts, Rank] *= the gates of what counts, 0 for the rest.
  template <class T>
  static void apply(const T* gates, index rank, T* x) {
    for (index e = 0; e < Experts; ++e)
      for (index r = 0; r < rank; ++r) x[e * rank + r] *= chosen(gates[e]) ? gates[e] : T(0);
  }
  /// d_scores[Experts] of apply(), and dx, the derivative by its result, becomes that by its input.
  template <class T>
  static void backward(const T* gates, index rank, const T* x, T* dx, T* d_scores) {
    T mean = 0;
    for (index e = 0; e < Experts; ++e) {
      d_scores[e] = 0;
      for (index r = 0; chosen(gates[e]) && r < rank; ++r)
        d_scores[e] += dx[e * rank + r] * x[e * rank + r];
      mean += std::abs(gates[e]) * d_scores[e];
    }
    for (index e = 0; e < Experts; ++e) d_scores[e] = std::abs(gates[e]) * (d_scores[e] - mean);
    apply(gates, rank, dx);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
