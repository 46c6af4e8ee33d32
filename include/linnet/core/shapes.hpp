// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Shapes: the numbers of a model, as aggregates that can be template arguments.

#include <linnet/core/scalars.hpp>

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
  index kv_heads = 0;        ///< key and value heads; heads % kv_heads == 0; 0 means heads

  /// Key and value heads of every attention, cross-attention too.
  constexpr index key_value_heads() const { return kv_heads != 0 ? kv_heads : heads; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && d_kv > 0 && heads > 0 && kv_heads >= 0 &&
           heads % key_value_heads() == 0 && encoder_layers > 0 && decoder_layers > 0 &&
           vocabulary > 0 && buckets >= 4 && buckets % 4 == 0 && max_distance > buckets / 2 &&
           eps > 0;
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

/// Numbers of an encoder that stands alone: BERT (Devlin et al. 2019), DistilBERT, ALBERT.
struct encoder_shape {
  index d_model = 0;          ///< width of the residual stream
  index d_ff = 0;             ///< hidden width of the feed-forward
  index heads = 0;            ///< attention heads
  index layers = 0;           ///< blocks
  index vocabulary = 0;       ///< rows of the embedding
  index context = 0;          ///< longest sequence in tokens (the size of a learned position table)
  index types = 2;            ///< token types, such as first and second text; 0 for no such table
  index position_offset = 0;  ///< rows of a learned position table before the first token's;
                              ///< RoBERTa has 2, one of them the padding's
  index d_kv = 0;             ///< width of one head; 0 means d_model / heads
  double eps = 1e-12;         ///< added under the root of the norm
  double rope_theta = 10000;  ///< base of the rotary frequencies

  /// Width of one head.
  constexpr index head_width() const { return d_kv > 0 ? d_kv : heads > 0 ? d_model / heads : 0; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && heads > 0 && layers > 0 && vocabulary > 0 && context > 0 &&
           types >= 0 && position_offset >= 0 && head_width() > 0 &&
           (d_kv > 0 || d_model % heads == 0) && eps > 0 && rope_theta > 0;
  }
};

/// Kind of a layer's linear maps: one matrix each, two factors, or one matrix and a low-rank delta.
/// See projection.
struct projection_kind {
  index rank = 0;        ///< width between the two factors; 0 for a plain matrix
  bool delta = false;    ///< the factors are added to a matrix: W + alpha / rank B A (LoRA)
  index alpha = 0;       ///< numerator of a delta's factor alpha / rank
  bool normed = false;   ///< maps out of a branch normalise what they read
  bool rotated = false;  ///< they rotate it by a Hadamard transform
  index kept = 0;        ///< they read so many of its largest magnitudes; 0 for all
  index factors = 0;     ///< they are a product of so many matrices, 2 or 3; 0 for one matrix
  index inner = 0;       ///< width between these

  /// Whether a map is one matrix.
  constexpr bool plain() const { return rank == 0; }
};

/// Values of a byte slot behind the bytes 0 to 255: `byte_pad` fills slots behind a token's bytes.
/// `byte_end` is the end of a text, which is a token of its own (Hillier et al. 2024).
inline constexpr token byte_pad = 256, byte_end = 257;
inline constexpr index byte_values = 258;  ///< how many there are

/// Rules for padding, and for the wiring of blocks, in a model of bytes (Hillier et al. 2024).
enum class byte_rules {
  corrected,  ///< padding is seen by nobody and not averaged; its first slot is the token's end
              ///< mark in the loss and the others have none; feed-forwards that keep the width have
              ///< a residual, and the head adds its positions once
  repository  ///< as the published code computes: padding is a byte like others, is averaged and
              ///< trained on in every slot, byte_end is not; no residual; 2x + position in the head
};

/// Numbers of a byte_pooled model's two ends. The embedder makes one vector of a token's bytes; the
/// head predicts the bytes of the next token.
struct byte_pooling {
  index bytes_per_token = 12;  ///< bytes of a token that are kept; shorter ones are padded
  index width = 128;  ///< width of a byte's vector, before the embedder's blocks and in the head
  index between[7] = {256, 256, 256};  ///< widths between the embedder's blocks, up to the first 0;
                                       ///< the last block goes to d_model
  index head_blocks = 7;               ///< blocks of the head, all `width` wide
  index heads = 8;                     ///< attention heads of every block
  index expansion = 4;                 ///< hidden width of a feed-forward, times its input's width
  byte_rules rules = byte_rules::corrected;

  /// Number of blocks of the embedder.
  constexpr index blocks() const {
    index n = 1;
    while (n <= 7 && between[n - 1] > 0) ++n;
    return n;
  }
  /// Width of the input of the embedder's block `k`.
  constexpr index width_before(index k) const { return k == 0 ? width : between[k - 1]; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    for (index k = 0; k < blocks(); ++k)
      if (heads <= 0 || width_before(k) % heads != 0) return false;
    for (index k = blocks() - 1; k < 7; ++k)
      if (between[k] != 0) return false;
    return bytes_per_token > 0 && width > 0 && head_blocks > 0 && expansion > 0;
  }
  /// A copy under other rules.
  constexpr byte_pooling under(byte_rules other) const {
    byte_pooling same = *this;
    same.rules = other;
    return same;
  }
  /// The published code: four blocks 128-256-256-256-d in the embedder, seven in the head.
  static constexpr byte_pooling repository() { return {}; }
  /// The paper: bytes of width 64 and two blocks; numbers that it does not state are taken from the
  /// code.
  static constexpr byte_pooling paper() { return {.width = 64, .between = {64}, .head_blocks = 2}; }
};

/// A real number as a template argument (clang 14 does not take a plain double).
struct real {
  double value;
  /// From a plain number.
  constexpr real(double x) : value(x) {}
};

/// A positive factor as a template argument, such as `expansion{1.5}`; kept to 1/1000.
struct expansion {
  index thousandths;
  /// From a plain number.
  constexpr expansion(double factor) : thousandths(static_cast<index>(factor * 1000 + 0.5)) {}
  /// `width` times the factor, rounded to the nearest whole number.
  constexpr index of(index width) const { return (width * thousandths + 500) / 1000; }
};

LINNET_NAMESPACE_END
