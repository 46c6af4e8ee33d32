// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tiny models that several test programs share, and batches for them.

#include <optional>

#include "support/gradients.hpp"

namespace test {

/// Small enough for a gradient check of every parameter; odd widths, two layers, few buckets.
inline constexpr ln::t5_shape tiny_t5_shape{.d_model = 6,
                                            .d_ff = 7,
                                            .d_kv = 2,
                                            .heads = 2,
                                            .encoder_layers = 2,
                                            .decoder_layers = 2,
                                            .vocabulary = 11,
                                            .buckets = 8,
                                            .max_distance = 12,
                                            .eps = 1e-3};
/// The same with other numbers of layers.
constexpr ln::t5_shape t5_of_layers(index encoder, index decoder) {
  ln::t5_shape s = tiny_t5_shape;
  s.encoder_layers = encoder;
  s.decoder_layers = decoder;
  return s;
}
/// A next-thought model with two shrinking layers.
inline constexpr ln::thought_shape tiny_thought_shape{.d_model = 4,
                                                      .d_ff = 5,
                                                      .heads = 2,
                                                      .kv_heads = 1,
                                                      .widths = {6, 4},
                                                      .dropped = {0.4, 0.5},
                                                      .pooling_heads = 2,
                                                      .pseudo = 2,
                                                      .decoder_layers = 2,
                                                      .vocabulary = 7,
                                                      .context = 8,
                                                      .eps = 1e-3};
/// Four query heads in two groups.
inline constexpr ln::t5_shape grouped_t5_shape = [] {
  ln::t5_shape s = tiny_t5_shape;
  s.heads = 4;
  s.kv_heads = 2;
  return s;
}();
inline constexpr ln::decoder_shape tiny_decoder_shape{.d_model = 8,
                                                      .d_ff = 7,
                                                      .heads = 4,
                                                      .kv_heads = 2,
                                                      .layers = 2,
                                                      .vocabulary = 11,
                                                      .context = 64,
                                                      .eps = 1e-3};
/// A teacher of tiny_decoder_shape: wider, with a layer more.
inline constexpr ln::decoder_shape teacher_decoder_shape{.d_model = 16,
                                                         .d_ff = 7,
                                                         .heads = 2,
                                                         .kv_heads = 2,
                                                         .layers = 3,
                                                         .vocabulary = 11,
                                                         .context = 64,
                                                         .eps = 1e-3};
/// Ends for models between bytes: three blocks, one of which keeps its width.
inline constexpr ln::byte_pooling tiny_pooling{.bytes_per_token = 4,
                                               .width = 4,
                                               .between = {6, 6},
                                               .head_blocks = 2,
                                               .heads = 2,
                                               .expansion = 2};
/// Two heads, and a first layer of another type than the second.
inline constexpr ln::decoder_shape tiny_rwkv7_shape{.d_model = 6,
                                                    .d_ff = 7,
                                                    .heads = 2,
                                                    .kv_heads = 2,
                                                    .layers = 2,
                                                    .vocabulary = 11,
                                                    .context = 64,
                                                    .eps = 1e-3};

/// Gives a tensor random values.
template <class T>
struct randomizes {
  std::uint64_t seed;

  template <class Leaf>
  void operator()(const ln::parameter_path& at, const ln::tensor_info& info, Leaf& leaf) const {
    ln::random_stream random(ln::seed{seed}, ln::stream_of(at.str()));
    const double width =
        info.kind == ln::role::matrix ? 1 / std::sqrt(static_cast<double>(info.columns)) : 0.5;
    for (index i = 0; i < info.size(); ++i)
      values_of(leaf)[i] =
          static_cast<T>(width * random.normal() + (info.kind == ln::role::scale ? 1 : 0));
  }
};
/// Random weights of models: bigger than initial ones, so that nothing is nearly linear, and norms
/// and biases away from their start.
template <class M, class T>
void randomize(ln::weights<M, T>& w, std::uint64_t seed = 1) {
  w.visit(randomizes<T>{seed});
}

/// A T5 batch that owns its tokens: sources of different lengths, some labels ignored.
struct t5_tokens {
  index batch, source_length, target_length;
  std::vector<token> source, labels;
  std::vector<index> lengths;

  t5_tokens(index batch_, index source_, index target_, index vocabulary, std::uint64_t stream = 1)
      : batch(batch_),
        source_length(source_),
        target_length(target_),
        source(tokens(batch * source_length, vocabulary, stream)),
        labels(tokens(batch * target_length, vocabulary, stream + 100)) {
    for (index b = 0; b < batch; ++b)
      lengths.push_back((std::max)(index{1}, source_length - 2 * b));
    for (index b = 1; b < batch; b += 2)
      labels[at(b * target_length + target_length - 1)] = ln::ignored;
  }
  ln::t5_batch view() const {
    return {source.data(), lengths.data(), labels.data(), batch, source_length, target_length};
  }
  /// Samples [first, first + count).
  ln::t5_batch part(index first, index count) const {
    return {source.data() + first * source_length,
            lengths.data() + first,
            labels.data() + first * target_length,
            count,
            source_length,
            target_length};
  }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch,
            .source = source_length,
            .target = target_length,
            .threads = threads,
            .min_flops_per_thread = 0};
  }
};

/// A decoder batch that owns its tokens.
struct decoder_tokens {
  index batch, length;
  std::vector<token> inputs, labels;

  decoder_tokens(index batch_, index length_, index vocabulary, std::uint64_t stream = 1)
      : batch(batch_),
        length(length_),
        inputs(tokens(batch * length, vocabulary, stream)),
        labels(tokens(batch * length, vocabulary, stream + 100)) {
    for (index b = 1; b < batch; b += 2)
      labels[at(b * length)] = labels[at(b * length + length - 1)] = ln::ignored;
  }
  ln::decoder_batch view() const { return {inputs.data(), labels.data(), batch, length}; }
  ln::decoder_batch part(index first, index count) const {
    return {inputs.data() + first * length, labels.data() + first * length, count, length};
  }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch, .target = length, .threads = threads, .min_flops_per_thread = 0};
  }
};

/// A batch of a byte_pooled model that owns its tokens and their table: tokens of 1 to slots bytes,
/// the last one the end of a text; some occur twice. `behind` fills what stands behind the first
/// padding of a token.
struct byte_tokens {
  index batch, length, slots, vocabulary;
  std::vector<token> inputs, labels, bytes;

  byte_tokens(index batch_, index length_, index slots_, token behind = ln::byte_pad,
              index vocabulary_ = 9, std::uint64_t stream = 1)
      : batch(batch_),
        length(length_),
        slots(slots_),
        vocabulary(vocabulary_),
        inputs(tokens(batch * length, vocabulary, stream)),
        labels(tokens(batch * length, vocabulary, stream + 100)),
        bytes(tokens(vocabulary * slots, 256, stream + 200)) {
    for (index t = 0; t < vocabulary; ++t) {
      const index size = t + 1 < vocabulary ? t % slots + 1 : 1;
      for (index i = size; i < slots; ++i)
        bytes[at(t * slots + i)] = i == size ? ln::byte_pad : behind;
    }
    bytes[at((vocabulary - 1) * slots)] = ln::byte_end;
    for (index b = 1; b < batch; b += 2)
      labels[at(b * length)] = labels[at(b * length + length - 1)] = ln::ignored;
  }
  ln::byte_batch part(index first, index count) const {
    return {inputs.data() + first * length,
            labels.data() + first * length,
            count,
            length,
            bytes.data(),
            vocabulary};
  }
  ln::byte_batch view() const { return part(0, batch); }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch, .target = length, .threads = threads, .min_flops_per_thread = 0};
  }
  /// The slots of inputs [first, first + count) of a sequence.
  std::vector<token> input(index b, index first, index count) const {
    std::vector<token> all;
    for (index i = b * length + first; i < b * length + first + count; ++i)
      all.insert(all.end(), bytes.begin() + inputs[at(i)] * slots,
                 bytes.begin() + (inputs[at(i)] + 1) * slots);
    return all;
  }
};

template <class M>
t5_tokens t5_data(index batch = 2, index source = 5, index target = 4) {
  return {batch, source, target, M::vocabulary};
}
template <class M>
decoder_tokens decoder_data(index batch = 2, index length = 5) {
  return {batch, length, M::vocabulary};
}
/// The data of any family.
template <class M>
auto data_for(index batch = 2, index source = 5, index target = 4) {
  if constexpr (M::encodes)
    return t5_tokens(batch, source, target, M::vocabulary);
  else if constexpr (M::ids_per_token > 1)
    return byte_tokens(batch, target, M::bytes_per_token);
  else
    return decoder_tokens(batch, target, M::vocabulary);
}

/// Every parameter of these weights by central differences, with some dropout or none. More than
/// one derivative of `each` must not be zero.
template <class M, class Data>
void check_weights(ln::weights<M, double>& w, const Data& data, double dropout = 0,
                   double z_loss = 0, index each = 2) {
  const ln::gradient_report r =
      ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, dropout}, 1e-5, z_loss);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == M::parameters());
  BOOST_TEST(each * r.nonzero > r.entries, text_of(r));
}
/// Those of a whole model.
template <class M, class Data>
void check_model(const Data& data, double dropout = 0, double z_loss = 0) {
  ln::weights<M, double> w;
  randomize(w);
  check_weights(w, data, dropout, z_loss);
}

/// Weights after three steps with dropout, which have the same bits on three threads.
template <class M, class Data>
ln::weights<M> trained_by_threads(const Data& data) {
  const auto run = [&](int threads) {
    ln::weights<M> w;
    randomize(w);
    auto t = ln::trainer<M>::open(w, data.limits(threads), {}, {.dropout = 0.2});
    BOOST_REQUIRE(static_cast<bool>(t));
    for (int i = 0; i < 3; ++i) (void)t->step(data.view());
    return w;
  };
  auto alone = run(1);
  BOOST_TEST(same_bytes(run(3), alone));
  return alone;
}

/// f32 weights with the numbers that stored weights stand for.
template <class M, class Q>
ln::weights<M> decoded(const ln::weights<Q>& q) {
  ln::weights<M> w;
  ln::each_tensor_of(
      [](const ln::parameter_path&, const ln::tensor_info& info, auto& to, const auto& from) {
        if constexpr (requires { from.scales; })
          for (index r = 0; r < info.rows; ++r)
            for (index j = 0; j < info.columns; ++j)
              to.data[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
        else
          std::copy_n(from, info.size(), to);
      },
      w, q);
  return w;
}

}  // namespace test
