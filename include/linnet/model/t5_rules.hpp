// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The rules that a T5's shape and policies keep, each with a sentence for what breaks it.

#include <linnet/model/policy_set.hpp>
#include <linnet/model/reproducible.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class P>
inline constexpr bool known_t5_policy =
    known_policy<P> || std::is_base_of_v<compute::arithmetic, P>;
template <class P>
inline constexpr bool known_t5_policy<encoder_stack<P>> =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<attention::policy, P>;
template <class P>
inline constexpr bool known_t5_policy<decoder_stack<P>> = known_t5_policy<encoder_stack<P>>;

/// Words for the first rule that a T5's policies or shape break; true where they keep all.
template <t5_shape S, class... Ps>
constexpr bool t5_fits() {
  using EncoderAttention =
      pick_for<linnet::encoder_stack, attention::policy, attention::full, Ps...>;
  using DecoderAttention = pick_for<decoder_stack, attention::policy, attention::full, Ps...>;
  if constexpr (!(known_t5_policy<Ps> && ...))
    static_assert(never<Ps...>,
                  "linnet::t5<shape, policies...>: an argument is not a policy; derive your own "
                  "from ffn::policy, attention::policy or norm::policy, and wrap only ffn:: and "
                  "attention:: policies in encoder_stack<> or decoder_stack<>");
  else if constexpr ((std::is_base_of_v<position::policy, Ps> || ...))
    static_assert(
        never<Ps...>,
        "linnet::t5: T5 has its own relative positions; position:: policies are for decoder<>");
  else if constexpr ((std::is_base_of_v<bias::all, Ps> || ...))
    static_assert(never<Ps...>, "linnet::t5: T5 has no biases; bias::all is for decoder<>");
  else if constexpr ((std::is_base_of_v<depths::policy, Ps> || ...))
    static_assert(
        never<Ps...>,
        "linnet::t5: every token goes through every block; depths:: policies are for decoder<>");
  else if constexpr (((std::is_base_of_v<sharing::policy, Ps> ||
                       std::is_base_of_v<embedding::policy, Ps>) ||
                      ...))
    static_assert(never<Ps...>, "linnet::t5: sharing:: and embedding:: policies are for decoder<>");
  else if constexpr (pick<kv::policy, kv::exact, Ps...>::calibrated)
    static_assert(never<Ps...>,
                  "linnet::t5: kv::channel_int8 and kv::channel_int4 are for decoder<>; take "
                  "kv::int8 or kv::int4");
  else if constexpr (S.d_model <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: d_model, the width of the stream, must be given and positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(
        never<Ps...>,
        "linnet::t5_shape: d_ff, the hidden width of the feed-forward, must be given and positive");
  else if constexpr (S.d_kv <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: d_kv, the width of a head, must be given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: heads, the attention heads, must be given and positive");
  else if constexpr (S.kv_heads < 0 || S.heads % S.key_value_heads() != 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: kv_heads must divide heads, as each key-value head serves as "
                  "many query heads; 0 means heads");
  else if constexpr (S.encoder_layers <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: encoder_layers, the number of the encoder's blocks, must be "
                  "given and positive");
  else if constexpr (S.decoder_layers <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: decoder_layers, the number of the decoder's blocks, must be "
                  "given and positive");
  else if constexpr (S.vocabulary <= 0)
    static_assert(
        never<Ps...>,
        "linnet::t5_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.buckets < 4 || S.buckets % 4 != 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: buckets, the relative position buckets, must be a positive "
                  "multiple of 4");
  else if constexpr (S.max_distance <= S.buckets / 2)
    static_assert(never<Ps...>, "linnet::t5_shape: max_distance must be greater than buckets / 2");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::t5_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (EncoderAttention::takes_prefix || DecoderAttention::takes_prefix)
    static_assert(
        never<Ps...>,
        "linnet::t5: the source is seen both ways already; attention::prefix is for decoders");
  else if constexpr (EncoderAttention::heads_by_layer || DecoderAttention::heads_by_layer)
    static_assert(never<Ps...>,
                  "linnet::attention::per_layer: its heads are those of the layers of a decoder; "
                  "the blocks of a T5 read one table of relative positions");
  else if constexpr (DecoderAttention::block_tokens > 1)
    static_assert(never<Ps...>,
                  "linnet::t5: a target is written token by token; attention::block_causal is for "
                  "decoders");
  else if constexpr (!EncoderAttention::bidirectional || !DecoderAttention::causal ||
                     !DecoderAttention::supports_cache)
    static_assert(never<Ps...>,
                  "linnet::t5: this kind of attention does not fit this stack: an encoder needs a "
                  "bidirectional kind, a decoder a causal one that continues cached sequences; "
                  "wrap it in encoder_stack<> or decoder_stack<>");
  else
    return true;
  return false;
}
/// Whether reproducible kernels compute all that a T5's policies ask for.
template <class... Ps>
inline constexpr bool covers_t5 =
    covers_policies<pick_for<linnet::encoder_stack, attention::policy, attention::full, Ps...>,
                    pick_for<decoder_stack, attention::policy, attention::full, Ps...>,
                    pick_for<linnet::encoder_stack, ffn::policy, ffn::relu, Ps...>,
                    pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>,
                    pick<norm::policy, norm::rms, Ps...>, pick<kv::policy, kv::exact, Ps...>,
                    typename pick_storage<Ps...>::type>;
/// The fault of the feed-forward of the stack that `Wrapper` addresses, in a T5 that fits
/// otherwise.
template <template <class> class Wrapper, t5_shape S, class... Ps>
constexpr ffn_fault t5_ffn_fault() {
  if constexpr (t5_fits<S, Ps...>())
    return fault_of_ffn<pick_for<Wrapper, ffn::policy, ffn::relu, Ps...>, S.d_model, S.d_ff,
                        false>();
  else
    return ffn_fault::none;
}

}  // namespace detail

LINNET_NAMESPACE_END
