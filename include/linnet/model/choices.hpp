#pragma once
/// @file
/// Turns a list of policies in any order into one choice per slot, with worded refusals.

#include <type_traits>

#include <linnet/nn/attention/window.hpp>
#include <linnet/nn/combinators.hpp>
#include <linnet/nn/embedding.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/nn/mixture_of_depths.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/nn/policies.hpp>
#include <linnet/nn/sharing.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The policy derived from `Slot` in the list, or `Default`.
template <class Slot, class Default, class... Ps>
struct pick_policy {
  using type = Default;
};
template <class Slot, class Default, class P, class... Ps>
struct pick_policy<Slot, Default, P, Ps...> {
  using type = typename std::conditional_t<std::is_base_of_v<Slot, P>, std::type_identity<P>,
                                           pick_policy<Slot, Default, Ps...>>::type;
};
template <class Slot, class Default, class... Ps>
using pick = typename pick_policy<Slot, Default, Ps...>::type;

/// One policy for each slot, in a fixed order, so that a model has one type however it is spelled.
template <class... Ps>
struct choices {
  /// The policy of a slot.
  template <class Slot>
  using of = pick<Slot, void, Ps...>;
  /// The same choices but for `Other`, which takes the place of what derives from `Slot`.
  template <class Slot, class Other>
  using with = choices<std::conditional_t<std::is_base_of_v<Slot, Ps>, Other, Ps>...>;
};

/// The storage type in the list, or f32, with the list's compute type.
template <class... Ps>
struct pick_storage {
  using stored = pick<storage::policy, storage::f32, Ps...>;
  using computed = pick<activation::policy, typename stored::activation, Ps...>;
  using type = typename std::conditional_t<
      std::is_same_v<computed, typename stored::activation>, std::type_identity<stored>,
      std::type_identity<storage::with_activation<stored, computed>>>::type;
};

/// What a wrapper such as encoder<P> holds, or void.
template <template <class> class Wrapper, class P>
struct unwrap {
  using type = void;
};
template <template <class> class Wrapper, class P>
struct unwrap<Wrapper, Wrapper<P>> {
  using type = P;
};
/// The policy of a slot for one stack: the wrapped one, else the one for all, else the default.
template <template <class> class Wrapper, class Slot, class Default, class... Ps>
using pick_for = pick<Slot, pick<Slot, Default, Ps...>, typename unwrap<Wrapper, Ps>::type...>;

/// How many policies of the list fill a slot.
template <class Slot, class... Ps>
inline constexpr int times = (0 + ... + static_cast<int>(std::is_base_of_v<Slot, Ps>));

template <class P>
inline constexpr bool known_policy =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<norm::policy, P> ||
    std::is_base_of_v<attention::policy, P> || std::is_base_of_v<position::policy, P> ||
    std::is_base_of_v<tie::policy, P> || std::is_base_of_v<bias::policy, P> ||
    std::is_base_of_v<storage::policy, P> || std::is_base_of_v<activation::policy, P> ||
    std::is_base_of_v<kv::policy, P> || std::is_base_of_v<depths::policy, P> ||
    std::is_base_of_v<share::policy, P> || std::is_base_of_v<embedding::policy, P>;

/// Words for a wrong list; true when it is right.
template <class... Ps>
constexpr bool policies_fit() {
  static_assert(times<ffn::policy, Ps...> <= 1,
                "linnet: two ffn:: policies for the same stack; give one, or wrap one "
                "in encoder<> or decoder_stack<>");
  static_assert(times<norm::policy, Ps...> <= 1, "linnet: two norm:: policies; give one");
  static_assert(times<attention::policy, Ps...> <= 1, "linnet: two attention:: policies; give one");
  static_assert(times<position::policy, Ps...> <= 1, "linnet: two position:: policies; give one");
  static_assert(times<tie::policy, Ps...> <= 1, "linnet: two tie:: policies; give one");
  static_assert(times<bias::policy, Ps...> <= 1, "linnet: two bias:: policies; give one");
  static_assert(times<storage::policy, Ps...> <= 1, "linnet: two storage types; give one");
  static_assert(times<kv::policy, Ps...> <= 1, "linnet: two kv:: policies; give one");
  static_assert(times<depths::policy, Ps...> <= 1, "linnet: two depths:: policies; give one");
  static_assert(times<share::policy, Ps...> <= 1, "linnet: two share:: policies; give one");
  static_assert(times<embedding::policy, Ps...> <= 1, "linnet: two embedding:: policies; give one");
  static_assert(times<activation::policy, Ps...> <= 1,
                "linnet: two activation:: policies; give one");
  return true;
}

/// The layer of a feed-forward policy whose linear maps are of a kind.
template <class Ffn, index D, index F, bool Bias, map_kind Maps>
struct ffn_layer {
  static_assert(
      requires { typename Ffn::template layer<D, F, Bias, Maps>; },
      "linnet::share::lora: this feed-forward's maps take no delta; its template layer<D, "
      "F, Bias> would need a fourth parameter map_kind, as those of the standard and gated "
      "ones, ffn::linear and ffn::linear_relu have");
  using type = typename Ffn::template layer<D, F, Bias, Maps>;
};
template <class Ffn, index D, index F, bool Bias, map_kind Maps>
requires(Maps.plain()) struct ffn_layer<Ffn, D, F, Bias, Maps> {
  using type = typename Ffn::template layer<D, F, Bias>;
};

/// The residual block of a stack: the attention branches, then the feed-forward unless skipped.
template <class Norm, class Ffn, class... Branches>
struct block_of {
  template <index D, index F, bool Bias, real Eps, map_kind Maps = map_kind{}>
  struct make {
    using feed_forward = residual<typename Norm::template layer<D, Eps>,
                                  typename ffn_layer<Ffn, D, F, Bias, Maps>::type>;
    using type = chain<Branches..., named<"ffn", feed_forward>>;
  };
};
template <class Norm, class Ffn, class... Branches>
requires(Ffn::skipped) struct block_of<Norm, Ffn, Branches...> {
  template <index D, index F, bool Bias, real Eps, map_kind Maps = map_kind{}>
  struct make {
    using type = chain<Branches...>;
  };
};

/// `N` blocks, of which the first is a `First` if it differs; `Rest` holds the type of the others.
/// The buffers of a first one that differs last as long as those of the others, which may read
/// them.
template <class First, class Rest, index N, bool Differs, class Share = share::none>
struct stack_of {
  static_assert(!Differs,
                "linnet: share:: policies need blocks of one type; the first block of this kind of "
                "attention differs from the others");
  using block = typename Rest::type;
  using type = repeat<block, N, 0, N, shared_parameters<block, N, Share>>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, false, share::none> {
  using type = repeat<typename Rest::type, N>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, true, share::none> {
  using type =
      chain<named<"", repeat<First, 1, 0, N>>, named<"", repeat<typename Rest::type, N - 1, 1, N>>>;
};
template <class First, class Rest>
struct stack_of<First, Rest, 1, true, share::none> {
  using type = repeat<First, 1>;
};

}  // namespace detail

LINNET_NAMESPACE_END
