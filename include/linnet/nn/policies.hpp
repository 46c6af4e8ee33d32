#pragma once
/// @file
/// Policies without a layer of their own: positions, weight tying, biases, and the wrappers that
/// address one stack of an encoder-decoder.

#include <string>

#include <linnet/ops/position.hpp>

LINNET_NAMESPACE_BEGIN

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

/// How tokens become rows of width d_model.
namespace embedding {
/// Base of the embedding policies.
struct policy {};
/// One table [vocabulary, d_model].
struct full : policy {
  static std::string name() { return "full"; }
  static constexpr index width(index d) { return d; }
};
/// A table [vocabulary, Width] and a linear map from Width to d_model (ALBERT, Lan et al. 2019,
/// arXiv:1909.11942; zoo C4). A tied head takes the same two the other way: first the transposed
/// map, from d_model to Width, then the table. (ALBERT's own head has a second map of that shape,
/// with a bias, a GELU and a norm.)
template <index Width>
struct factorised : policy {
  static_assert(Width > 0, "linnet::embedding::factorised: the width must be positive");
  static std::string name() { return "factorised " + std::to_string(Width); }
  static constexpr index width(index) { return Width; }
};
}  // namespace embedding

/// Whether linear maps have biases.
namespace bias {
/// Base of the bias policies.
struct policy {};
struct none : policy {};  ///< T5, Llama, STLM
struct all : policy {};   ///< GPT-2
}  // namespace bias

/// A policy for the encoder alone: t5<shape, encoder<ffn::skip>>.
template <class Policy>
struct encoder {};
/// A policy for the decoder stack alone: t5<shape, decoder_stack<ffn::skip>>.
template <class Policy>
struct decoder_stack {};

LINNET_NAMESPACE_END
