// SPDX-License-Identifier: MIT
#include "accounting.hpp"

#include <utility>

namespace study {

namespace {

template <ln::t5_shape Shape, std::size_t... M>
constexpr auto costs(std::index_sequence<M...>) {
  return std::array{cost_pair{cost_of<Shape, recipe_of(model(M))>(),
                              cost_of<Shape, deployed(recipe_of(model(M)))>()}...};
}

constexpr auto narrow = costs<ln::zoo::shapes::t5_mini_kv32>(std::make_index_sequence<ablations>{});
constexpr auto wide_heads = costs<ln::zoo::shapes::t5_mini>(std::make_index_sequence<ablations>{});

static_assert(
    std::is_same_v<ln::collapsed<built_from<ln::zoo::shapes::t5_mini, recipe_of(model::three_1_2)>>,
                   built_from<ln::zoo::shapes::t5_mini, deployed(recipe_of(model::three_1_2))>>);

}  // namespace

cost_pair mini_cost(model m, bool wide) {
  return (wide ? wide_heads : narrow)[static_cast<std::size_t>(m)];
}

}  // namespace study
