#pragma once
/// @file
/// Shapes: the numbers of a model, as aggregates that serve as template values.

#include <linnet/config/types.hpp>

LINNET_NAMESPACE_BEGIN

/// Numbers of a T5 encoder-decoder (Raffel et al. 2020). `heads * d_kv` need not equal `d_model`.
struct t5_shape {
  index d_model = 0;         ///< width of the residual stream
  index d_ff = 0;            ///< hidden width of the feed-forward
  index d_kv = 0;            ///< width of one attention head
  index heads = 0;           ///< attention heads
  index encoder_layers = 0;  ///< encoder blocks
  index decoder_layers = 0;  ///< decoder blocks
  index vocabulary = 0;      ///< rows of the embedding
  index buckets = 32;        ///< relative position buckets
  index max_distance = 128;  ///< distance from which all positions share the last bucket
  double eps = 1e-6;         ///< added under the root of the norm

  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && d_kv > 0 && heads > 0 && encoder_layers > 0 &&
           decoder_layers > 0 && vocabulary > 0 && buckets >= 4 && buckets % 4 == 0 &&
           max_distance > buckets / 2 && eps > 0;
  }
};

/// Numbers of a decoder-only model: Llama, GPT-2, STLM.
struct decoder_shape {
  index d_model = 0;          ///< width of the residual stream
  index d_ff = 0;             ///< hidden width of the feed-forward
  index heads = 0;            ///< query heads
  index kv_heads = 0;         ///< key and value heads; heads % kv_heads == 0; 1 is multi-query
  index layers = 0;           ///< blocks
  index vocabulary = 0;       ///< rows of the embedding
  index context = 0;          ///< longest sequence in tokens (the size of a learned position table)
  index d_kv = 0;             ///< width of one head; 0 means d_model / heads
  double eps = 1e-5;          ///< added under the root of the norm
  double rope_theta = 10000;  ///< base of the rotary frequencies

  /// Width of one head.
  constexpr index head_width() const { return d_kv > 0 ? d_kv : heads > 0 ? d_model / heads : 0; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 &&
           layers > 0 && vocabulary > 0 && context > 0 && head_width() > 0 &&
           (d_kv > 0 || d_model % heads == 0) && eps > 0 && rope_theta > 0;
  }
};

/// How the linear maps of a layer are made: of one matrix each, of two factors, or of one matrix
/// and a low-rank delta. See linear_map.
struct map_kind {
  index rank = 0;      ///< width between the two factors; 0 for a plain matrix
  bool delta = false;  ///< the factors are added to a matrix: W + alpha / rank B A (LoRA)
  index alpha = 0;     ///< of a delta

  /// Whether a map is one matrix.
  constexpr bool plain() const { return rank == 0; }
};

/// A real number usable as a template value (clang 14 does not take a plain double).
struct real {
  double value;
  /// From a plain number.
  constexpr real(double x) : value(x) {}
};

/// A positive factor usable as a template value, such as `expansion{1.5}`; kept to 1/1000.
struct expansion {
  index thousandths;
  /// From a plain number.
  constexpr expansion(double factor) : thousandths(static_cast<index>(factor * 1000 + 0.5)) {}
  /// `width` times the factor, rounded to the nearest whole number.
  constexpr index of(index width) const { return (width * thousandths + 500) / 1000; }
};

LINNET_NAMESPACE_END
