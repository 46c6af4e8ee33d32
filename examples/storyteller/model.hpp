// SPDX-License-Identifier: MIT
#pragma once
// The model of the storyteller, which its trainer and its program share.

#include <linnet/inference.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

namespace storyteller {

namespace ln = linnet;

/// 1.35 million numbers. The last id ends a story.
inline constexpr ln::decoder_shape shape{.d_model = 160,
                                         .d_ff = 320,
                                         .heads = 5,
                                         .kv_heads = 5,
                                         .layers = 4,
                                         .vocabulary = 2048,
                                         .context = 384};
inline constexpr ln::token end = shape.vocabulary - 1;

/// The model as it is trained, and as it is shipped: a scale for each 32 codes of 4 bits.
using model = ln::decoder<shape>;
using small_model = model::with_storage<ln::storage::int4<32>>;

}  // namespace storyteller
