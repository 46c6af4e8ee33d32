// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage that differs between the matrices of a model, by what each is for.

#include <algorithm>
#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// The uses of a matrix that storage tells apart.
enum class part {
  any,  ///< none of the others
  embedding,
  head,
  attention_q,
  attention_k,
  attention_v,
  attention_o,
  ffn_gate,
  ffn_up,
  ffn_down
};

/// The name of a part, that of its argument of per_role<>; "rest" of part::any.
constexpr const char* part_name(part p) {
  constexpr const char* names[] = {"rest",        "embedding",   "head",        "attention_q",
                                   "attention_k", "attention_v", "attention_o", "ffn_gate",
                                   "ffn_up",      "ffn_down"};
  return names[static_cast<std::size_t>(p)];
}

/// Storage `S` for some parts of a model; an argument of per_role<>.
template <class S, part... Parts>
struct of_parts {
  static_assert(std::is_base_of_v<policy, S>,
                "linnet::storage::per_role: what is given for a role is a storage type, such as "
                "storage::embedding<storage::int8>");
  using stored = S;
  template <part P>
  static constexpr bool has = ((P == Parts) || ...);
};
/// Storage of the token embedding; of a tied model also what the head reads.
template <class S>
using embedding = of_parts<S, part::embedding>;
/// Storage of an untied output head.
template <class S>
using head = of_parts<S, part::head>;
/// Storage of the query projections.
template <class S>
using attention_q = of_parts<S, part::attention_q>;
/// Storage of the key projections.
template <class S>
using attention_k = of_parts<S, part::attention_k>;
/// Storage of the value projections.
template <class S>
using attention_v = of_parts<S, part::attention_v>;
/// Storage of the output projections of attention.
template <class S>
using attention_o = of_parts<S, part::attention_o>;
/// Storage of the gates of gated feed-forwards.
template <class S>
using ffn_gate = of_parts<S, part::ffn_gate>;
/// Storage of the maps into the hidden width of feed-forwards.
template <class S>
using ffn_up = of_parts<S, part::ffn_up>;
/// Storage of the maps out of the hidden width of feed-forwards.
template <class S>
using ffn_down = of_parts<S, part::ffn_down>;

/// The name of a storage type in files and errors.
template <class S>
std::string name_of() {
  if constexpr (requires { S::mixes; })
    return S::name();
  else
    return S::name;
}

/// A storage type in words, with the inputs that share a scale.
template <class S>
std::string described() {
  const std::string name = name_of<S>();
  return S::group > 0 ? name + " group " + std::to_string(S::group) : name;
}

/// Base of storage that is made of several types, of which the first is that of the rest.
template <class Rest, class... Others>
struct several : policy {
  static constexpr bool mixes = true;
  /// Calls f(std::type_identity<S>{}) for each type.
  template <class F>
  static constexpr void each(F&& f) {
    const auto pass = [&]<class S>(std::type_identity<S> one) {
      if constexpr (requires { S::mixes; })
        S::each(f);
      else
        f(one);
    };
    pass(std::type_identity<Rest>{});
    (pass(std::type_identity<Others>{}), ...);
  }
  // Of all of them, the answer that asks for more care.
  static constexpr bool scaled = (Rest::scaled || ... || Others::scaled);
  static constexpr index per_word = (std::max)({Rest::per_word, Others::per_word...});
  using value = std::conditional_t<per_word == 1, typename Rest::value, void>;
};

/// Storage of a model whose parts are stored in several ways: that of the rest, then of each part
/// in order. It is spelled per_role<>.
template <class Rest, class... Parts>
struct mixed : several<Rest, Parts...> {
  using rest = Rest;
  /// The storage of the rest, then the parts that are stored otherwise.
  static std::string name() {
    std::string all = described<Rest>();
    const std::string parts[] = {described<Parts>()...};
    constexpr bool differs[] = {!std::is_same_v<Rest, Parts>...};
    for (std::size_t i = 0; i < sizeof...(Parts); ++i)
      if (differs[i])
        all += std::string(", ") + part_name(static_cast<part>(i + 1)) + ' ' + parts[i];
    return all;
  }
};

}  // namespace storage

namespace detail {

template <class Entry>
inline constexpr bool is_role = requires {
  typename Entry::stored;
};

/// The storage that the last of `Entries` gives a part, or `Default`.
template <storage::part P, class Default, class... Entries>
struct storage_for {
  using type = Default;
};
template <storage::part P, class Default, class Entry, class... Entries>
struct storage_for<P, Default, Entry, Entries...> : storage_for<P, Default, Entries...> {};
template <storage::part P, class Default, class Entry, class... Entries>
requires(Entry::template has<P>) struct storage_for<P, Default, Entry, Entries...>
    : storage_for<P, typename Entry::stored, Entries...> {
};

/// All parts of a mixed storage compute in `A`.
template <class Rest, class... Parts, class A>
requires(
    !std::is_same_v<A, compute::f32>) struct computed_storage<storage::mixed<Rest, Parts...>, A> {
  using type = storage::mixed<typename computed_storage<Rest, A>::type,
                              typename computed_storage<Parts, A>::type...>;
};

/// Different types in a list.
template <class... S>
consteval int count_types() {
  int count = 0;
  std::size_t at = 0;
  const auto first = [&]<class One>(std::type_identity<One>) {
    std::size_t before = 0;
    bool met = false;
    ((met = met || (before++ < at && std::is_same_v<S, One>)), ...);
    count += !met;
    ++at;
  };
  (first(std::type_identity<S>{}), ...);
  return count;
}

/// One storage type where all parts agree, else a mixed one.
template <class Rest, class... Parts>
struct mix_storage {
  static constexpr int types = count_types<Rest, Parts...>();
  using type =
      typename std::conditional_t<types == 1, std::type_identity<Rest>,
                                  std::type_identity<storage::mixed<Rest, Parts...>>>::type;
};
template <class Default, class... Entries>
struct mix_roles {
  template <storage::part P>
  using of = typename storage_for<P, Default, Entries...>::type;
  using mix = mix_storage<Default, of<storage::part::embedding>, of<storage::part::head>,
                          of<storage::part::attention_q>, of<storage::part::attention_k>,
                          of<storage::part::attention_v>, of<storage::part::attention_o>,
                          of<storage::part::ffn_gate>, of<storage::part::ffn_up>,
                          of<storage::part::ffn_down>>;
};
/// Words for arguments of per_role<> that do not fit; true for others.
template <class Default, class... Entries>
constexpr bool per_role_fits() {
  if constexpr (requires { requires Default::mixes; }) {
    static_assert(never<Default>,
                  "linnet::storage::per_role: the first argument is one storage type; ranges of "
                  "layers go around it: storage::layers<storage::per_role<...>, ...>");
    return false;
  } else if constexpr (!(is_role<Entries> && ...)) {
    static_assert(
        never<Default, Entries...>,
        "linnet::storage::per_role: what follows the first argument says which role it is "
        "for, such as storage::embedding<storage::int8>");
    return false;
  } else {
    constexpr bool few = mix_roles<Default, Entries...>::mix::types <= 4;
    static_assert(few,
                  "linnet::storage::per_role: at most four different storage types in one model; "
                  "each has kernels of its own");
    return few;
  }
}
/// The storage of per_role<>, or what stands in for it where the arguments do not fit.
template <bool Fits, class Default, class... Entries>
struct make_per_role : mix_roles<Default, Entries...>::mix {};
template <class Default, class... Entries>
struct make_per_role<false, Default, Entries...> {
  using type = Default;
};

/// The storage of a model that is spelled `S`: of a tied one the head's is the embedding's.
template <bool Tied, class S>
struct model_storage {
  using type = S;
  static constexpr bool fits = true;  ///< whether a tied head is given no other storage
};
template <class Rest, class Embedding, class Head, class... Parts>
struct model_storage<true, storage::mixed<Rest, Embedding, Head, Parts...>> {
  using type = typename mix_storage<Rest, Embedding, Embedding, Parts...>::type;
  static constexpr bool fits = std::is_same_v<Head, Embedding> || std::is_same_v<Head, Rest>;
};

/// The storage of a part in a model stored as `S`; part::any passes `S` on.
template <class S, storage::part P>
struct part_storage {
  using type = S;
};
template <storage::part P, class Rest, class... Parts>
requires(P != storage::part::any) struct part_storage<storage::mixed<Rest, Parts...>, P> {
  using type = std::tuple_element_t<static_cast<std::size_t>(P), std::tuple<Rest, Parts...>>;
};
/// The storage of a matrix that is no part of its own.
template <class S>
struct rest_storage {
  using type = S;
};
template <class S>
requires requires { S::mixes; }
struct rest_storage<S> {
  using type = typename S::rest;
};

}  // namespace detail

namespace storage {

/// Storage `Default` for all matrices but those that `Entries` name, such as per_role<int4<>,
/// embedding<int8>, head<int8>>. Of two entries for one role the last counts. At most four
/// different storage types. Where all are the same it is that type itself.
template <class Default, class... Entries>
using per_role =
    typename linnet::detail::make_per_role<linnet::detail::per_role_fits<Default, Entries...>(),
                                           Default, Entries...>::type;

/// The storage of a part of a model stored as `S`; part::any is all of `S`.
template <class S, part P>
using at = typename linnet::detail::part_storage<S, P>::type;
/// The storage of a matrix that is no part of its own, in a model stored as `S`.
template <class S>
using single = typename linnet::detail::rest_storage<S>::type;
/// The storage of the matrix that a head reads, the embedding's table where it is tied.
template <class S, bool Tied>
using of_head = single<at<S, Tied ? part::embedding : part::head>>;

}  // namespace storage

LINNET_NAMESPACE_END
