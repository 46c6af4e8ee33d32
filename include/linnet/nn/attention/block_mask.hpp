// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Softmax attention in blocks of tokens that see each other: alone, or with all blocks before.

#include <linnet/nn/attention/softmax_attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Tokens see each other in blocks of `Size`, and everything before their block ("block-causal",
/// Arriola et al. 2025, arXiv:2503.09573). Blocks are counted from the beginning of a text, or of a
/// packed document; the last one may be shorter. A label must not be a token that its row sees.
/// This is for masked tokens, as in block diffusion, or for labels of a block behind. A session
/// reads whole blocks in a call. The last block of a text may be part of one: truncate() to its
/// first token before it is read anew. Rows of a batch must not be padded inside of a block.
template <index Size>
struct block_causal : policy {
  static_assert(Size > 0, "linnet::attention::block_causal: a block has at least one token");
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = true, supports_low_rank = true, supports_documents = true,
                        supports_channels = true;
  static constexpr bool counts_tokens = Size > 1;
  static constexpr index block_tokens = Size;
  static constexpr bool supports_int4 = Size > 0 && ops::token_block % (Size > 0 ? Size : 1) == 0;
  using kind = block_causal;
  static std::string name() { return "block_causal<" + std::to_string(Size) + ">"; }
  template <attention_shape A>
  struct layer : linnet::detail::softmax_attention<A, ops::attention_window{.after = Size - 1,
                                                                            .block = Size}> {
    static_assert(A.causal && !A.cross,
                  "linnet::attention::block_causal: for causal self-attention: decoders");
    static_assert(
        A.cache != kv_code::int4 || ops::token_block % Size == 0,
        "linnet::attention::block_causal: kv::int4 rounds the keys of 32 tokens together; "
        "blocks divide them, or take kv::int8");
  };
};

/// Tokens see each other in blocks of `Size`, and nothing else ("block-diagonal"; Qiu et al. 2020
/// have such heads). Time grows with the length. Blocks are counted from the beginning of a text.
template <index Size>
struct block_diagonal : policy {
  static_assert(Size > 0, "linnet::attention::block_diagonal: a block has at least one token");
  static constexpr bool causal = false, supports_cache = false, counts_tokens = true;
  static constexpr bool supports_low_rank = true, supports_documents = true;
  using kind = block_diagonal;
  static std::string name() { return "block_diagonal<" + std::to_string(Size) + ">"; }
  template <attention_shape A>
  struct layer
      : linnet::detail::softmax_attention<
            A, ops::attention_window{.before = Size - 1, .after = Size - 1, .block = Size}> {
    static_assert(!A.causal && !A.cross,
                  "linnet::attention::block_diagonal: for self-attention that sees both ways: "
                  "encoders");
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
