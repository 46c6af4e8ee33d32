// SPDX-License-Identifier: MIT
// Trains a byte-level decoder on a few sentences until it knows them by heart, then lets it recite.

#include <cstdio>
#include <string_view>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

constexpr std::string_view text =
    "The linnet is a small finch. It sings from the tops of bushes, eats the seeds of flax, and "
    "takes "
    "its name from linen. ";

inline constexpr ln::decoder_shape shape{.d_model = 64,
                                         .d_ff = 128,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .layers = 2,
                                         .vocabulary = 256,
                                         .context = 128};
using Model = ln::decoder<shape>;  // SwiGLU, grouped-query attention, RoPE, RMSNorm, tied head

int main() {
  ln::weights<Model> w;
  ln::initialize(w, ln::seed{3});
  constexpr ln::index length = 64, rows = 8;
  const ln::adamw optimizer{.rate = ln::schedule::cosine(3e-3, 20, 300)};
  auto train = ln::trainer<Model>::open(w, {.batch = rows, .target = length, .threads = 2},
                                        optimizer, {.dropout = 0.1, .seed = 5});

  ln::random_stream random(ln::seed{11});
  std::vector<ln::token> tokens(rows * length), labels(rows * length);
  for (int step = 0; step < 300; ++step) {
    for (ln::index row = 0; row < rows; ++row) {
      const std::size_t at = random.below(static_cast<std::uint32_t>(text.size()));
      for (ln::index t = 0; t < length; ++t) {
        const auto byte = [&](std::size_t i) {
          return static_cast<unsigned char>(text[i % text.size()]);
        };
        tokens[static_cast<std::size_t>(row * length + t)] = byte(at + static_cast<std::size_t>(t));
        labels[static_cast<std::size_t>(row * length + t)] =
            byte(at + static_cast<std::size_t>(t) + 1);
      }
    }
    const double loss = train->step({tokens.data(), labels.data(), rows, length});
    if (step % 100 == 0) std::printf("step %3d  loss %.3f nats per byte\n", step, loss);
  }

  auto run = ln::session<Model>::open(train->current(), {.target = 128});
  const ln::token prompt[] = {'T', 'h', 'e', ' ', 'l'};
  std::printf("The l");
  run->generate(prompt, ln::greedy{}, [](ln::token t) { std::putchar(t); }, {.tokens = 100});
  std::putchar('\n');
  return std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
}
