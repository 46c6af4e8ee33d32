// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Names of policies, and policies without a layer of their own: positions, weight tying, biases,
/// and wrappers for one stack of an encoder-decoder.

#include <type_traits>

#include <linnet/ops/relative_bias.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether a policy has a name of its own, by which files know it. Kinds that others derive from
/// say which they are by `kind`, so that a name that is only inherited does not count.
template <class P>
constexpr bool names_itself() {
  if constexpr (!requires { P::name(); })
    return false;
  else if constexpr (!requires { &P::kind::name; })
    return true;
  else if constexpr (std::is_same_v<P, typename P::kind> && requires { typename P::dense; })
    return names_itself<typename P::dense>();
  else
    return std::is_same_v<P, typename P::kind> || &P::name != &P::kind::name;
}

}  // namespace detail

/// Position policies of decoder-only models.
namespace position {
/// Base of every position policy.
struct policy {
  static constexpr rope_pairing pairing = rope_pairing::none;
};
/// Rotary, interleaved pairs (2i, 2i+1): Meta's Llama, llama2.c, STLM.
struct rope : policy {
  static constexpr rope_pairing pairing = rope_pairing::interleaved;
};
/// Rotary, pairs (i, i + h/2): Hugging Face's Llama.
struct rope_half : policy {
  static constexpr rope_pairing pairing = rope_pairing::half;
};
struct learned : policy {};  ///< a trained table [context, d_model], added to the embedding (GPT-2)
struct sinusoidal : policy {};  ///< fixed sines and cosines, added to the embedding
struct none : policy {};        ///< no positions: causal attention alone orders the tokens
}  // namespace position

/// Whether the output head shares the embedding's matrix.
namespace tie {
/// Base of the tying policies.
struct policy {};
struct tied : policy {};    ///< one matrix [vocabulary, d_model] at both ends
struct untied : policy {};  ///< a head of its own
}  // namespace tie

/// Whether linear maps have biases.
namespace bias {
/// Base of the bias policies.
struct policy {};
struct none : policy {};  ///< T5, Llama, STLM
struct all : policy {};   ///< GPT-2
}  // namespace bias

/// Where the norms of an encoder's blocks stand.
namespace norm_placement {
/// Base of the placements.
struct policy {};
/// y = norm(x + branch(x)): BERT.
struct post : policy {
  static constexpr bool first = false;
  static constexpr const char* text = "post";
};
/// y = x + branch(norm(x)), and a norm behind the last block (Xiong et al. 2020).
struct pre : policy {
  static constexpr bool first = true;
  static constexpr const char* text = "pre";
};
}  // namespace norm_placement

/// A policy for the encoder alone: t5<shape, encoder_stack<ffn::skip>>.
template <class Policy>
struct encoder_stack {};
/// A policy for the decoder stack alone: t5<shape, decoder_stack<ffn::skip>>.
template <class Policy>
struct decoder_stack {};

LINNET_NAMESPACE_END
