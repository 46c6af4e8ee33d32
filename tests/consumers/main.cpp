// SPDX-License-Identifier: MIT
// A whole program that only knows <linnet/linnet.hpp>: a tiny decoder learns to count, is collapsed
// and quantized, and must still count. With WITH_FILES, it also writes files beside the one that
// its argument names.

#include <array>
#include <cstdio>
#include <cstring>
#include <linnet/linnet.hpp>
#if defined(WITH_FILES)
#include "files.hpp"
#endif

namespace ln = linnet;

constexpr ln::decoder_shape numbers{.d_model = 24,
                                    .d_ff = 32,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .layers = 1,
                                    .vocabulary = 9,
                                    .context = 8};
using student = ln::decoder<numbers, ln::ffn::reparam<3, ln::expansion{2}>>;
using deployed = ln::quantized<ln::collapsed<student>, ln::storage::int8>;

#if defined(WITH_GLOBALS)  // names that the library gives to parameters and variables, too
int memory, tokens, n, i, j, logits, batch, lengths, on, p, x, y, b, at, rows, f;
int how, choose, scratch, weights, limits, ctx, cache, info, leaf, from, to, l, c, e;
#endif

int main([[maybe_unused]] int arguments, [[maybe_unused]] char** argument) {
#if defined(WITH_FILES)
  const int failed = arguments < 2 ? 100 : files_fail(argument[1]);
  std::printf("files: %s %d\n", failed ? "failed at" : "all as written,", failed);
  if (failed) return failed;
#endif
#if defined(EXPECTED_VERSION)
  if (std::strcmp(LINNET_VERSION, EXPECTED_VERSION) != 0) return 1;
#endif
  constexpr std::array<ln::token, 9> count{0, 1, 2, 3, 4, 5, 6, 7, 8};

  ln::weights<student> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<student>::open(w, {.target = 8, .threads = 2},
                                          {.rate = ln::schedule::constant(1e-2)});
  if (!train) return 1;
  double loss = 0;
  for (int step = 0; step < 100; ++step)
    loss = train->step({.tokens = &count[0], .labels = &count[1], .batch = 1, .length = 8});

  const auto shipped = ln::pack(ln::quantize<ln::storage::int8>(ln::collapse(w)));
  auto run = ln::session<deployed>::open(shipped, {.target = 8});
  if (!run) return 1;
  ln::token expected = 0;
  bool right = true;
  run->generate(std::span(&count[0], 1), ln::greedy{},
                [&](ln::token next) { right = right && next == ++expected; });

  std::printf("linnet %s: loss %.4f, counted to %d%s\n", LINNET_VERSION, loss,
              static_cast<int>(expected), right ? "" : " wrongly");
  return right && expected == 8 && loss < 0.1 ? 0 : 1;
}
