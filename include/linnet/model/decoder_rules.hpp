// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The rules that a decoder's shape and policies keep, each with a sentence for what breaks it.

#include <linnet/model/contract.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/model/reproducible.hpp>

LINNET_NAMESPACE_BEGIN

template <decoder_shape Shape, class Policies>
struct decoder_model;

namespace detail {

/// Words for widths that are not those of a shape's layers; true for others.
template <class Ffn, index Layers, index Widest>
constexpr bool widths_fit() {
  if constexpr (has_layer_widths<Ffn>) {
    static_assert(Ffn::layers == Layers,
                  "linnet::ffn::per_layer: give one width for each of the shape's layers");
    static_assert(Ffn::widest == Widest,
                  "linnet::ffn::per_layer: d_ff of the shape must be the widest of its widths");
    return Ffn::layers == Layers && Ffn::widest == Widest;
  }
  return true;
}
/// Words for heads that are not those of a shape's layers; true for others.
template <class Attention, decoder_shape S>
constexpr bool heads_fit() {
  if constexpr (Attention::heads_by_layer) {
    constexpr bool whole = [] {
      for (const index count : Attention::heads)
        if (count % (S.heads / S.kv_heads) != 0) return false;
      return true;
    }();
    static_assert(Attention::layers == S.layers,
                  "linnet::attention::per_layer: give one number of heads for each of the shape's "
                  "layers");
    static_assert(Attention::most == S.heads,
                  "linnet::attention::per_layer: heads of the shape must be the most of its heads");
    static_assert(whole,
                  "linnet::attention::per_layer: heads go in whole groups: each number must be a "
                  "multiple of the shape's heads / kv_heads");
    return Attention::layers == S.layers && Attention::most == S.heads && whole;
  }
  return true;
}
/// Words for the first rule that a decoder's policies or shape break; true where they keep all.
template <decoder_shape S, class... Ps>
constexpr bool decoder_fits() {
  using Attention = pick<attention::policy, attention::full, Ps...>;
  using Ffn = pick<ffn::policy, ffn::swiglu, Ps...>;
  using Position = pick<position::policy, position::rope, Ps...>;
  using Depths = pick<depths::policy, depths::all, Ps...>;
  using Sharing = pick<sharing::policy, sharing::none, Ps...>;
  using Embedding = pick<embedding::policy, embedding::full, Ps...>;
  if constexpr (!((known_policy<Ps> || std::is_base_of_v<compute::arithmetic, Ps>)&&...))
    static_assert(never<Ps...>,
                  "linnet::decoder<shape, policies...>: an argument is not a policy; derive your "
                  "own from ffn::policy, attention::policy or norm::policy");
  else if constexpr (S.d_model <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: d_model, the width of the stream, must be given and positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_ff, the hidden width of the feed-forward, must be "
                  "given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: heads, the query heads, must be given and positive");
  else if constexpr (S.kv_heads <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: kv_heads, the key and value heads, must be given and positive");
  else if constexpr (S.layers <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: layers, the number of blocks, must be given and positive");
  else if constexpr (S.vocabulary <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.context <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: context, the longest sequence in tokens, must be given "
                  "and positive");
  else if constexpr (S.heads % S.kv_heads != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: heads must be a multiple of kv_heads: each key-value "
                  "head serves as many query heads");
  else if constexpr (S.d_kv < 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_kv, the width of a head, must be positive, or 0 for "
                  "d_model / heads");
  else if constexpr (S.d_kv == 0 && S.d_model % S.heads != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_model must be a multiple of heads; or give d_kv, the "
                  "width of a head");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (!(S.rope_theta > 0))
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: rope_theta, the base of the rotary frequencies, must be positive");
  else if constexpr (Position::pairing != rope_pairing::none && S.head_width() % 2 != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: rotary positions need an even head width: d_kv, or "
                  "d_model / heads");
  else if constexpr (!Attention::causal)
    static_assert(never<Ps...>,
                  "linnet::decoder: this kind of attention sees later tokens; it fits encoders");
  else if constexpr (pick<kv::policy, kv::exact, Ps...>::code == kv_code::int4 &&
                     !Attention::supports_int4)
    static_assert(never<Ps...>,
                  "linnet::decoder: this kind of attention keeps no keys in kv::int4, which rounds "
                  "those of 32 tokens together; take kv::int8");
  else if constexpr (pick<kv::policy, kv::exact, Ps...>::calibrated &&
                     !(Attention::supports_channels && !Depths::routes))
    static_assert(never<Ps...>,
                  "linnet::decoder: kv::channel_int8 and kv::channel_int4 rotate the keys of whole "
                  "texts as they are read; full, prefix, sliding_window, sinks and block_causal do "
                  "that, with depths::all; others take kv::int8");
  else if constexpr (Attention::least_context > S.context)
    static_assert(never<Ps...>,
                  "linnet::decoder: a global token stands behind the context, the longest sequence "
                  "in tokens; positions are less than shape.context");
  else if constexpr (Position::pairing != rope_pairing::none && !Attention::rotary)
    static_assert(never<Ps...>,
                  "linnet::decoder: this kind of mixing has no rotary positions; add "
                  "position::none");
  else if constexpr (S.layers % Sharing::repeats != 0)
    static_assert(never<Ps...>,
                  "linnet::sharing::repeat<n>: layers, the number of blocks, must be a multiple of "
                  "n");
  else if constexpr (!widths_fit<Ffn, S.layers, S.d_ff>() || !heads_fit<Attention, S>())
    return false;
  else if constexpr (has_layer_widths<Ffn> &&
                     (Depths::routes || !std::is_same_v<Sharing, sharing::none>))
    static_assert(
        never<Ps...>,
        "linnet::ffn::per_layer: blocks of unlike widths share nothing and are not routed; take "
        "sharing::none and depths::all");
  else if constexpr (Attention::heads_by_layer &&
                     (Depths::routes || !std::is_same_v<Sharing, sharing::none>))
    static_assert(
        never<Ps...>,
        "linnet::attention::per_layer: blocks of unlike heads share nothing and are not routed; "
        "take sharing::none and depths::all");
  else if constexpr (Depths::routes && !(Attention::supports_token_subset && Ffn::can_truncate))
    static_assert(
        never<Ps...>,
        "linnet::decoder: depths::mixture_of_depths asks for attention and a feed-forward that "
        "work on any subset of the tokens, such as attention::full");
  else if constexpr (Depths::routes && S.layers < Depths::every)
    static_assert(never<Ps...>,
                  "linnet::depths::mixture_of_depths: of so few layers, none would be routed; give "
                  "a smaller Every");
  else if constexpr (Depths::routes && !std::is_same_v<Sharing, sharing::none>)
    static_assert(
        never<Ps...>,
        "linnet::decoder: the blocks of depths::mixture_of_depths have parameters of their own; it "
        "does not go with a sharing:: policy");
  else if constexpr (!Sharing::projections.plain() && !Attention::supports_low_rank)
    static_assert(never<Ps...>,
                  "linnet::sharing::lora: this kind of attention's maps take no delta; those of "
                  "full, prefix, sliding_window and sinks do");
  else if constexpr (Attention::first_differs && !std::is_same_v<Sharing, sharing::none>)
    static_assert(
        never<Ps...>,
        "linnet: sharing:: policies need blocks of one type; the first block of this kind "
        "of attention differs from the others");
  else if constexpr (Embedding::reads_images)
    static_assert(never<Ps...>,
                  "linnet::decoder: embedding::patches is for encoder<>; a decoder reads tokens");
  else if constexpr (!Embedding::fits(S.vocabulary, S.d_model))
    static_assert(never<Ps...>,
                  "linnet::embedding::tensor_train: the product of its rows must be the vocabulary "
                  "or more, and that of its columns d_model");
  else if constexpr (!Embedding::whole_rows &&
                     std::is_same_v<pick<tie::policy, tie::tied, Ps...>, tie::tied>)
    static_assert(never<Ps...>,
                  "linnet::embedding::tensor_train: a tied head would need whole rows of the "
                  "table, which is kept in cores; add tie::untied");
  else
    return true;
  return false;
}
/// Whether sessions of a decoder can keep a tree of tokens. Rounding keys in blocks of 32 tokens
/// asks for texts, and so does rotating them by their places in the cache.
template <class Policies, class Attention, class Ffn, class Depths>
inline constexpr bool decoder_takes_trees =
    Attention::supports_trees&& Ffn::can_truncate && !Depths::routes &&
    Policies::template of<kv::policy>::code != kv_code::int4 &&
    !Policies::template of<kv::policy>::calibrated;
/// Positions whose angles a decoder keeps in a table: all where cached keys are rotated as they are
/// read.
template <class Cache, class Attention>
constexpr index angles_kept(index context) {
  return (std::max)(Cache::calibrated ? most_positions : context, Attention::min_positions);
}
/// Why a batch does not fit the limits, the vocabulary or the attention of decoder `M`.
template <class M>
refusal decoder_refuses(const decoder_batch& b, const limits& l) {
  batch_check c(b.batch, l.batch);
  c.length(b.length, M::longest(l), refusal::over_target);
  c.tokens(b.tokens, b.length, M::vocabulary);
  c.labels(b.labels, b.length, M::vocabulary);
  c.no(b.prefixes && !M::takes_prefix, refusal::prefix_unknown);
  for (index i = 0; b.prefixes && c.fits() && i < b.batch; ++i)
    c.no(b.prefixes[i] < 0 || b.prefixes[i] > b.length, refusal::prefix_outside);
  c.documents(b.documents, b.length, M::supports_documents, b.prefixes);
  return c.why;
}
/// The fault of the feed-forward of a decoder that fits otherwise.
template <decoder_shape S, class... Ps>
constexpr ffn_fault decoder_ffn_fault() {
  if constexpr (decoder_fits<S, Ps...>())
    return fault_of_ffn<typename ffn_of_layers<pick<ffn::policy, ffn::swiglu, Ps...>>::type,
                        S.d_model, S.d_ff,
                        std::is_same_v<pick<bias::policy, bias::none, Ps...>, bias::all>,
                        pick<sharing::policy, sharing::none, Ps...>::projections>();
  else
    return ffn_fault::none;
}
/// The decoder of a list of policies that fit.
template <bool Fits, decoder_shape Shape, class... Ps>
struct make_decoder {
  using type = decoder_model<
      Shape,
      policy_set<
          pick<ffn::policy, ffn::swiglu, Ps...>, pick<attention::policy, attention::full, Ps...>,
          pick<norm::policy, norm::rms, Ps...>, pick<position::policy, position::rope, Ps...>,
          pick<tie::policy, tie::tied, Ps...>, pick<bias::policy, bias::none, Ps...>,
          typename stack_storage<typename pick_model_storage<Ps...>::type, Shape.layers>::type,
          pick<kv::policy, kv::exact, Ps...>, pick<depths::policy, depths::all, Ps...>,
          pick<sharing::policy, sharing::none, Ps...>,
          pick<embedding::policy, embedding::full, Ps...>,
          pick<compute::arithmetic, compute::fast, Ps...>>>;
};
/// Stands in for a decoder that was refused, so that nothing is said of it again.
template <decoder_shape Shape, class... Ps>
struct make_decoder<false, Shape, Ps...>
    : make_decoder<true,
                   decoder_shape{.d_model = 2,
                                 .d_ff = 1,
                                 .heads = 1,
                                 .kv_heads = 1,
                                 .layers = 1,
                                 .vocabulary = 1,
                                 .context = 1},
                   typename storage_of_rest<typename pick_storage<Ps...>::stored>::type> {};
/// The decoder of a shape and policies, or what stands in for it where they do not fit.
template <decoder_shape Shape, class... Ps>
struct checked_decoder {
  /// Whether layers have nothing of their own that storage could tell apart.
  static constexpr bool alike =
      !std::is_same_v<pick<sharing::policy, sharing::none, Ps...>, sharing::none> ||
      pick<depths::policy, depths::all, Ps...>::routes ||
      unlike_widths<pick<ffn::policy, ffn::swiglu, Ps...>,
                    pick<attention::policy, attention::full, Ps...>>;
  static constexpr bool fits =
      policies_fit<Ps...>() && decoder_fits<Shape, Ps...>() &&
      reproducible_fits<covers_decoder<Ps...>, Ps...>() &&
      ffn_fits<decoder_ffn_fault<Shape, Ps...>(), pick<ffn::policy, ffn::swiglu, Ps...>>() &&
      layers_fit<typename pick_model_storage<Ps...>::type, Shape.layers, alike>();
  using type = typename make_decoder<fits, Shape, Ps...>::type;
};
/// The decoder of choices.
template <decoder_shape Shape, class Policies>
struct decoder_of;
template <decoder_shape Shape, class... Ps>
struct decoder_of<Shape, policy_set<Ps...>> : checked_decoder<Shape, Ps...> {};

/// Which tensors of decoder `M` write the channels that others read, see nn/channels.hpp.
template <class M, class Ends, class P>
void describe_decoder_channels(const Ends& c, P& p) {
  const index stream = c.open(M::d), looked_up = M::embedding_normed ? c.open(M::d) : stream,
              normed = c.open(M::d),
              rows = M::factorised ? c.open(M::table_info.columns) : looked_up;
  c.between(-1, rows).looks_up(p.embedding, M::table_info);
  if constexpr (M::factorised)
    M::embedding_projection::map::channels(c.between(rows, looked_up), p.projection);
  if constexpr (M::learned)
    c.between(-1, looked_up)
        .looks_up(p.positions, tensor_info{M::context_length, M::d, role::position});
  if (M::sinusoidal) c.keeps_whole(looked_up, "fixed sines and cosines");
  if constexpr (M::embedding_normed)
    M::norm_layer::channels(c.between(looked_up, stream), p.embedding_norm);
  detail::describe_channels<typename M::blocks>(c.between(stream, stream), p.stack);
  M::norm_layer::channels(c.between(stream, normed), p.norm);
  if constexpr (!M::tied) {
    c.between(normed, -1).reads(p.head, tensor_info{M::vocabulary, M::d, role::matrix});
  } else if constexpr (M::factorised) {
    c.fix(rows, "a tied head that goes back through a factorised embedding");
    c.fix(normed, "a tied head that goes back through a factorised embedding");
  } else {
    c.between(normed, -1).reads(p.embedding, M::table_info);
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
