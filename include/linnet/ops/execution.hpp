// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Where operations run: threads, instruction-set level and scratch memory.

#include <utility>

#include <linnet/core/parallel.hpp>
#include <linnet/simd/kernels.hpp>

LINNET_NAMESPACE_BEGIN

struct expert_load;

namespace ops {

using simd::best;
using simd::bf16_code;
using simd::f16_code;
using simd::resolve;
using simd::token_block;
using packed_word = simd::word;  ///< what packed panels of codes are made of

struct input_tap;
struct layer_tap;
struct gradient_tap;
struct weight_tap;

/// Rows of inputs that are rounded to fewer codes than the compute type says, see token_adaptive.
struct token_bits {
  index rows = 0;                  ///< of the products that it is for
  const float* largest = nullptr;  ///< [rows] the largest code, or 0 for that of the type; or null

  /// The largest code of row `i` of products of `m` rows, or 0.
  float of(index m, index i) const { return largest && m == rows ? largest[i] : 0; }
};

/// Where an operation runs: the team of threads, the instruction-set level, and scratch memory of
/// converted_bytes() for models whose products round their inputs.
struct execution {
  team threads{};
  simd::level level = simd::level::portable;
  void* converted = nullptr;
  const input_tap* tap = nullptr;           ///< is shown what products read, or null
  const layer_tap* layers = nullptr;        ///< is shown what layers of a stack make, or null
  const void* attention = nullptr;          ///< an attention_tap of the model's scalar, or null
  const token_bits* bits = nullptr;         ///< tokens whose inputs have few bits, or null
  const void* adapter = nullptr;            ///< adapter_hooks of the model's scalar, or null
  float loss_scale = 1;                     ///< of gradients that products round to f16
  bool notes_ranges = false;                ///< whether 8-bit training notes the largest magnitudes
  const gradient_tap* gradients = nullptr;  ///< is told whose gradients are complete, or null
  const weight_tap* weights = nullptr;      ///< brings the weights of a layer, or null
  expert_load* experts = nullptr;           ///< sums up what routers do in backward, or null
  const float* key_scales = nullptr;  ///< [layers, kv_heads, d_kv] of keys that a cache rounds
                                      ///< by channel, or null
  float* largest_keys = nullptr;      ///< of that size, noted of keys before their rotation
                                      ///< by models with such a cache, or null

  /// Calls f(kernels) with the kernels of the level, see simd/kernels.hpp.
  template <class F>
  void with_kernels(F&& f) const {
    simd::dispatch(level, std::forward<F>(f));
  }
};

/// x[n] = e^x, the same bits on every machine.
inline void exponentials(index n, float* x) {
  simd::detail::unfused_exponentials::run<float>(n, x);
}

/// Inputs that one or more matrices read, which are told apart by where their panels are.
struct product_inputs {
  index rows, width;
  const float* x;  ///< [rows, width]
  index matrices;
  const void* products;
  const void* (*panels)(const void* products, index i);

  /// The panels of matrix `i`.
  const void* panels_of(index i) const { return panels(products, i); }
};
/// A hook that is shown the inputs of products, see calibrate(). Called by every thread; all have
/// returned before the inputs change.
struct input_tap {
  void* object = nullptr;
  void (*call)(void* object, const execution& on, const product_inputs& inputs) = nullptr;
};

/// The rows that a layer of a stack read and wrote, [rows, width].
struct layer_values {
  index rows, width;
  const float *x, *y;
};
/// A hook that is shown what each layer of a stack makes, in order, see block_influence(). Called
/// by every thread; all have returned before the values change.
struct layer_tap {
  void* object = nullptr;
  void (*call)(void* object, const execution& on, const layer_values& values) = nullptr;
};

/// A hook that is told which layer of a stack has its gradients: backward adds nothing more to
/// them. The last layer comes first. Called by every thread; backward goes on when all have
/// returned.
struct gradient_tap {
  void* object = nullptr;
  void (*call)(void* object, const execution& on, index layer) = nullptr;
};

/// A hook that brings the weights of a layer of a stack before its forward, or its backward. They
/// may take the place of another layer's. Called by every thread, of each layer, also of one that
/// the batch leaves out.
struct weight_tap {
  void* object = nullptr;
  void (*call)(void* object, const execution& on, index layer, bool backward) = nullptr;
};

}  // namespace ops

LINNET_NAMESPACE_END
