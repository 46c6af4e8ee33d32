// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pruning in rounds: narrow, recover, and find the next scores in what is left (Muralidharan et
/// al. 2024, Minitron).

#include <type_traits>
#include <utility>

#include <linnet/compress/shape_search.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// `Shape`, whose eps is that of model `Origin`, for a model `M` that was cut from it.
template <class Origin, class M, auto Shape>
constexpr auto shape_of_round() {
  auto s = Shape;
  if (s.eps == Origin::shape.eps) s.eps = M::shape.eps;
  return s;
}
template <class Origin, class M, auto... Shapes>
struct narrowed_by_turns {
  using type = M;
};
template <class Origin, class M, auto First, auto... Rest>
struct narrowed_by_turns<Origin, M, First, Rest...>
    : narrowed_by_turns<Origin, narrowed<M, shape_of_round<Origin, M, First>()>, Rest...> {};

template <class M, shape_budget Budget, auto... Shapes>
consteval index number_of_largest() {
  index number = 0, found = -1, most = -1;
  const auto look = [&](bool holds, index cost) {
    if (holds && cost > most) {
      found = number;
      most = cost;
    }
    ++number;
  };
  (look(Budget.template holds<narrowed<M, Shapes>>(), narrowed<M, Shapes>::flops(1, Budget.length)),
   ...);
  return found;
}

}  // namespace detail

/// Model `M` after it was narrowed to each of these shapes in turn.
template <class M, auto... Shapes>
using narrowed_in_rounds = typename detail::narrowed_by_turns<M, M, Shapes...>::type;

/// The number, from 0, of the shape that takes the most operations of those within a budget; of
/// equal ones the first. It is known when the program is compiled.
template <class M, shape_budget Budget, auto... Shapes>
consteval index largest_shape() {
  constexpr index found = detail::number_of_largest<M, Budget, Shapes...>();
  static_assert(found >= 0, "linnet::largest_shape: none of these shapes is within the budget");
  return found;
}

namespace detail {

template <class Origin, auto First, auto... Rest, class M, class T, class Scores, class Recover>
result<weights<typename narrowed_by_turns<Origin, M, First, Rest...>::type, T>> narrow_by_turns(
    const weights<M, T>& w, Scores& scores, Recover& recover, index round) {
  const auto found = scores(w);
  if (!found) return found.error();
  auto cut = narrow<shape_of_round<Origin, M, First>()>(w, *found);
  if (!cut) return cut.error();
  if (const result<void> done = recover(round, *cut); !done) return done.error();
  if constexpr (sizeof...(Rest) == 0)
    return cut;
  else
    return narrow_by_turns<Origin, Rest...>(*cut, scores, recover, round + 1);
}

}  // namespace detail

/// Narrows `w` to each of the shapes in turn, each smaller than the one before. In each round
/// scores(weights) returns a result<importance<M>> of what is there. Then recover(round, weights)
/// changes what was cut in place and returns a result<void>, as recovery() does. Rounds count
/// from 0. Shapes have the eps of model `M`. Errors: those of narrow(), `scores` and `recover`.
template <auto First, auto... Rest, class M, class T, class Scores, class Recover>
result<weights<narrowed_in_rounds<M, First, Rest...>, T>> narrow_in_rounds(const weights<M, T>& w,
                                                                           Scores&& scores,
                                                                           Recover&& recover) {
  return detail::narrow_by_turns<M, First, Rest...>(w, scores, recover, 0);
}

LINNET_NAMESPACE_END
