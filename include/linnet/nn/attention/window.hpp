// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Softmax attention to near tokens only: sliding windows, and windows with attention sinks.

#include <linnet/nn/attention/softmax_attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Each token sees the last `Width` tokens, itself included; in an encoder `Width` to either side
/// (Beltagy et al. 2020). Time and cache grow with Width instead of the length: the cache is a
/// ring.
template <index Width>
struct sliding_window : policy {
  static_assert(Width > 0, "linnet::attention::sliding_window: the width must be positive");
  static constexpr bool can_truncate = true, evicts = true, supports_low_rank = true,
                        supports_documents = true, supports_channels = true;
  using kind = sliding_window;
  static std::string name() { return "sliding_window<" + std::to_string(Width) + ">"; }
  template <attention_shape A>
  struct layer : linnet::detail::softmax_attention<
                     A, A.causal ? ops::attention_window{.before = Width - 1, .after = 0}
                                 : ops::attention_window{.before = Width, .after = Width}> {
    static_assert(!A.cross,
                  "linnet::attention::sliding_window: cross-attention has no near tokens");
  };
};

/// Each token sees the first `First` tokens, the sinks, and the last `Recent` ones, itself included
/// (Xiao et al. 2023). Positions count kept tokens: however long the text, a sink is no
/// further away than First + Recent - 1. Time and memory per token stay constant.
///
/// Keys are cached rotated to their places in the text. The paper rotates all cached keys to their
/// slots in each step. Rotary scores depend on distances alone. So it is equal to compare keys with
/// a query at its place, and the sinks with a query at its slot.
template <index First, index Recent>
struct sinks : policy {
  static_assert(First > 0 && Recent > 0, "linnet::attention::sinks: both counts must be positive");
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = true, evicts = true, supports_low_rank = true,
                        supports_documents = true, supports_channels = true;
  static constexpr index min_positions = First + Recent;
  using kind = sinks;
  static std::string name() {
    return "sinks<" + std::to_string(First) + ", " + std::to_string(Recent) + ">";
  }
  template <attention_shape A>
  struct layer
      : linnet::detail::softmax_attention<
            A, ops::attention_window{.before = Recent - 1, .after = 0, .first = First}, true> {
    static_assert(A.causal && !A.cross,
                  "linnet::attention::sinks: for causal self-attention: decoders");
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
