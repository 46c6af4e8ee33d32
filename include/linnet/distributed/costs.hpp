// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Costs of the stages of sharing, by the formulas of their paper (Rajbhandari et al. 2020).
/// Knows no MPI.

#include <cassert>

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

/// Costs of a stage of sharing for a rank, beside activations.
struct zero_costs {
  double bytes = 0;  ///< of parameters and gradients in 16 bits, and of Adam's state: master
                     ///< weights and two moments in f32
  double sent = 0;   ///< values that it sends in a step; 2 or 3 times the parameters for many ranks
};
/// Costs of a stage for one of `ranks` ranks (Rajbhandari et al. 2020, figure 1 and section 7). In
/// stage 0 each has all; 1 shares out the optimizer's state, 2 also gradients, 3 also parameters.
constexpr zero_costs costs_of_zero(int stage, double parameters, double ranks) {
  assert(stage >= 0 && stage <= 3 && ranks >= 1);
  constexpr double whole[] = {16, 4, 2, 0}, shared[] = {0, 12, 14, 16};
  const double passes = stage == 3 ? 3 : 2;  // of all parameters: sums, and gathered values
  return {whole[stage] * parameters + shared[stage] * parameters / ranks,
          passes * parameters * (ranks - 1) / ranks};
}

LINNET_NAMESPACE_END
