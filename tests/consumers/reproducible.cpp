// SPDX-License-Identifier: MIT
// What compute::reproducible promises: a decoder, a T5 and an encoder have the same losses while
// they train and then the same 1,000,000 logits, in f32 and in W8A8, whatever the instruction-set
// level, compiler, flags and processor. So has an encoder that learns from pairs of texts the same
// losses and vectors. Golden digests are below.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <linnet/linnet.hpp>

#include <array>
#include <cstdio>
#include <vector>

namespace ln = linnet;

namespace {

constexpr ln::index vocabulary = 500, length = 40;
constexpr ln::decoder_shape llama{.d_model = 20,
                                  .d_ff = 36,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = vocabulary,
                                  .context = length};
constexpr ln::t5_shape t5{.d_model = 20,
                          .d_ff = 36,
                          .d_kv = 6,
                          .heads = 3,
                          .encoder_layers = 1,
                          .decoder_layers = 1,
                          .vocabulary = vocabulary};
constexpr ln::encoder_shape bert{.d_model = 20,
                                 .d_ff = 36,
                                 .heads = 2,
                                 .layers = 1,
                                 .vocabulary = vocabulary,
                                 .context = length};
using arithmetic = ln::compute::reproducible;
using decoder = ln::decoder<llama, arithmetic>;
using encoder_decoder = ln::t5<t5, arithmetic, ln::encoder_stack<ln::ffn::gated_gelu>>;
using encoder = ln::encoder<bert, arithmetic, ln::embedding::factorised<12>>;
using pair_encoder = ln::encoder<bert, arithmetic, ln::head::contrastive<>>;

/// FNV-1a of words.
struct digest {
  std::uint64_t hash = 0xcbf29ce484222325ull;

  template <class Word, class T>
  void add(const T& x) {
    Word bits = 0;
    static_assert(sizeof bits == sizeof x);
    __builtin_memcpy(&bits, &x, sizeof x);
    hash = (hash ^ bits) * 0x100000001b3ull;
  }
  void add(std::span<const float> all) {
    for (const float x : all) add<std::uint32_t>(x);
  }
};

/// Prints a digest; whether it is the golden one.
bool same(const char* of, const digest& d, std::uint64_t golden) {
  const bool right = d.hash == golden;
  std::printf("  %-24s %016llx%s\n", of, static_cast<unsigned long long>(d.hash),
              right ? "" : ", which differs");
  return right;
}

/// Texts of some words, some shorter than others.
struct texts {
  std::vector<ln::token> words, labels, types;
  std::vector<ln::index> lengths;
  ln::index batch;

  explicit texts(ln::index rows) : batch(rows) {
    for (ln::index i = 0; i < rows * length; ++i) {
      const ln::index row = i / length, at = i % length, valid = length - 1 - row % 3;
      words.push_back(static_cast<ln::token>((i * i + 7 * row) % vocabulary));
      labels.push_back(at < valid ? static_cast<ln::token>((i * i + 2 * i) % vocabulary)
                                  : ln::ignored);
      types.push_back(at > 20);
      if (at == 0) lengths.push_back(valid);
    }
  }
  /// These texts as a batch of a model. A T5 writes the labels.
  template <class M>
  typename M::batch as() const {
    typename M::batch b;
    b.labels = labels.data();
    b.batch = batch;
    if constexpr (M::encodes) {
      b.source = words.data();
      b.source_lengths = lengths.data();
      b.source_length = b.target_length = length;
    } else {
      b.tokens = words.data();
      b.length = length;
    }
    if constexpr (!M::supports_cache) {
      b.lengths = lengths.data();
      b.types = types.data();
    }
    return b;
  }
};

/// The digest of five losses of a batch; trains `w`.
template <class M, class... Objective>
digest trained(ln::weights<M>& w, const ln::limits& limits, const Objective&... objective) {
  digest d;
  const texts some(limits.batch);
  auto train = ln::trainer<M>::open(w, limits, {.rate = ln::schedule::cosine(1e-2, 2, 7)},
                                    {.dropout = 0.1, .z_loss = sizeof...(objective) ? 0 : 1e-4});
  for (int step = 0; train && step < 5; ++step)
    d.add<std::uint64_t>(train->step(some.as<M>(), objective...));
  return d;
}

/// The digest of the logits of some texts.
template <class M>
digest scored(const ln::packed<M>& weights, ln::limits limits, std::size_t& count) {
  digest d;
  const texts some(limits.batch);
  std::vector<float> logits(some.words.size() * vocabulary);
  auto score = ln::evaluator<M>::open(weights, limits);
  if (!score) return d;
  d.add<std::uint64_t>(score->loss(some.as<M>(), logits).nats);
  d.add(logits);
  count += logits.size();
  return d;
}

/// The digest of 30 drawn tokens and all their logits.
template <class M>
digest drawn(const ln::packed<M>& weights, ln::limits limits) {
  digest d;
  limits.batch = 1;
  auto run = ln::session<M>::open(weights, limits);
  if (!run) return d;
  ln::sampler choose({.temperature = 0.8, .top_k = 20, .top_p = 0.95, .seed = 5});
  constexpr std::array<ln::token, 7> prompt{1, 2, 3, 5, 8, 13, 21};
  std::vector<ln::token> order(vocabulary);
  auto logits = run->reset_and_prefill(prompt);
  for (int i = 0; i < 30; ++i) {
    d.add(logits);
    const std::array<ln::token, 1> next{choose(logits, std::span(order))};
    d.add<std::uint32_t>(next[0]);
    logits = run->feed(next);
  }
  return d;
}

constexpr std::array poolings{ln::sentence_pooling::mean, ln::sentence_pooling::first,
                              ln::sentence_pooling::max};

/// The digest of vectors of texts, for each of these ways of pooling.
template <class M>
digest embedded(const ln::packed<M>& weights, const ln::limits& limits,
                std::span<const ln::sentence_pooling> ways) {
  digest d;
  const texts some(limits.batch);
  auto embed = ln::embedder<M>::open(weights, limits);
  for (const ln::sentence_pooling how : ways)
    if (embed) d.add(embed->embed(some.as<M>(), how));
  return d;
}

/// Golden digests of a model; the last two of what it draws, or of the vectors of an encoder.
struct golden {
  std::uint64_t losses, f32, w8a8, drawn, drawn_w8a8;
};

/// Whether a model gives its golden digests. `limits.batch` texts are scored; counts logits.
template <class M>
bool right_of(const char* name, const ln::limits& limits, const golden& g, std::size_t& count) {
  using rounded = ln::quantized<M, ln::storage::int8, ln::compute::int8>;
  ln::weights<M> w;
  ln::initialize(w, ln::seed{3});
  std::printf(" %s\n", name);
  ln::limits alone = limits;
  alone.batch = 1;
  bool right = same("losses", trained(w, alone), g.losses);
  const auto whole = ln::pack(w);
  const ln::packed<rounded> codes = ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
  right = same("f32", scored(whole, limits, count), g.f32) && right;
  right = same("W8A8", scored(codes, limits, count), g.w8a8) && right;
  if constexpr (M::supports_cache) {
    right = same("f32, drawn", drawn(whole, limits), g.drawn) && right;
    return same("W8A8, drawn", drawn(codes, limits), g.drawn_w8a8) && right;
  } else {
    return same("f32, vectors", embedded(whole, limits, std::span(poolings).first(1)), g.drawn) &&
           right;
  }
}

/// Whether an encoder gives these digests that learns from two pairs of texts and two negatives.
bool right_of_pairs(ln::limits limits, const golden& g) {
  limits.batch = 6;
  ln::weights<pair_encoder> w;
  ln::initialize(w, ln::seed{3});
  std::printf(" encoder of pairs\n");
  const auto how =
      ln::contrastive_objective::open({.temperature = 0.3, .symmetric = true, .negatives = 1});
  bool right = how && same("losses", trained(w, limits, *how), g.losses);
  right = same("f32, vectors", embedded(ln::pack(w), limits, poolings), g.f32) && right;
  const auto codes = ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
  return same("W8A8, vectors", embedded(codes, limits, poolings), g.w8a8) && right;
}

/// Whether all models do so at one level.
bool right_at(ln::simd::level level) {
  std::size_t count = 0;
  std::printf("%s\n", ln::simd::name(level));
  ln::limits limits{.batch = 9, .target = length, .level = level};
  bool right = right_of<decoder>("decoder", limits,
                                 {0x590f00a5daeb1309, 0x0cb194aa1031d004, 0xce80b938a93b1c79,
                                  0x4bffd7d7126f7fc5, 0x47ed6a247f112323},
                                 count);
  limits.batch = 8;
  right = right_of<encoder>(
              "encoder", limits,
              {0x5fa272ae35795520, 0x12eb528df50caf28, 0xc9172a972734aba6, 0x401beff69a4eedcf, 0},
              count) &&
          right;
  right =
      right_of_pairs(limits, {0x9866e5a4831e90a6, 0x715d95941052831f, 0x79230dbdac1ad41b, 0, 0}) &&
      right;
  limits.source = length;
  right = right_of<encoder_decoder>("T5", limits,
                                    {0x73df556a3ffe35ff, 0xd4183d3a6d089a1c, 0xbf07b1355d9493c8,
                                     0xb6c37286274195aa, 0xbf6475061815d017},
                                    count) &&
          right;
  std::printf(" %zu logits\n", count);
  return right && count == 1000000;
}

}  // namespace

int main() {
  bool right = true;
  for (const ln::simd::level level : ln::simd::levels)
    if (ln::simd::resolve(level) == level) right = right_at(level) && right;
  return right ? 0 : 1;
}
