// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Context of a call: sizes, tables and options that all its layers read.

#include <algorithm>

#include <linnet/core/view.hpp>
#include <linnet/ops/dropout.hpp>
#include <linnet/ops/kv_rows.hpp>

LINNET_NAMESPACE_BEGIN

/// Layers [first, last) of a stack.
struct layer_range {
  index first = 0;
  index last = index{1} << 48;
  bool head = true;  ///< whether the model's final norm and head follow

  /// Whether layer `l` is one of them.
  constexpr bool holds(index l) const { return first <= l && l < last; }
};

/// A hook that sees the stream between the layers of a stack.
template <class T>
struct layer_hook {
  const void* object = nullptr;
  void (*call)(const void* object, index layer, const T* x, T* dx) = nullptr;

  /// Calls f(layer, x, dx) for each layer but the last. x[rows, width] is the output of `layer`,
  /// which the next one reads. In backward, dx is its gradient so far, to which f may add;
  /// otherwise dx is null. The last layer's output is not shown.
  template <class F>
  static layer_hook of(const F& f) {
    return {&f, [](const void* self, index layer, const T* x, T* dx) {
              (*static_cast<const F*>(self))(layer, x, dx);
            }};
  }
  /// Shows the hook, if there is one, the input of layer `next`.
  void operator()(index next, const T* x, T* dx) const {
    if (call && next > 0) call(object, next - 1, x, dx);
  }
};

/// Place of a call in a stack of layers.
template <class T>
struct stack_place {
  index layer = 0;                        ///< number of the running layer
  const ops::layer_mask* mask = nullptr;  ///< samples that skip it, or null
  layer_range layers{};                   ///< layers that run; all of them in training
  layer_hook<T> hook{};                   ///< is shown the stream between layers
};

/// Output of the encoder, which cross-attention reads.
template <class T>
struct encoder_memory {
  const T* states = nullptr;         ///< [batch * length, d_model]
  T* d_states = nullptr;             ///< their gradient
  index length = 0;                  ///< padded tokens of each sequence
  const index* lengths = nullptr;    ///< valid tokens of each sequence, or null when all are
  bool cached = false;               ///< their keys and values are in the cache already
  const index* documents = nullptr;  ///< [batch * length] first token of each one's document, of as
                                     ///< many as the context's, or null

  /// Number of valid tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

/// Bias of attention scores by relative position, a line per head (Raffel et al. 2020).
template <class T>
struct relative_bias {
  const T* lines = nullptr;  ///< [heads, 2 * origin + 1], by key position - query position
  T* d_lines = nullptr;      ///< their gradient, one copy per sequence
  index origin = 0;          ///< place of distance 0 in a line

  /// Distance 0 of the line of a head.
  const T* of(index head) const { return lines + head * (2 * origin + 1) + origin; }
  /// Distance 0 of the gradient of the line of a sequence and head.
  T* d_of(index b, index heads, index head) const {
    return d_lines + (b * heads + head) * (2 * origin + 1) + origin;
  }
};

/// Cosines and sines of rotary positions (Su et al. 2021).
template <class T>
struct rotary_angles {
  const T* table = nullptr;          ///< [positions, d_kv]
  index positions = index{1} << 48;  ///< rows of the table
  const T* beyond = nullptr;         ///< [rows, d_kv] of the rows at later positions
};

/// Values of attention that the first layer of a stack shares with later ones (RWKV-7).
template <class T>
struct value_residual {
  const T* values = nullptr;  ///< [rows, d_model]
  T* d_values = nullptr;      ///< their gradient, from all later layers
};

/// Context of a call, which all its layers read.
template <class T>
struct context {
  ops::execution on{};             ///< threads and instruction-set level
  index batch = 1;                 ///< sequences
  index length = 0;                ///< new tokens per sequence; inputs are [batch * length, width]
  const index* lengths = nullptr;  ///< valid new tokens of each sequence, or null when all are
  const index* past = nullptr;     ///< tokens of each sequence that are already cached, or null
  const index* prefix = nullptr;   ///< first tokens of each sequence that see each other, or null
  const index* documents = nullptr;  ///< [rows] first token of each one's document in its sequence,
                                     ///< or null where a sequence is one document
  ops::token_tree tree{};            ///< what new tokens follow, where they are no text
  index front = 0;                   ///< first of the new tokens that are an adapter's virtual ones
  dropout_key dropout{};             ///< masks of this step; rate 0 outside training
  stack_place<T> stack{};            ///< where in a stack the call is
  encoder_memory<T> memory{};        ///< what cross-attention reads
  relative_bias<T> bias{};           ///< what T5 adds to scores
  rotary_angles<T> rope{};           ///< what rotates queries and keys
  ops::page_tables pages{};          ///< blocks of paged caches
  value_residual<T> first_layer{};   ///< what the first layer leaves to the others

  /// Number of rows of the inputs.
  index rows() const { return batch * length; }
  /// Number of tokens of sequence `b` before this call.
  index past_of(index b) const { return past ? past[b] : 0; }
  /// Position of a row in its document. Padding behind cached tokens is where the last valid token
  /// is: other sequences may bring more rows than a nearly full one has room for.
  index position_of(index row) const {
    const index b = row / length;
    index t = row % length;
    if (past && lengths) t = (std::min)(t, (std::max)(lengths[b], index{1}) - 1);
    const index place = tree.depths ? tree.depths[row] : t;
    return past_of(b) + place - (documents ? documents[row] : 0);
  }
  /// Cosines and sines for the position of a row.
  const T* rope_of(index row, index d_kv) const {
    const index position = position_of(row);
    return position < rope.positions ? rope.table + position * d_kv : rope.beyond + row * d_kv;
  }
  /// Whether sequence `b` skips the running layer. What the layer computes of it is thrown away and
  /// its dy is 0; what training adds beside dy's own gradient must leave it out.
  bool skips(index b) const { return stack.mask && stack.mask->drops(b); }
  /// Number of valid new tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

LINNET_NAMESPACE_END
