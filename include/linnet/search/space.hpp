// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Spaces of model types, of which a search keeps those within a budget when it is compiled.

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/compress/shape_budget.hpp>

LINNET_NAMESPACE_BEGIN

/// An axis of a search_space: values of one number of the shape, such as
/// shape_axis<&decoder_shape::layers, 2, 4, 8>.
template <auto Member, index... Values>
struct shape_axis {
  static constexpr index size = sizeof...(Values);
  /// Gives `shape` value number `choice`.
  template <class Shape>
  static constexpr void set(Shape& shape, index choice) {
    constexpr std::array<index, sizeof...(Values)> all{Values...};
    shape.*Member = all[static_cast<std::size_t>(choice)];
  }
  template <class M, index>
  using apply = M;
};

/// An axis of a search_space: policies that take the place of the one that derives from `Slot`,
/// such as policy_axis<ffn::policy, ffn::swiglu, ffn::standard<>>.
template <class Slot, class... Policies>
struct policy_axis {
  static constexpr index size = sizeof...(Policies);
  template <class Shape>
  static constexpr void set(Shape&, index) {}
  /// Model `M` with policy number `Choice`.
  template <class M, index Choice>
  using apply = typename M::template with<
      Slot, std::tuple_element_t<static_cast<std::size_t>(Choice), std::tuple<Policies...>>>;
};

namespace detail {

template <class A>
inline constexpr bool is_axis = false;
template <auto Member, index... Values>
inline constexpr bool is_axis<shape_axis<Member, Values...>> = sizeof...(Values) > 0;
template <class Slot, class... Ps>
inline constexpr bool is_axis<policy_axis<Slot, Ps...>> = sizeof...(Ps) > 0;

/// Model `M` with the choices of all axes from number `At` on.
template <class M, class Space, index Number, std::size_t At = 0>
struct model_at {
  using axis = std::tuple_element_t<At, typename Space::axes>;
  using type = typename model_at<typename axis::template apply<M, Space::choices(Number)[At]>,
                                 Space, Number, At + 1>::type;
};
template <class M, class Space, index Number, std::size_t At>
requires(At == std::tuple_size_v<typename Space::axes>) struct model_at<M, Space, Number, At> {
  using type = M;
};

/// The members of search_space<Base, Axes...>.
template <class Base, class... Axes>
struct space_of_axes {
  using base = Base;
  using axes = std::tuple<Axes...>;
  using shape_type = std::remove_cvref_t<decltype(Base::shape)>;
  static constexpr index size = (index{1} * ... * Axes::size);

  /// The choice of each axis in model `number`.
  static constexpr std::array<index, sizeof...(Axes)> choices(index number) {
    constexpr std::array<index, sizeof...(Axes)> sizes{Axes::size...};
    std::array<index, sizeof...(Axes)> made{};
    for (std::size_t i = sizes.size(); i-- > 0;) {
      made[i] = number % sizes[i];
      number /= sizes[i];
    }
    return made;
  }
  /// The shape of model `number`.
  static constexpr shape_type shape(index number) {
    shape_type made = Base::shape;
    const auto all = choices(number);
    std::size_t i = 0;
    (Axes::set(made, all[i++]), ...);
    return made;
  }
  /// Whether the numbers of that shape go together. Heads of odd width, which rotary positions do
  /// not take, are left out whatever the positions are.
  static constexpr bool fits(index number) {
    const shape_type made = shape(number);
    if constexpr (requires { made.head_width(); })
      return made.valid() && made.head_width() % 2 == 0;
    else
      return made.valid();
  }
  /// Model `Number`, whose shape must fit.
  template <index Number>
  using model = typename detail::model_at<typename Base::template with_shape<shape(Number)>,
                                          space_of_axes, Number>::type;
};

}  // namespace detail

/// All models that come of model `Base` by one choice of each axis. They are numbered from 0; the
/// last axis changes first. The shape is changed before policies are, so the policies of `Base`
/// have to fit every shape.
template <class Base, class... Axes>
struct search_space
    : std::conditional_t<(detail::is_axis<Axes> && ...), detail::space_of_axes<Base, Axes...>,
                         detail::space_of_axes<Base>> {
  static_assert((detail::is_axis<Axes> && ...),
                "linnet::search_space: an argument is not an axis; give shape_axis<&shape::member, "
                "values...> or policy_axis<slot, policies...>, each with a choice");
};

/// The cost of a model of a space.
struct search_candidate {
  index number = 0;  ///< in its space
  index parameters = 0;
  index bytes = 0;  ///< of its weights as they are stored
  index flops = 0;  ///< of one forward call of shape_budget::length tokens

  bool operator==(const search_candidate&) const = default;
};

namespace detail {

/// Whether model `Number` of a space is within a budget, and what it costs.
template <class Space, shape_budget Budget, index Number>
consteval std::pair<bool, search_candidate> facts_in_space() {
  if constexpr (Space::fits(Number)) {
    using N = typename Space::template model<Number>;
    return {Budget.template holds<N>(),
            {Number, N::parameters(), weight_bytes<N>(),
             step_flops<N>(1, Budget.length, Budget.length)}};
  } else {
    return {false, {Number}};
  }
}
template <class Space, shape_budget Budget, std::size_t... Numbers>
consteval auto facts_of_space(std::index_sequence<Numbers...>) {
  return std::array<std::pair<bool, search_candidate>, sizeof...(Numbers)>{
      facts_in_space<Space, Budget, static_cast<index>(Numbers)>()...};
}

}  // namespace detail

/// The models of a space within a budget, known when the program is compiled. Those whose shape
/// does not fit are left out before a type of them is made. Models beyond the budget are counted
/// but nothing else of them is compiled.
template <class Space, shape_budget Budget>
class search {
  static constexpr auto all = detail::facts_of_space<Space, Budget>(
      std::make_index_sequence<static_cast<std::size_t>(Space::size)>{});

 public:
  using space = Space;
  static constexpr shape_budget budget = Budget;
  /// Number of models within the budget.
  static constexpr index size = [] {
    index count = 0;
    for (const auto& one : all) count += one.first;
    return count;
  }();
  static_assert(size > 0, "linnet::search: no model of this space is within the budget");
  /// Costs of these models, in the order of their numbers.
  static constexpr std::array<search_candidate, static_cast<std::size_t>(size)> candidates = [] {
    std::array<search_candidate, static_cast<std::size_t>(size)> made{};
    std::size_t i = 0;
    for (const auto& one : all)
      if (one.first) made[i++] = one.second;
    return made;
  }();
  /// Candidate number `Place` of these, not of the space.
  template <index Place>
  using model = typename Space::template model<candidates[static_cast<std::size_t>(Place)].number>;

  /// Calls f(std::type_identity<M>) with the model M of candidate `i`; nothing for others. So a
  /// number that is known at run time, such as successive_halving() has, becomes a type.
  template <class F>
  static constexpr void visit(index i, F&& f) {
    [&]<std::size_t... Numbers>(std::index_sequence<Numbers...>) {
      ((static_cast<index>(Numbers) == i
            ? f(std::type_identity<model<static_cast<index>(Numbers)>>{})
            : void()),
       ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(size)>{});
  }
};

LINNET_NAMESPACE_END
