// SPDX-License-Identifier: MIT
// What compute::reproducible promises: one digest of losses, logits and drawn tokens, whatever the
// instruction-set level, compiler, flags and processor. Its golden values are below.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <linnet/linnet.hpp>

#include <array>
#include <cstdio>
#include <vector>

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape shape{.d_model = 40,
                                  .d_ff = 72,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 61,
                                  .context = 48};
using llama = ln::decoder<shape, ln::compute::reproducible>;
using rounded = ln::decoder<shape, ln::compute::reproducible, ln::storage::int8, ln::compute::int8>;

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
};

/// Prints a digest; whether it is the golden one.
bool same(const char* of, const digest& d, std::uint64_t golden) {
  const bool right = d.hash == golden;
  std::printf("%-8s %016llx%s\n", of, static_cast<unsigned long long>(d.hash),
              right ? "" : ", which differs");
  return right;
}

/// The digest of 40 drawn tokens and all their logits.
template <class M>
digest drawn(const ln::packed<M>& weights, ln::simd::level level) {
  digest d;
  auto run = ln::session<M>::open(weights, {.target = 48, .level = level});
  if (!run) return d;
  ln::sampler choose({.temperature = 0.8, .top_k = 20, .top_p = 0.95, .seed = 5});
  constexpr std::array<ln::token, 7> prompt{1, 2, 3, 5, 8, 13, 21};
  std::vector<ln::token> order(shape.vocabulary);
  auto logits = run->feed(prompt);
  for (int i = 0; i < 40; ++i) {
    for (const float x : logits) d.add<std::uint32_t>(x);
    const std::array<ln::token, 1> next{choose(logits, std::span(order))};
    d.add<std::uint32_t>(next[0]);
    logits = run->feed(next);
  }
  return d;
}

/// Whether training and decoding at one level give the golden digests.
bool right_at(ln::simd::level level) {
  ln::weights<llama> w;
  ln::initialize(w, ln::seed{3});
  std::array<ln::token, 41> text{};
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<ln::token>(i * i % 61);
  auto train = ln::trainer<llama>::open(w, {.target = 40, .level = level},
                                        {.rate = ln::schedule::cosine(1e-2, 2, 12)},
                                        {.dropout = 0.1, .z_loss = 1e-4});
  if (!train) return false;
  digest losses;
  for (int step = 0; step < 10; ++step) {
    const double loss =
        train->step({.tokens = text.data(), .labels = text.data() + 1, .batch = 1, .length = 40});
    losses.add<std::uint64_t>(loss);
  }
  const auto whole = ln::pack(w);
  const auto codes = ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
  std::printf("%s\n", ln::simd::name(level));
  bool right = same("losses", losses, 0x681dbfd1177159a7);
  right = same("f32", drawn<llama>(whole, level), 0x96da64f4760fc61b) && right;
  return same("W8A8", drawn<rounded>(codes, level), 0x1bdb8926b65b995f) && right;
}

}  // namespace

int main() {
  bool right = true;
  for (const ln::simd::level level : ln::simd::levels)
    if (ln::simd::resolve(level) == level) right = right_at(level) && right;
  return right ? 0 : 1;
}
