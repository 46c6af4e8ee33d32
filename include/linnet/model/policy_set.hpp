// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Turns a list of policies in any order into one choice per slot, with worded refusals.

#include <cstddef>
#include <type_traits>
#include <utility>

#include <linnet/nn/attention/head_predictor.hpp>
#include <linnet/nn/attention/per_layer.hpp>
#include <linnet/nn/attention/window.hpp>
#include <linnet/nn/chain.hpp>
#include <linnet/nn/contextual.hpp>
#include <linnet/nn/embedding.hpp>
#include <linnet/nn/layer_list.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/nn/patch_embedding.hpp>
#include <linnet/nn/policies.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>
#include <linnet/nn/routing/experts.hpp>
#include <linnet/nn/routing/mixture_of_depths.hpp>
#include <linnet/nn/routing/visual_expert.hpp>
#include <linnet/nn/sharing.hpp>
#include <linnet/nn/tensor_train.hpp>

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
struct policy_set {
  /// The policy of a slot.
  template <class Slot>
  using of = pick<Slot, void, Ps...>;
  /// This set of policies with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with = policy_set<std::conditional_t<std::is_base_of_v<Slot, Ps>, Other, Ps>...>;
};

/// A model of causal blocks of one kind that names its policies and replaces one by
/// `with<Slot, Other>`, as decoders do. `self` is the shape of its attention.
template <class M>
concept replaces_policies = requires {
  typename M::template with<linnet::ffn::policy, typename M::ffn>;
  typename M::template with<linnet::attention::policy, typename M::attention>;
  M::self.kv();
};

/// The storage type in the list, or f32, with the list's compute type.
template <class... Ps>
struct pick_storage {
  using stored = pick<storage::policy, storage::f32, Ps...>;
  using computed = pick<compute::policy, typename stored::compute, Ps...>;
  using type = typename computed_storage<stored, computed>::type;
};

/// The storage of the model of a list.
template <class... Ps>
using pick_model_storage =
    model_storage<std::is_same_v<pick<tie::policy, tie::tied, Ps...>, tie::tied>,
                  typename pick_storage<Ps...>::type>;

/// Words for storage that differs between layers where a stack of so many does not take it; true
/// for others. Layers are `Alike` where they have shared parameters, or are routed.
template <class S, index Layers, bool Alike>
constexpr bool layers_fit() {
  if constexpr (!by_layer<S> || Layers <= 0) {
    return true;
  } else {
    constexpr bool ranges = layers_of<S, Layers>::fits;
    constexpr bool few = layers_of<S, Layers>::template kinds<Layers>.count <= 4;
    static_assert(!Alike,
                  "linnet::storage::layers: layers that share parameters, that "
                  "depths::mixture_of_depths routes or that ffn::per_layer makes unlike are stored "
                  "alike; take sharing::none and depths::all, or one storage");
    static_assert(ranges,
                  "linnet::storage::layers: a range names layers that the model does not have; "
                  "they count from 0, or from the end where negative");
    static_assert(few,
                  "linnet::storage::layers: at most four kinds of layers in one stack; each has "
                  "code of its own");
    return !Alike && ranges && few;
  }
}
/// Storage `S` without ranges of layers, for what stands in for a model that was refused.
template <class S>
struct storage_of_rest {
  using type = S;
};
template <class Rest, class... Ranges>
struct storage_of_rest<storage::layered<Rest, Ranges...>> {
  using type = Rest;
};

/// The policy inside a wrapper such as encoder_stack<P>, or void if `P` is no such wrapper.
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

/// Whether several policies of the list fill a slot.
template <class Slot, class... Ps>
inline constexpr bool twice = (0 + ... + static_cast<int>(std::is_base_of_v<Slot, Ps>)) > 1;

template <class P>
inline constexpr bool known_policy =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<norm::policy, P> ||
    std::is_base_of_v<attention::policy, P> || std::is_base_of_v<position::policy, P> ||
    std::is_base_of_v<tie::policy, P> || std::is_base_of_v<bias::policy, P> ||
    std::is_base_of_v<storage::policy, P> || std::is_base_of_v<compute::policy, P> ||
    std::is_base_of_v<kv::policy, P> || std::is_base_of_v<depths::policy, P> ||
    std::is_base_of_v<sharing::policy, P> || std::is_base_of_v<embedding::policy, P>;

/// Compile-time errors for a list with two policies of one slot; true for other lists.
template <class... Ps>
constexpr bool policies_fit() {
  if constexpr (twice<ffn::policy, Ps...>)
    static_assert(never<Ps...>,
                  "linnet: two ffn:: policies for the same stack; give one, or wrap one in "
                  "encoder_stack<> or decoder_stack<>");
  else if constexpr (twice<norm::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two norm:: policies; give one");
  else if constexpr (twice<attention::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two attention:: policies; give one");
  else if constexpr (twice<position::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two position:: policies; give one");
  else if constexpr (twice<tie::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two tie:: policies; give one");
  else if constexpr (twice<bias::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two bias:: policies; give one");
  else if constexpr (twice<storage::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two storage types; give one");
  else if constexpr (twice<kv::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two kv:: policies; give one");
  else if constexpr (twice<depths::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two depths:: policies; give one");
  else if constexpr (twice<sharing::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two sharing:: policies; give one");
  else if constexpr (twice<embedding::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two embedding:: policies; give one");
  else if constexpr (twice<compute::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two compute:: policies; give one");
  else if constexpr (twice<compute::arithmetic, Ps...>)
    static_assert(never<Ps...>, "linnet: compute::fast and compute::reproducible; give one");
  else if constexpr (!pick_model_storage<Ps...>::fits)
    static_assert(
        never<Ps...>,
        "linnet::storage::per_role: a tied head reads the embedding's table, which has one "
        "storage; give storage::embedding<> alone, or tie::untied");
  else
    return true;
  return false;
}

/// Faults of the layer of a feed-forward policy.
enum class ffn_fault { none, no_layer, no_delta, rank, widths, chain_widths, by_layer };
/// Whether a feed-forward has a width for each layer.
template <class Ffn>
inline constexpr bool has_layer_widths = requires {
  Ffn::widest;
};
/// Whether a layer says that the widths of its parts do not fit.
template <class Layer>
concept widths_misfit = requires {
  requires !Layer::widths_fit;
};
/// The feed-forward of each layer.
template <class Ffn>
struct ffn_of_layers {
  using type = Ffn;
};
template <class Of, index... Widths>
struct ffn_of_layers<ffn::per_layer<Of, Widths...>> {
  using type = Of;
};
template <class Ffn, index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
constexpr ffn_fault fault_of_ffn() {
  const auto widths = []<class Layer>(std::type_identity<Layer>) {
    if constexpr (widths_misfit<Layer>) return ffn_fault::chain_widths;
    return Layer::in == D && Layer::out == D ? ffn_fault::none : ffn_fault::widths;
  };
  constexpr bool ranked = [] {
    if constexpr (requires { Ffn::rank; }) return Ffn::rank > 0 && Ffn::rank <= D && Ffn::rank <= F;
    return true;
  }();
  if constexpr (has_layer_widths<Ffn>) {
    return ffn_fault::by_layer;
  } else if constexpr (Ffn::skipped) {
    return ffn_fault::none;
  } else if constexpr (!ranked) {
    return ffn_fault::rank;
  } else if constexpr (!requires { typename Ffn::template layer<D, F, Bias>; }) {
    return ffn_fault::no_layer;
  } else if constexpr (Projections.plain()) {
    return widths(std::type_identity<typename Ffn::template layer<D, F, Bias>>{});
  } else if constexpr (!requires { typename Ffn::template layer<D, F, Bias, Projections>; }) {
    return ffn_fault::no_delta;
  } else {
    return widths(std::type_identity<typename Ffn::template layer<D, F, Bias, Projections>>{});
  }
}
/// Words for a feed-forward policy whose layer has a fault; true for others.
template <ffn_fault Fault, class Ffn>
constexpr bool ffn_fits() {
  static_assert(Fault != ffn_fault::no_layer,
                "linnet: your ffn:: policy needs `template <index D, index F, bool Bias> using "
                "layer`, with these three parameters: the width, the hidden width d_ff and whether "
                "maps have biases");
  static_assert(Fault != ffn_fault::no_delta,
                "linnet::sharing::lora: this feed-forward's maps take no delta; its template "
                "layer<D, F, Bias> would need a fourth parameter projection_kind, as those of the "
                "standard and gated ones, ffn::linear and ffn::linear_relu have");
  static_assert(Fault != ffn_fault::rank,
                "linnet::ffn::low_rank: the rank must be positive and at most the smaller width of "
                "d_model and d_ff");
  static_assert(Fault != ffn_fault::chain_widths,
                "linnet::chain: neighbouring members differ in width in the layer of your ffn:: "
                "policy: `out` of each must be `in` of the next");
  static_assert(Fault != ffn_fault::widths,
                "linnet: the layer of your ffn:: policy must keep the width of the stream: both "
                "its `in` and its `out` are D, the shape's d_model");
  static_assert(Fault != ffn_fault::by_layer,
                "linnet::ffn::per_layer: its widths are those of the layers of a decoder; the "
                "blocks of other models are of one type");
  return Fault == ffn_fault::none;
}

/// The layer of a feed-forward policy whose linear maps are of a kind.
template <class Ffn, index D, index F, bool Bias, projection_kind Projections>
struct ffn_layer {
  using type = typename Ffn::template layer<D, F, Bias, Projections>;
};
template <class Ffn, index D, index F, bool Bias, projection_kind Projections>
requires(Projections.plain()) struct ffn_layer<Ffn, D, F, Bias, Projections> {
  using type = typename Ffn::template layer<D, F, Bias>;
};

/// The residual block of a stack: the attention branches, then the feed-forward unless skipped.
template <class Norm, class Ffn, class... Branches>
struct block_of {
  template <index D, index F, bool Bias, real Eps, projection_kind Projections = projection_kind{},
            template <class, class> class Residual = residual>
  struct make {
    using feed_forward = Residual<typename Norm::template layer<D, Eps>,
                                  typename ffn_layer<Ffn, D, F, Bias, Projections>::type>;
    using type = chain<Branches..., named<"ffn", feed_forward>>;
  };
};
template <class Norm, class Ffn, class... Branches>
requires(Ffn::skipped) struct block_of<Norm, Ffn, Branches...> {
  template <index D, index F, bool Bias, real Eps, projection_kind Projections = projection_kind{},
            template <class, class> class Residual = residual>
  struct make {
    using type = chain<Branches...>;
  };
};

template <class Norm, class Of, index... Widths, class... Branches>
struct block_of<Norm, ffn::per_layer<Of, Widths...>, Branches...>
    : block_of<Norm, Of, Branches...> {};

/// `N` blocks, of which the first is a `First` if it differs; `Rest` holds the type of the others.
/// The buffers of a first one that differs last as long as those of the others, which may read
/// them.
template <class First, class Rest, index N, bool Differs, class Sharing = sharing::none>
struct stack_of {
  static_assert(
      !Differs,
      "linnet: sharing:: policies need blocks of one type; the first block of this kind of "
      "attention differs from the others");
  using block = typename Rest::type;
  using type = repeat<block, N, 0, N, shared_parameters<block, N, Sharing>>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, false, sharing::none> {
  using type = repeat<typename Rest::type, N>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, true, sharing::none> {
  using type =
      chain<named<"", repeat<First, 1, 0, N>>, named<"", repeat<typename Rest::type, N - 1, 1, N>>>;
};
template <class First, class Rest>
struct stack_of<First, Rest, 1, true, sharing::none> {
  using type = repeat<First, 1>;
};
/// The attention of each layer.
template <class Attention>
struct attention_of_layers {
  using type = Attention;
};
template <class Kind, index... Heads>
struct attention_of_layers<attention::per_layer<Kind, Heads...>> {
  using type = Kind;
};
/// Whether the layers of a model have heads of their own number.
template <class M>
inline constexpr bool has_heads_by_layer = [] {
  if constexpr (requires { M::attention::heads_by_layer; }) return M::attention::heads_by_layer;
  return false;
}();
/// Whether a decoder's layers have hidden widths or heads of their own.
template <class Ffn, class Attention>
inline constexpr bool unlike_widths = has_layer_widths<Ffn> || Attention::heads_by_layer;
/// The hidden width of layer `l`, and its query heads, where all others have `same`.
template <class Ffn>
constexpr index width_of_layer(std::size_t l, index same) {
  if constexpr (has_layer_widths<Ffn>) return Ffn::widths[l];
  return same;
}
template <class Attention>
constexpr index heads_of_layer(std::size_t l, index same) {
  if constexpr (Attention::heads_by_layer) return Attention::heads[l];
  return same;
}

/// The stack of a decoder. Block<F, A> holds a block of hidden width F and attention A, which is
/// `First` in the first layer and `Rest` in the others.
template <class Policies, template <index, attention_shape> class Block, auto Shape,
          attention_shape First, attention_shape Rest, index Rotary,
          class Ffn = typename Policies::template of<ffn::policy>,
          class Attention = typename Policies::template of<attention::policy>>
struct stack_of_decoder {
  using first = typename Block<Shape.d_ff, First>::type;
  using rest = Block<Shape.d_ff, Rest>;
  using type = typename Policies::template of<depths::policy>::template stack<
      stack_of<first, rest, Shape.layers, Attention::first_differs,
               typename Policies::template of<sharing::policy>>,
      typename rest::type, Shape.layers, Rotary>;
};
template <class Policies, template <index, attention_shape> class Block, auto Shape,
          attention_shape First, attention_shape Rest, index Rotary, class Ffn, class Attention>
requires(unlike_widths<Ffn, Attention>)  //
    struct stack_of_decoder<Policies, Block, Shape, First, Rest, Rotary, Ffn, Attention> {
  template <std::size_t Layer>
  static constexpr attention_shape attention_at =
      with_heads(Layer == 0 ? First : Rest, heads_of_layer<Attention>(Layer, Shape.heads));
  template <std::size_t... Layer>
  static layer_list<
      typename Block<width_of_layer<Ffn>(Layer, Shape.d_ff), attention_at<Layer>>::type...>
      of(std::index_sequence<Layer...>);
  using type = decltype(of(std::make_index_sequence<static_cast<std::size_t>(Shape.layers)>()));
};

}  // namespace detail

/// A model type with one choice replaced, for a model `M` that has `with<Slot, Policy>`.
template <class M>
struct policy_variants {  // a name that depends on Self waits until M is complete
  /// Model `M` with another feed-forward policy.
  template <class Other, class Self = M>
  using with_ffn = typename Self::template with<linnet::ffn::policy, Other>;
  /// Model `M` with another attention policy.
  template <class Other, class Self = M>
  using with_attention = typename Self::template with<linnet::attention::policy, Other>;
  /// Model `M` with another key-value cache policy.
  template <class Other, class Self = M>
  using with_cache = typename Self::template with<linnet::kv::policy, Other>;
  /// Model `M` with another storage type.
  template <class Other, class Self = M>
  using with_storage = typename Self::template with<linnet::storage::policy, Other>;
};

LINNET_NAMESPACE_END
