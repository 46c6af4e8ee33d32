// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Search over shapes within a budget (Muralidharan et al. 2024, Minitron).

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/compress/narrow.hpp>
#include <linnet/compress/quantize.hpp>
#include <linnet/compress/shape_budget.hpp>

LINNET_NAMESPACE_BEGIN

/// One shape that was tried.
struct shape_trial {
  index candidate = 0;  ///< its number among the shapes
  index bytes = 0, flops = 0;
  double loss = 0;
};

/// Narrows `w` to each of the `Shapes` within the budget and asks judge(weights) for its loss. That
/// may be the loss on held-out text, before recovery or after some steps of it. Returns the trials,
/// the lowest loss first, of equal ones the fewest bytes. What a shape costs is known when it is
/// compiled: models beyond the budget are not instantiated. Errors: those of narrow() and `judge`,
/// which may return a result; errc::invalid for a loss that is not finite.
template <shape_budget Budget, auto... Shapes, class M, class T, class Judge>
result<std::vector<shape_trial>> try_shapes(const weights<M, T>& w, const importance<M>& scores,
                                            Judge&& judge) LINNET_TRY {
  static_assert((Budget.template holds<narrowed<M, Shapes>>() || ...),
                "linnet::try_shapes: none of these shapes is within the budget");
  std::vector<shape_trial> made;
  error wrong{};
  index number = 0;
  const auto one = [&]<class N, auto Shape>(std::type_identity<N>) {
    const index candidate = number++;
    if constexpr (Budget.template holds<N>()) {
      const auto cut = narrow<Shape>(w, scores);
      if (!cut) return wrong = cut.error(), false;
      const result<double> loss = judge(*cut);
      if (!loss) return wrong = loss.error(), false;
      if (!is_finite(*loss))
        return wrong = {errc::invalid, "try_shapes", "loss of shape " + std::to_string(candidate),
                        "a finite number", "a NaN or an infinity"},
               false;
      made.push_back({candidate, weight_bytes<N>(), N::flops(1, Budget.length), *loss});
    }
    return true;
  };
  if (!(one.template operator()<narrowed<M, Shapes>, Shapes>({}) && ...)) return wrong;
  std::stable_sort(made.begin(), made.end(), [](const shape_trial& a, const shape_trial& b) {
    return a.loss < b.loss || (a.loss <= b.loss && a.bytes < b.bytes);
  });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("try_shapes")

LINNET_NAMESPACE_END
