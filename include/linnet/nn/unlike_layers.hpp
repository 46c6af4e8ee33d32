// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Parameters of layers of one type that are stored in several ways, see storage::layers.

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/nn/chain.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// `N` layers, numbered from `First` in a stack of `All`, with storage `S` that differs between
/// them. Those that are stored alike stand beside each other.
template <class Layer, class S, index N, index First, index All>
struct unlike_layers {
  using stack = layers_of<S, All>;
  static_assert(stack::fits,
                "linnet::storage::layers: a range reaches beyond the layers of the stack");
  static constexpr layer_kinds<N> kinds = stack::template kinds<N, First>;
  static constexpr auto count = static_cast<std::size_t>(kinds.count);
  static_assert(count <= 4,
                "linnet::storage::layers: at most four kinds of layers in one stack; each has code "
                "of its own");
  /// Storage of layers of a kind.
  template <std::size_t K>
  using stored =
      std::tuple_element_t<static_cast<std::size_t>(kinds.number[K]), typename stack::stored>;

  template <class Form, class Kinds = std::make_index_sequence<count>>
  struct params;
  template <class Form, std::size_t... K>
  struct params<Form, std::index_sequence<K...>> {
    using unlike = unlike_layers;
    pack<std::array<
        typename Layer::template params<typename form::stored<Form>::template with<stored<K>>>,
        static_cast<std::size_t>(kinds.length[K])>...>
        items{};
  };

  /// Calls f(std::type_identity of its storage, its parameters of each of `p`...) for layer `l`.
  template <std::size_t K = 0, class F, class... P>
  static constexpr void take(std::size_t l, F&& f, P&... p) {
    if (kinds.kind[l] == static_cast<index>(K))
      f(std::type_identity<stored<K>>{}, item<K>(p, l)...);
    else if constexpr (K + 1 < count)
      take<K + 1>(l, f, p...);
  }

 private:
  template <std::size_t K, class P>
  static constexpr auto& item(P& p, std::size_t l) {
    if constexpr (requires { typename P::unlike; })
      return member<K>(p.items)[static_cast<std::size_t>(kinds.place[l])];
    else
      return p.items[l];
  }
};

/// How the layers are stored that some of `P` are parameters of; void where all are alike.
template <class... P>
struct unlike_of {
  using type = void;
};
template <class First, class... Rest>
struct unlike_of<First, Rest...> : unlike_of<Rest...> {};
template <class First, class... Rest>
requires requires { typename First::unlike; }
struct unlike_of<First, Rest...> {
  using type = typename First::unlike;
};

}  // namespace detail

LINNET_NAMESPACE_END
