// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention policies: the numbers of one attention layer, and the traits that every kind states.

#include <string>

#include <linnet/core/shapes.hpp>
#include <linnet/nn/attention/kv_channels.hpp>
#include <linnet/nn/policies.hpp>
#include <linnet/ops/relative_bias.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

/// The numbers of one attention layer, filled in by the model.
struct attention_shape {
  index d_model = 0;
  index heads = 0;
  index kv_heads = 0;  ///< heads % kv_heads == 0
  index d_kv = 0;      ///< width of one head
  bool causal = false;
  bool cross = false;     ///< keys and values come from the encoder's output
  bool scaled = true;     ///< scores are divided by sqrt(d_kv); T5 does not
  bool bias = false;      ///< linear maps have biases
  bool relative = false;  ///< add the stack's relative-position bias
  bool first = false;     ///< the first layer of its stack, for policies that are `first_differs`
  rope_pairing rope = rope_pairing::none;
  kv_code cache = kv_code::exact;
  bool hadamard = false;   ///< queries and keys are rotated, for policies that are
                           ///< `supports_low_rank`
  bool qk_norm = false;    ///< heads of queries and keys are normalised before their positions;
                           ///< likewise
  index predictor = 0;     ///< rank of what chooses heads, 0 where all are computed; likewise
  double least_score = 0;  ///< of heads that are computed
  projection_kind
      projections{};  ///< how the linear maps are made, for policies that are `supports_low_rank`

  /// Width of all query heads together.
  constexpr index n() const { return heads * d_kv; }
  /// Width of all key or value heads together.
  constexpr index kv() const { return kv_heads * d_kv; }
};

namespace detail {
/// Attention with another number of query heads, and as many queries for each key.
constexpr attention_shape with_heads(attention_shape a, index count) {
  a.kv_heads = count * a.kv_heads / a.heads;
  a.heads = count;
  return a;
}
}  // namespace detail

/// Attention policies: `layer<shape>` is a layer (see nn/layer.hpp) from width d_model to d_model.
/// It also has `state_values(tokens)`: the numbers that it keeps for each sequence of up to
/// `tokens` tokens while decoding.
namespace attention {

/// Base of every policy that mixes the tokens of a sequence; a kind overrides what differs. Models
/// refuse it where it cannot work. `static std::string name()` is what files call it: a kind that
/// is kept in files has one of its own. A kind that others derive from says `using kind = itself`.
struct policy {
  static constexpr bool causal = true;          ///< can be kept from seeing later tokens
  static constexpr bool bidirectional = true;   ///< can see later tokens
  static constexpr bool supports_cache = true;  ///< can continue cached sequences
  static constexpr bool can_truncate = false;   ///< cached tokens can be taken back again
  static constexpr bool evicts = false;         ///< a cache keeps only what later tokens will see
  static constexpr bool noncausal_grouping =
      false;  ///< later tokens decide which earlier ones meet,
              ///< but in sessions, where they are unknown
  static constexpr bool supports_token_subset =
      false;  ///< works on any subset of the tokens, with the
              ///< angles and the past that the context gives
  static constexpr bool supports_documents = false;  ///< keeps documents packed in a row apart
  static constexpr bool supports_trees = false;  ///< cached tokens can be a tree, whose branches do
                                                 ///< not see each other
  static constexpr bool takes_prefix = false;    ///< sees a prefix of the sequence both ways
  static constexpr index block_tokens = 1;       ///< tokens that see each other both ways;
                                                 ///< sessions read whole blocks of them
  static constexpr bool counts_tokens = false;   ///< counts blocks or positions from a text's first
                                                 ///< token, so nothing may stand before it
  static constexpr index min_positions = 0;      ///< positions that it needs whatever the length
  static constexpr bool supports_int4 = true;    ///< can keep keys in kv::int4
  static constexpr bool supports_channels = false;  ///< can keep keys in kv::channel_int8
  static constexpr bool supports_pages = true;      ///< sessions may ask for limits.kv_blocks
  static constexpr index least_context = 0;         ///< tokens that a model's context must have
  static constexpr index longest = 0;               ///< most tokens an encoder may read; 0 for any
  static constexpr bool first_differs = false;   ///< the first layer of a stack is of another type
  static constexpr bool heads_by_layer = false;  ///< layers of a decoder have unlike heads
  static constexpr bool rotary = true;           ///< can take rotary positions
  static constexpr bool supports_low_rank =
      false;                                     ///< its linear maps may be of any projection_kind
  static constexpr bool embedding_norm = false;  ///< wants the embedding normalised first
  static constexpr bool relative_bias = true;    ///< has scores of pairs, to which T5 adds a bias
};

}  // namespace attention

LINNET_NAMESPACE_END
