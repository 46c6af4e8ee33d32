// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The rules that an encoder's shape and policies keep, each with a sentence for what breaks it.

#include <linnet/model/encoder_heads.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/model/reproducible.hpp>

LINNET_NAMESPACE_BEGIN

template <encoder_shape Shape, class Policies>
struct encoder_model;

namespace detail {

/// Rows of an image of a policy embedding::patches.
template <class Embedding>
inline constexpr index tokens_of_image = [] {
  if constexpr (Embedding::reads_images) return Embedding::tokens;
  return index{0};
}();
/// Whether a head predicts tokens of the vocabulary.
template <class Head>
inline constexpr bool masked_head = Head::trains&& Head::classes == 0 && !Head::contrasts;

/// Words for the first rule that an encoder's policies or shape break; true where they keep all.
template <encoder_shape S, class... Ps>
constexpr bool encoder_fits() {
  using Attention = pick<attention::policy, attention::full, Ps...>;
  using Position = pick<position::policy, position::learned, Ps...>;
  using Sharing = pick<sharing::policy, sharing::none, Ps...>;
  using Embedding = pick<embedding::policy, embedding::full, Ps...>;
  if constexpr (!((known_policy<Ps> || std::is_base_of_v<norm_placement::policy, Ps> ||
                   std::is_base_of_v<head::policy, Ps> ||
                   std::is_base_of_v<compute::arithmetic, Ps>)&&...))
    static_assert(never<Ps...>,
                  "linnet::encoder<shape, policies...>: an argument is not a policy; derive your "
                  "own from ffn::policy, attention::policy or norm::policy");
  else if constexpr (twice<norm_placement::policy, Ps...>)
    static_assert(never<Ps...>, "linnet::encoder: two norm_placement:: policies; give one");
  else if constexpr (twice<head::policy, Ps...>)
    static_assert(never<Ps...>, "linnet::encoder: two head:: policies; give one");
  else if constexpr ((std::is_base_of_v<kv::policy, Ps> || ...))
    static_assert(never<Ps...>,
                  "linnet::encoder: an encoder keeps no keys and values; kv:: policies are for "
                  "decoder<> and t5<>");
  else if constexpr ((std::is_base_of_v<depths::policy, Ps> || ...))
    static_assert(never<Ps...>,
                  "linnet::encoder: every token goes through every block; depths:: policies are "
                  "for decoder<>");
  else if constexpr (S.d_model <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_model, the width of the stream, must be given and "
                  "positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_ff, the hidden width of the feed-forward, must be "
                  "given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: heads, the attention heads, must be given and positive");
  else if constexpr (S.layers <= 0)
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: layers, the number of blocks, must be given and positive");
  else if constexpr (Embedding::reads_images && (S.vocabulary != 0 || S.types != 0))
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: images have no vocabulary and no types: leave vocabulary "
                  "0 and give types = 0 with embedding::patches");
  else if constexpr (Embedding::reads_images && S.context != tokens_of_image<Embedding>)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: context must be the rows of an image, "
                  "embedding::patches<...>::tokens");
  else if constexpr (Embedding::reads_images &&
                     masked_head<pick<head::policy, head::masked_lm, Ps...>>)
    static_assert(never<Ps...>,
                  "linnet::encoder: there are no masked tokens in images; with embedding::patches "
                  "give head::none or another head");
  else if constexpr (S.vocabulary <= 0 && !Embedding::reads_images)
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.context <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: context, the longest sequence in tokens, must be given "
                  "and positive");
  else if constexpr (S.types < 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: types, the token types, must be 0 for none, or positive");
  else if constexpr (S.position_offset < 0 ||
                     (S.position_offset > 0 && !std::is_base_of_v<position::learned, Position>))
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: position_offset, the rows before the first token's, must "
                  "be 0, or positive with position::learned");
  else if constexpr (S.d_kv < 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_kv, the width of a head, must be positive, or 0 for "
                  "d_model / heads");
  else if constexpr (S.d_kv == 0 && S.d_model % S.heads != 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_model must be a multiple of heads; or give d_kv, the "
                  "width of a head");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (!(S.rope_theta > 0))
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: rope_theta, the base of the rotary frequencies, must be positive");
  else if constexpr (Position::pairing != rope_pairing::none && S.head_width() % 2 != 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: rotary positions need an even head width: d_kv, or "
                  "d_model / heads");
  else if constexpr (Position::pairing != rope_pairing::none && !Attention::rotary)
    static_assert(never<Ps...>,
                  "linnet::encoder: this kind of mixing has no rotary positions; take "
                  "position::learned, sinusoidal or none");
  else if constexpr (Attention::least_context > S.context)
    static_assert(never<Ps...>,
                  "linnet::encoder: a global token stands behind the context, the longest sequence "
                  "in tokens; positions are less than shape.context");
  else if constexpr (!Attention::bidirectional)
    static_assert(never<Ps...>,
                  "linnet::encoder: this kind of attention sees no later tokens; it fits decoders");
  else if constexpr (Attention::heads_by_layer)
    static_assert(never<Ps...>,
                  "linnet::attention::per_layer: its heads are those of the layers of a decoder; "
                  "the blocks of an encoder are of one type");
  else if constexpr (Attention::takes_prefix)
    static_assert(never<Ps...>,
                  "linnet::encoder: all tokens see each other already; attention::prefix is for "
                  "decoders");
  else if constexpr (S.layers % Sharing::repeats != 0)
    static_assert(never<Ps...>,
                  "linnet::sharing::repeat<n>: layers, the number of blocks, must be a multiple of "
                  "n");
  else if constexpr (!Sharing::projections.plain() && !Attention::supports_low_rank)
    static_assert(never<Ps...>,
                  "linnet::sharing::lora: this kind of attention's maps take no delta; those of "
                  "full and sliding_window do");
  else if constexpr (!Embedding::whole_rows && !Embedding::reads_images)
    static_assert(never<Ps...>,
                  "linnet::encoder: embedding::tensor_train fits decoders; take embedding::full or "
                  "factorised");
  else
    return true;
  return false;
}
/// Whether reproducible kernels compute what is special to encoders: heads, and narrow tables of
/// tokens.
template <class P>
inline constexpr bool covers_encoder_policy = covers_policy<P>;
template <index Width>
inline constexpr bool covers_encoder_policy<embedding::factorised<Width>> = true;
template <>
inline constexpr bool covers_encoder_policy<head::none> = true;
template <>
inline constexpr bool covers_encoder_policy<head::pooler> = true;
template <>
inline constexpr bool covers_encoder_policy<head::masked_lm> = true;
template <index Classes, activation_kind A>
inline constexpr bool covers_encoder_policy<head::sequence_classification<Classes, A>> = true;
template <index Classes, sentence_pooling Pooling>
inline constexpr bool covers_encoder_policy<head::linear_classification<Classes, Pooling>> = true;
template <index Classes>
inline constexpr bool covers_encoder_policy<head::token_classification<Classes>> = true;
template <sentence_pooling Pooling>
inline constexpr bool covers_encoder_policy<head::contrastive<Pooling>> = true;
template <class... Ps>
inline constexpr bool covers_encoder = covers_policies<
    pick<attention::policy, attention::full, Ps...>, pick<ffn::policy, ffn::gelu, Ps...>,
    pick<norm::policy, norm::layer_norm, Ps...>, pick<sharing::policy, sharing::none, Ps...>,
    typename pick_storage<Ps...>::type>&&
    covers_encoder_policy<pick<embedding::policy, embedding::full, Ps...>>&&
        covers_encoder_policy<pick<head::policy, head::masked_lm, Ps...>>;
/// The fault of the feed-forward of an encoder that fits otherwise.
template <encoder_shape S, class... Ps>
constexpr ffn_fault encoder_ffn_fault() {
  if constexpr (encoder_fits<S, Ps...>())
    return fault_of_ffn<pick<ffn::policy, ffn::gelu, Ps...>, S.d_model, S.d_ff,
                        std::is_same_v<pick<bias::policy, bias::all, Ps...>, bias::all>,
                        pick<sharing::policy, sharing::none, Ps...>::projections>();
  else
    return ffn_fault::none;
}
/// The encoder of a list of policies that fit.
template <bool Fits, encoder_shape Shape, class... Ps>
struct make_encoder {
  using type = encoder_model<
      Shape,
      policy_set<
          pick<ffn::policy, ffn::gelu, Ps...>, pick<attention::policy, attention::full, Ps...>,
          pick<norm::policy, norm::layer_norm, Ps...>,
          pick<norm_placement::policy, norm_placement::post, Ps...>,
          pick<position::policy, position::learned, Ps...>, pick<tie::policy, tie::tied, Ps...>,
          pick<bias::policy, bias::all, Ps...>,
          typename stack_storage<typename pick_model_storage<Ps...>::type, Shape.layers>::type,
          pick<sharing::policy, sharing::none, Ps...>,
          pick<embedding::policy, embedding::full, Ps...>,
          pick<head::policy, head::masked_lm, Ps...>,
          pick<compute::arithmetic, compute::fast, Ps...>>>;
};
/// Stands in for an encoder that was refused, so that nothing is said of it again.
template <encoder_shape Shape, class... Ps>
struct make_encoder<false, Shape, Ps...>
    : make_encoder<
          true,
          encoder_shape{
              .d_model = 2, .d_ff = 1, .heads = 1, .layers = 1, .vocabulary = 1, .context = 1},
          typename storage_of_rest<typename pick_storage<Ps...>::stored>::type> {};
/// The encoder of a shape and policies, or what stands in for it where they do not fit.
template <encoder_shape Shape, class... Ps>
struct checked_encoder {
  static constexpr bool alike =
      !std::is_same_v<pick<sharing::policy, sharing::none, Ps...>, sharing::none>;
  static constexpr bool fits =
      policies_fit<Ps...>() && encoder_fits<Shape, Ps...>() &&
      reproducible_fits<covers_encoder<Ps...>, Ps...>() &&
      ffn_fits<encoder_ffn_fault<Shape, Ps...>(), pick<ffn::policy, ffn::gelu, Ps...>>() &&
      layers_fit<typename pick_model_storage<Ps...>::type, Shape.layers, alike>();
  using type = typename make_encoder<fits, Shape, Ps...>::type;
};
/// The encoder of choices.
template <encoder_shape Shape, class Policies>
struct encoder_of;
template <encoder_shape Shape, class... Ps>
struct encoder_of<Shape, policy_set<Ps...>> : checked_encoder<Shape, Ps...> {};

}  // namespace detail

LINNET_NAMESPACE_END
