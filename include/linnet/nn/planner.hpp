// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The size of a call, and the plan of the memory that it needs.

#include <algorithm>

#include <linnet/core/arena.hpp>

LINNET_NAMESPACE_BEGIN

/// The largest call that buffers are planned for.
struct call_shape {
  index batch = 1;         ///< sequences at a time
  index length = 0;        ///< new tokens per sequence in one call
  index memory = 0;        ///< tokens of the encoder's output (cross-attention), else 0
  index capacity = 0;      ///< tokens that the key-value cache holds; 0 while training
  index blocks = 0;        ///< blocks of tokens of a cache that sequences share, or 0
  index threads = 1;       ///< threads that may take part
  bool training = false;   ///< keep what a backward pass needs
  bool recompute = false;  ///< of training: layers of a stack share what they keep by turns, and
                           ///< backward computes it again

  /// Token positions in one call.
  constexpr index rows() const { return batch * length; }
};

/// Softmax attention that an ops::attention_tap is shown in one pass, in all layers.
struct attention_extent {
  index calls = 0;
  index heads = 0;                 ///< of all calls
  index values = 0;                ///< of queries and keys, of all calls
  index rows = 0;                  ///< most rows of queries or keys in one call
  index map = 0;                   ///< largest attention map of a head
  index q_width = 0, k_width = 0;  ///< of queries, and of keys or values, at most
  index asked = -1;                ///< number of a call whose heads are asked for
  index asked_heads = 0;           ///< of that call

  constexpr void add(index of_heads, index batch, index queries, index keys, index of_q,
                     index of_k) {
    if (calls == asked) asked_heads = of_heads;
    ++calls;
    heads += of_heads;
    const index each = add_sizes(multiply_sizes(queries, of_q), multiply_sizes(keys, of_k));
    values = add_sizes(values, multiply_sizes(batch, each));
    rows = (std::max)(rows, multiply_sizes(batch, (std::max)(queries, keys)));
    map = (std::max)(map, multiply_sizes(queries, keys));
    q_width = (std::max)(q_width, of_q);
    k_width = (std::max)(k_width, of_k);
  }
};

/// Planner of three kinds of memory: state, saved values and scratch. A layer that holds a scratch
/// buffer while it calls another layer takes it before planning that layer and releases it
/// afterwards.
struct planner {
  arena state{};    ///< lasts from call to call: key-value caches
  arena saved{};    ///< lasts from forward to backward; without training, layers share it by turns
  arena scratch{};  ///< lasts for one call of the layer that takes it
  int dropout_ids = 0;  ///< dropout ids given so far
  attention_extent attention{};
  /// ops::converted_bytes() of the storage type; 0 if products do not round their inputs. It is
  /// never null, as g++ with -fsanitize=undefined compares no function in a constant.
  index (*converted_bytes)(index rows, index in, index out, index threads, bool training) =
      [](index, index, index, index, bool) -> index { return 0; };
  index converted = 0;          ///< the most that a product needs
  bool keeps_branches = false;  ///< residual branches keep what they make, for adapters that train

  /// Makes room for a product of `rows` inputs.
  constexpr void product(index rows, index in, index out, const call_shape& e) {
    const index bytes = converted_bytes(rows, in, out, e.threads, e.training);
    converted = bytes > converted ? bytes : converted;
  }
};

LINNET_NAMESPACE_END
