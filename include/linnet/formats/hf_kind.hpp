// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Which of Hugging Face's kinds of models a model type is: T5, Llama, Mixtral, GPT-2, Mamba, BERT
/// or its kin.

#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/t5.hpp>
#include <linnet/nn/recurrent/mamba.hpp>

LINNET_NAMESPACE_BEGIN

/// The kinds of models that Hugging Face files describe.
enum class hf_kind {
  none,        ///< no counterpart: other norms, positions, attention or feed-forwards
  t5,          ///< T5 1.0 and 1.1
  llama,       ///< RMSNorm and rotary positions
  mixtral,     ///< Llama with experts, whose weights are divided by their sum
  gpt2,        ///< LayerNorm, learned positions, biases
  mamba,       ///< RMSNorm, mixer::mamba, neither feed-forward nor positions
  bert,        ///< an encoder with token types
  distilbert,  ///< an encoder without
  albert,      ///< an encoder with one block for all layers and a factorised embedding
  roberta      ///< an encoder with token types, whose first token has a later position than 0
};

namespace detail {
template <class P>
inline constexpr bool is_mamba = false;
template <index State, index Conv, index Expand>
inline constexpr bool is_mamba<mixer::mamba<State, Conv, Expand>> = true;

/// The counterpart of an encoder.
template <class M>
constexpr hf_kind hf_encoder_kind() {
  using H = typename M::head;
  constexpr encoder_shape s = M::shape;
  constexpr bool common =
      !M::of_images && !H::pools && std::is_same_v<typename M::norm, norm::layer_norm> &&
      !M::placement::first && std::is_same_v<typename M::position, position::learned> &&
      M::biased && (M::tied || !M::masked) &&
      std::is_same_v<typename M::attention, attention::full> &&
      ffn_metadata<typename M::ffn>::standard && s.heads * s.head_width() == s.d_model;
  constexpr bool apart = std::is_same_v<typename M::sharing, sharing::none> && !M::factorised,
                 together = std::is_same_v<typename M::sharing, sharing::all> && M::factorised;
  hf_kind kind = hf_kind::none;
  if (common && together && s.types > 0) kind = hf_kind::albert;
  if (common && apart) kind = s.types > 0 ? hf_kind::bert : hf_kind::distilbert;
  if (s.position_offset > 0) {
    // The head of masked tokens is always GELU's.
    constexpr bool gelu = std::is_same_v<typename M::ffn, ffn::gelu>;
    kind = kind == hf_kind::bert && (gelu || !M::masked) ? hf_kind::roberta : hf_kind::none;
  }
  if (kind == hf_kind::distilbert && (s.eps != 1e-12 || std::is_same_v<H, head::pooler>))
    kind = hf_kind::none;
  if constexpr (requires { H::activation; })
    if (H::activation !=
        (kind == hf_kind::distilbert ? activation_kind::relu : activation_kind::tanh))
      kind = hf_kind::none;
  return kind;
}
/// Whether a kind is an encoder.
constexpr bool is_encoder_kind(hf_kind kind) {
  return kind == hf_kind::bert || kind == hf_kind::distilbert || kind == hf_kind::albert ||
         kind == hf_kind::roberta;
}
}  // namespace detail

/// The counterpart of model type `M`.
template <class M>
constexpr hf_kind hf_kind_of() {
  if constexpr (detail::is_t5<M>) {
    constexpr bool rms = std::is_same_v<typename M::norm, norm::rms>;
    const bool full = std::is_same_v<typename M::encoder_attention, attention::full> &&
                      std::is_same_v<typename M::decoder_attention, attention::full>;
    using F = detail::ffn_metadata<typename M::encoder_ffn>;
    const bool one_ffn = std::is_same_v<typename M::encoder_ffn, typename M::decoder_ffn> &&
                         (F::standard || F::gated);
    // Neither Transformers nor files of theirs know of groups.
    const bool own_keys = M::shape.key_value_heads() == M::shape.heads;
    return rms && full && one_ffn && own_keys ? hf_kind::t5 : hf_kind::none;
  } else if constexpr (detail::is_encoder<M>) {
    return detail::hf_encoder_kind<M>();
  } else if constexpr (!detail::is_decoder<M>) {
    return hf_kind::none;
  } else {
    constexpr bool rms = std::is_same_v<typename M::norm, norm::rms>;
    using P = typename M::position;
    using F = detail::ffn_metadata<typename M::ffn>;
    if (M::depths::routes || !std::is_same_v<typename M::sharing, sharing::none> || M::factorised)
      return hf_kind::none;
    if (detail::is_mamba<typename M::attention>)
      return rms && std::is_same_v<P, position::none> && M::ffn::skipped ? hf_kind::mamba
                                                                         : hf_kind::none;
    if (!std::is_same_v<typename M::attention, attention::full>) return hf_kind::none;
    if (rms && F::gated &&
        (std::is_same_v<P, position::rope> || std::is_same_v<P, position::rope_half>))
      return hf_kind::llama;
    if constexpr (requires { typename M::ffn::expert; })
      return rms && detail::ffn_metadata<typename M::ffn::expert>::gated && M::ffn::normalised &&
                     !M::biased && M::rotary
                 ? hf_kind::mixtral
                 : hf_kind::none;
    const bool plain = M::shape.kv_heads == M::shape.heads &&
                       M::shape.heads * M::shape.head_width() == M::shape.d_model;
    const bool gpt2 = std::is_same_v<typename M::norm, norm::layer_norm> &&
                      std::is_same_v<P, position::learned> && M::biased && F::standard;
    return gpt2 && plain ? hf_kind::gpt2 : hf_kind::none;
  }
}

namespace detail {

/// Words for weights that Hugging Face's files do not hold; true for others, and where the file is
/// not `Foreign`.
template <bool Foreign, class M, class Storage>
constexpr bool fits_hugging_face() {
  if constexpr (Foreign && hf_kind_of<M>() == hf_kind::none)
    static_assert(
        never<M>,
        "linnet: this model type has no counterpart at Hugging Face, which knows T5 "
        "(norm::rms, one feed-forward, no grouped queries), Llama (norm::rms, rotary positions, a "
        "gated feed-forward), Mixtral (the same of ffn::experts<n, k>, k > 1) and GPT-2 "
        "(norm::layer_norm, position::learned, bias::all, no "
        "grouped queries, a standard feed-forward), all with attention::full, Mamba "
        "(mixer::mamba, ffn::skip, norm::rms, position::none), and BERT, DistilBERT, "
        "ALBERT and RoBERTa (an encoder's defaults); use save_safetensors() and load_safetensors() "
        "with naming::canonical");
  else if constexpr (Foreign && requires { Storage::mixes; })
    static_assert(
        never<M>,
        "linnet: Hugging Face's layout joins matrices of several roles in one tensor; keep "
        "a model of storage::per_role or storage::layers with naming::canonical");
  else if constexpr (Foreign && (Storage::scaled || is_sparse<Storage>))
    static_assert(never<M>,
                  "linnet: quantized weights are not kept in Hugging Face's layout; load the f32 "
                  "model and quantize() it, or use naming::canonical");
  else
    return true;
  return false;
}

}  // namespace detail

LINNET_NAMESPACE_END
