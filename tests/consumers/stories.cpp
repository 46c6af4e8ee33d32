// SPDX-License-Identifier: MIT
// The program whose size `sizes` finds: it loads stories260K from its argument and prints 32
// tokens.

#include <cstdio>

#include <linnet/inference.hpp>
namespace ln = linnet;

using model = ln::zoo::stories260k;

int main(int, char** argument) {
  static ln::weights<model> w;
  if (const auto loaded = ln::load_llama2c(w, argument[1]); !loaded) {
    std::printf("%s\n", loaded.error().message().c_str());
    return 1;
  }
  const auto packed = ln::pack(w);
  auto run = ln::session<model>::open(packed, {.target = 40, .chunk = 1});
  if (!run) return 1;
  constexpr ln::token first = 1;
  run->generate(std::span(&first, 1), ln::greedy{},
                [](ln::token next) { std::printf("%d ", int{next}); }, {.tokens = 32});
  std::printf("\n");
}
