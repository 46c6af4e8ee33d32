// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tiny encoders and batches for them.

#include "support/models.hpp"

namespace test {

/// Small enough for a gradient check of every parameter; two layers, odd widths, two types.
inline constexpr ln::encoder_shape tiny_encoder_shape{
    .d_model = 6, .d_ff = 7, .heads = 3, .layers = 2, .vocabulary = 11, .context = 32, .eps = 1e-3};

/// An encoder's batch that owns its tokens: sequences of different lengths, two token types, and
/// two labels of three `ignored`.
struct encoder_tokens {
  index batch, length;
  bool per_sequence;
  std::vector<token> inputs, labels, types;
  std::vector<index> lengths;

  encoder_tokens(index batch_, index length_, index vocabulary, index classes, bool per_sequence_,
                 bool typed = true, std::uint64_t stream = 1)
      : batch(batch_),
        length(length_),
        per_sequence(per_sequence_),
        inputs(tokens(batch * length, vocabulary, stream)),
        labels(tokens(per_sequence ? batch : batch * length, classes, stream + 100)),
        types(typed ? tokens(batch * length, 2, stream + 200) : std::vector<token>()) {
    for (index b = 0; b < batch; ++b) lengths.push_back((std::max)(index{1}, length - 2 * b));
    if (per_sequence) return;
    for (index i = 0; i < batch * length; ++i)
      if (i % 3 != 0 || i % length >= lengths[at(i / length)]) labels[at(i)] = ln::ignored;
  }
  ln::encoder_batch view() const {
    return {inputs.data(), lengths.data(), labels.data(), batch, length, types_at(0)};
  }
  /// Sequence `b` alone, without padding.
  ln::encoder_batch alone(index b) const {
    return {inputs.data() + b * length,
            nullptr,
            labels.data() + (per_sequence ? b : b * length),
            1,
            lengths[at(b)],
            types_at(b)};
  }
  /// Types of sequence `b`, or null.
  const token* types_at(index b) const {
    return types.empty() ? nullptr : types.data() + b * length;
  }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch, .target = length, .threads = threads, .min_flops_per_thread = 0};
  }
};
template <class M>
encoder_tokens encoder_data(index batch = 3, index length = 6) {
  return {
      batch, length, M::shape.vocabulary, M::vocabulary, M::label_per_sequence, M::shape.types > 0};
}

}  // namespace test
