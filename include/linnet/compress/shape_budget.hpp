// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Budgets of a model: parameters, bytes and operations, known when a program is compiled.

#include <linnet/compress/quantize.hpp>
#include <linnet/model/calls.hpp>

LINNET_NAMESPACE_BEGIN

/// The most that a model may cost, such as a narrowed one or a candidate of a search.
struct shape_budget {
  index bytes = index{1} << 60;       ///< of its weights as they are stored
  index flops = index{1} << 60;       ///< of one forward call of `length` tokens
  index length = 1;                   ///< tokens of that call: of T5, source and target
  index parameters = index{1} << 60;  ///< that are trained; shared ones count once
  index least_parameters = 0;         ///< fewer than so many are refused, too

  /// Whether model `N` is within the budget.
  template <class N>
  consteval bool holds() const {
    return N::parameters() <= parameters && N::parameters() >= least_parameters &&
           weight_bytes<N>() <= bytes && detail::step_flops<N>(1, length, length) <= flops;
  }
};

LINNET_NAMESPACE_END
