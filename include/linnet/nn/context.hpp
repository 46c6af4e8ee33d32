// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Context of a call: sizes, tables and options that all its layers read.

#include <cstdint>

#include <linnet/core/view.hpp>
#include <linnet/ops/dropout.hpp>

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

/// Context of a call, which all its layers read.
template <class T>
struct context {
  ops::execution on{};             ///< threads and instruction-set level
  index batch = 1;                 ///< sequences
  index layer = 0;                 ///< number of the running layer of a repeat
  index length = 0;                ///< new tokens per sequence; inputs are [batch * length, width]
  const index* lengths = nullptr;  ///< valid new tokens of each sequence, or null when all are
  const index* past = nullptr;     ///< tokens of each sequence that are already cached, or null
  const std::int32_t* tables = nullptr;  ///< [batch, table_size] blocks of paged caches, or null
  index table_size = 0;
  const index* prefix = nullptr;  ///< first tokens of each sequence that see each other, or null
  const T* memory = nullptr;      ///< encoder output [batch * memory_length, d_model]
  T* d_memory = nullptr;          ///< its gradient
  index memory_length = 0;        ///< padded length of the encoder output
  const index* memory_lengths = nullptr;  ///< valid encoder tokens of each sequence
  bool memory_cached = false;  ///< keys and values of the memory are in the cache already
  const T* bias = nullptr;     ///< relative-position bias lines [heads, 2 * bias_origin + 1]
  T* d_bias = nullptr;         ///< their gradient, one copy per sequence
  index bias_origin = 0;       ///< position of distance 0 in a bias line
  const T* rope = nullptr;     ///< cosines and sines [rope_positions, d_kv]
  index rope_positions = index{1} << 48;
  const T* rope_beyond = nullptr;   ///< [rows, d_kv] of the rows whose positions lie behind those
  const T* first_values = nullptr;  ///< values [rows, d_model] that the first layer shares
  T* d_first_values = nullptr;      ///< their gradient, from all later layers
  dropout_key dropout{};            ///< masks of this step; rate 0 outside training
  const ops::layer_mask* mask = nullptr;  ///< samples that skip the running layer of a stack
  layer_range layers{};                   ///< of the stack that run; all of them in training
  layer_hook<T> hook{};                   ///< is shown the stream between layers

  /// Number of rows of the inputs.
  index rows() const { return batch * length; }
  /// Number of tokens of sequence `b` before this call.
  index past_of(index b) const { return past ? past[b] : 0; }
  /// Cosines and sines for the position of a row.
  const T* rope_of(index row, index d_kv) const {
    const index position = past_of(row / length) + row % length;
    return position < rope_positions ? rope + position * d_kv : rope_beyond + row * d_kv;
  }
  /// Whether sequence `b` skips the running layer. What the layer computes of it is thrown away and
  /// its dy is 0; what training adds beside dy's own gradient must leave it out.
  bool skips(index b) const { return mask && mask->drops(b); }
  /// Number of valid new tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

LINNET_NAMESPACE_END
