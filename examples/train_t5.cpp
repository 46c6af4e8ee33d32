// SPDX-License-Identifier: MIT
// Trains a T5 of your own shape on a toy task (write the source backwards), collapses its
// re-parameterised feed-forward, quantizes it to int8 and lets it answer.

#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

// The numbers of the model are a value ...
inline constexpr ln::t5_shape shape{.d_model = 64,
                                    .d_ff = 128,
                                    .d_kv = 16,
                                    .heads = 4,
                                    .encoder_layers = 2,
                                    .decoder_layers = 2,
                                    .vocabulary = 32};
// ... and its choices are types: here the 3W feed-forward, three matrices without a nonlinearity
// that train better than the one matrix they collapse to.
using Student = ln::t5<shape, ln::ffn::reparam<3, ln::expansion{2}>>;
using Deployed = ln::quantized<ln::collapsed<Student>, ln::storage::int8>;
static_assert(Deployed::parameters() < Student::parameters());

constexpr ln::index rows = 32, length = 6;
constexpr ln::token end = 1;  // 0 starts every target, 1 ends it, 2 to 31 are the alphabet

int main() {
  ln::weights<Student> w;
  ln::initialize(w, ln::seed{42});
  const ln::limits limits{.batch = rows, .source = length, .target = length + 1, .threads = 2};
  const ln::adamw optimizer{.rate = ln::schedule::cosine(3e-3, 40, 1500)};
  auto train = ln::trainer<Student>::open(w, limits, optimizer);
  if (!train) return std::fprintf(stderr, "%s\n", train.error().message().c_str()), 1;

  ln::random_stream random(ln::seed{7});
  std::vector<ln::token> source(rows * length), labels(rows * (length + 1));
  for (int step = 0; step < 1500; ++step) {
    for (ln::index row = 0; row < rows; ++row) {
      ln::token* const from = source.data() + row * length;
      ln::token* const to = labels.data() + row * (length + 1);
      std::generate_n(from, length, [&] { return static_cast<ln::token>(2 + random.below(30)); });
      std::reverse_copy(from, from + length, to);
      to[length] = end;
    }
    const double loss =
        train->step({source.data(), nullptr, labels.data(), rows, length, length + 1});
    if (step % 300 == 0) std::printf("step %3d  loss %.3f\n", step, loss);
  }

  // Each transformation is a function on values and, under the same name, on types.
  const auto shipped = ln::pack(ln::quantize<ln::storage::int8>(ln::collapse(w)));
  auto run = ln::session<Deployed>::open(shipped, {.source = length, .target = length + 1});
  const std::vector<ln::token> question{5, 9, 2, 30, 17, 11};
  std::printf("5 9 2 30 17 11 backwards:");
  run->generate(question, ln::greedy{}, [](ln::token t) { std::printf(" %d", t); },
                {.stop = std::span(&end, 1)});
  std::printf("\n%td parameters trained, %td shipped in %td bytes\n", Student::parameters(),
              Deployed::parameters(), ln::weight_bytes<Deployed>());
  return std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
}
