// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage that differs between the layers of a stack.

#include <array>
#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/storage/float.hpp>
#include <linnet/storage/per_role.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Storage `S` for layers `From` up to but not including `To`; an argument of layers<>. Negative
/// numbers count from the end of the stack, as an end of 0 does.
template <index From, index To, class S>
struct range {
  using stored = S;
  template <class Other>
  using with = range<From, To, Other>;
  /// The first layer, and the one behind the last, in a stack of so many.
  static constexpr index begin(index layers) { return From < 0 ? layers + From : From; }
  static constexpr index end(index layers) { return To <= 0 ? layers + To : To; }
  /// Whether a stack has these layers.
  static constexpr bool fits(index layers) {
    return begin(layers) >= 0 && begin(layers) < end(layers) && end(layers) <= layers;
  }
  /// The layers and their storage, in words.
  static std::string name() {
    constexpr index last = To - 1;
    std::string words = From == last ? "layer " : "layers ";
    words += std::to_string(From);
    if (From != last) words += " to " + std::to_string(last);
    if constexpr (requires { S::mixes; })
      return words + " (" + S::name() + ')';
    else
      return words + ' ' + described<S>();
  }
};
/// Storage `S` for the first `Count` layers of a stack.
template <index Count, class S>
using first = range<0, Count, S>;
/// Storage `S` for the last `Count` layers of a stack.
template <index Count, class S>
using last = range<-Count, 0, S>;

/// Storage of a model whose layers are stored in several ways: that of the rest, and ranges of
/// layers. It is spelled layers<>.
template <class Rest, class... Ranges>
struct layered : several<Rest, typename Ranges::stored...> {
  using rest = single<Rest>;
  /// The storage of the rest, then the layers that are stored otherwise.
  static std::string name() {
    std::string all = described<Rest>();
    ((all += ", " + Ranges::name()), ...);
    return all;
  }
};

}  // namespace storage

namespace detail {

template <class>
inline constexpr bool is_layer_range = false;
template <index From, index To, class S>
inline constexpr bool is_layer_range<storage::range<From, To, S>> = true;

/// Whether storage `S` differs between the layers of a stack.
template <class S>
inline constexpr bool by_layer = false;
template <class Rest, class... Ranges>
inline constexpr bool by_layer<storage::layered<Rest, Ranges...>> = true;

/// Parts of a model outside of its layers are stored as the rest.
template <storage::part P, class Rest, class... Ranges>
requires(P != storage::part::any) struct part_storage<storage::layered<Rest, Ranges...>, P> {
  using type = storage::at<Rest, P>;
};
template <class Rest, class... Ranges, class A>
requires(!std::is_same_v<A, compute::f32>) struct computed_storage<
    storage::layered<Rest, Ranges...>, A> {
  using type =
      storage::layered<typename computed_storage<Rest, A>::type,
                       typename Ranges::template with<
                           typename computed_storage<typename Ranges::stored, A>::type>...>;
};
template <bool Tied, class Rest, class... Ranges>
struct model_storage<Tied, storage::layered<Rest, Ranges...>> {
  using type = storage::layered<typename model_storage<Tied, Rest>::type, Ranges...>;
  static constexpr bool fits = model_storage<Tied, Rest>::fits;
};

/// Storage `S` as a block sees it, which has no embedding and no head.
template <class S>
struct block_storage {
  using type = S;
};
template <class Rest, class Embedding, class Head, class... Parts>
struct block_storage<storage::mixed<Rest, Embedding, Head, Parts...>> {
  using type = typename mix_storage<Rest, Rest, Rest, Parts...>::type;
};

/// Layers of a stack that are stored alike, or stand beside each other.
template <index Count>
struct layer_kinds {
  static constexpr auto size = static_cast<std::size_t>(Count > 0 ? Count : 1);
  index count = 0;                   ///< different ones
  std::array<index, size> number{};  ///< of each kind: its storage
  std::array<index, size> length{};  ///< of each kind: its layers
  std::array<index, size> kind{};    ///< of each layer
  std::array<index, size> place{};   ///< of each layer among those of its kind
};

/// The number of the first type in a list that is `One`.
template <class One, class... All>
constexpr index first_like() {
  index at = 0, found = -1;
  const auto look = [&](bool same) {
    if (same && found < 0) found = at;
    ++at;
  };
  (look(std::is_same_v<One, All>), ...);
  return found;
}
/// For each type of a list, the number of the first that is the same.
template <class... All>
constexpr std::array<index, sizeof...(All)> first_likes() {
  return {first_like<All, All...>()...};
}

/// How each layer of a stack of `Layers` is stored.
template <class S, index Layers>
struct layers_of;
template <class Rest, class... Ranges, index Layers>
struct layers_of<storage::layered<Rest, Ranges...>, Layers> {
  /// Storage of the rest and of each range, by number.
  using stored = std::tuple<typename block_storage<Rest>::type,
                            typename block_storage<typename Ranges::stored>::type...>;
  static constexpr bool fits = (Ranges::fits(Layers) && ...);
  /// The number of each layer's storage, the least of equal ones. Of two ranges the last counts.
  static constexpr std::array<index, static_cast<std::size_t>(Layers)> numbers = [] {
    constexpr auto same = first_likes<typename block_storage<Rest>::type,
                                      typename block_storage<typename Ranges::stored>::type...>();
    std::array<index, static_cast<std::size_t>(Layers)> of{};
    std::size_t next = 1;
    const auto fill = [&](index begin, index end) {
      for (index l = begin; l < end; ++l) of[static_cast<std::size_t>(l)] = same[next];
      ++next;
    };
    if (fits) (fill(Ranges::begin(Layers), Ranges::end(Layers)), ...);
    return of;
  }();
  /// Layers from `First` on that are stored alike.
  template <index Count, index First = 0>
  static constexpr layer_kinds<Count> kinds = [] {
    layer_kinds<Count> all;
    for (std::size_t l = 0; l < all.size; ++l) {
      const index number = numbers[l + static_cast<std::size_t>(First)];
      std::size_t k = 0;
      while (k < static_cast<std::size_t>(all.count) && all.number[k] != number) ++k;
      if (k == static_cast<std::size_t>(all.count)) all.number[k] = number, ++all.count;
      all.kind[l] = static_cast<index>(k);
      all.place[l] = all.length[k]++;
    }
    return all;
  }();
  /// Where runs of layers that are stored otherwise than the rest begin and end.
  struct run {
    index begin, end, number;
  };
  static constexpr auto size = static_cast<std::size_t>(Layers);
  static constexpr std::array<run, size + 1> runs = [] {  // one of no layers ends them
    std::array<run, size + 1> all{};
    std::size_t count = 0;
    for (std::size_t l = 0; l < size; ++l) {
      if (numbers[l] == 0) continue;
      if (l == 0 || numbers[l] != numbers[l - 1])
        all[count++] = {static_cast<index>(l), 0, numbers[l]};
      all[count - 1].end = static_cast<index>(l) + 1;
    }
    return all;
  }();
  static constexpr std::size_t run_count = [] {
    std::size_t count = 0;
    while (runs[count].end > 0) ++count;
    return count;
  }();
};

/// Storage `S` in a stack of `Layers`: ranges in order, none of them stored as the rest. Equal ones
/// are the same type, and that of the rest where no layer differs. With 0 layers it is as spelled.
template <class S, index Layers>
struct stack_storage {
  using type = S;
};
template <class Rest, class... Ranges, index Layers>
requires(Layers > 0) struct stack_storage<storage::layered<Rest, Ranges...>, Layers> {
  using of = layers_of<storage::layered<Rest, Ranges...>, Layers>;
  template <class Numbers>
  struct in_order;
  template <std::size_t... K>
  struct in_order<std::index_sequence<K...>> {
    using type = storage::layered<
        Rest, storage::range<of::runs[K].begin, of::runs[K].end,
                             std::tuple_element_t<static_cast<std::size_t>(of::runs[K].number),
                                                  typename of::stored>>...>;
  };
  using type = typename std::conditional_t<of::run_count == 0, std::type_identity<Rest>,
                                           in_order<std::make_index_sequence<of::run_count>>>::type;
};

/// Words for arguments of layers<> that do not fit; true for others.
template <class... Args>
constexpr bool layers_fit() {
  constexpr auto plain = []<class S>(std::type_identity<S>) {
    if constexpr (is_layer_range<S>)
      return std::is_base_of_v<storage::policy, typename S::stored> &&
             !by_layer<typename S::stored>;
    else
      return std::is_base_of_v<storage::policy, S> && !by_layer<S>;
  };
  constexpr bool fits = (0 + ... + static_cast<int>(!is_layer_range<Args>)) == 1 &&
                        (plain(std::type_identity<Args>{}) && ...);
  static_assert(fits,
                "linnet::storage::layers: the arguments are one storage type for the rest and "
                "ranges of layers, such as storage::first<1, storage::int8>");
  return fits;
}
/// The storage of layers<>: that of the rest, found among the arguments, then the ranges.
template <class Rest, class Ranges, class... Args>
struct make_layers {
  using type = Rest;
};
template <class Rest, class... Ranges>
requires(sizeof...(Ranges) > 0) struct make_layers<Rest, std::tuple<Ranges...>> {
  using type = typename std::conditional_t<
      (std::is_same_v<typename block_storage<Rest>::type,
                      typename block_storage<typename Ranges::stored>::type> &&
       ...),
      std::type_identity<Rest>, std::type_identity<storage::layered<Rest, Ranges...>>>::type;
};
template <class Rest, class... Ranges, class Arg, class... Args>
struct make_layers<Rest, std::tuple<Ranges...>, Arg, Args...>
    : std::conditional_t<is_layer_range<Arg>,
                         make_layers<Rest, std::tuple<Ranges..., Arg>, Args...>,
                         make_layers<Arg, std::tuple<Ranges...>, Args...>> {};
template <bool Fits, class... Args>
struct checked_layers : make_layers<storage::f32, std::tuple<>, Args...> {};
template <class... Args>
struct checked_layers<false, Args...> {
  using type = storage::f32;
};

}  // namespace detail

namespace storage {

/// Storage that differs between the layers of each stack of a model, such as layers<first<1, int8>,
/// int4<64>, last<1, int8>>. What is no range is the storage of the rest: other layers, and all
/// outside of layers. It and the ranges may be per_role<>. Of two ranges of a layer the last
/// counts. A stack has at most four kinds of layers. Where all are the same it is that type itself.
template <class... Args>
using layers =
    typename linnet::detail::checked_layers<linnet::detail::layers_fit<Args...>(), Args...>::type;

}  // namespace storage

LINNET_NAMESPACE_END
