// SPDX-License-Identifier: MIT
// Perplexity of SmolLM2-135M in one storage and compute type. Compiled once per type, with
//   SIDE_DEPLOYED   the model as it runs, such as ln::quantized<Model, ln::storage::int8>
// and started as: perplexity_side FILE.gguf TEXT WINDOWS LENGTH THREADS [FLOATS.gguf]. The first
// WINDOWS windows of LENGTH tokens of TEXT are scored, each alone: its first token is given, all
// others are predicted. Also writes the weights as a GGUF file of floats, where it is named.

#include <linnet/gguf.hpp>
#include <linnet/inference.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>

#include <linnet/compress/quantize.hpp>
#include <linnet/eval/evaluator.hpp>

#include "smollm2.hpp"

namespace ln = linnet;
using smollm2::Model;
using Deployed = SIDE_DEPLOYED;

int main(int count, char** argument) {
  if (count != 6 && count != 7)
    return std::fputs(
               "usage: perplexity_side FILE.gguf TEXT WINDOWS LENGTH THREADS [FLOATS.gguf]\n",
               stderr),
           2;
  const auto file = smollm2::take(ln::read_gguf(argument[1]));
  const std::size_t windows = std::stoul(argument[3]), length = std::stoul(argument[4]);

  std::ifstream from(argument[2], std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(from), {}};
  text.resize(std::min(text.size(), windows * length * 16));
  std::vector<ln::token> tokens;
  if (!smollm2::take(ln::make_tokenizer(file)).encode(text, tokens))
    return std::fputs("perplexity_side: not enough memory\n", stderr), 2;
  if (windows < 1 || length < 2 || tokens.size() < windows * length)
    return std::fputs("perplexity_side: the text is shorter than its windows\n", stderr), 2;

  if (count == 7) {
    ln::weights<smollm2::Model> w;
    smollm2::take(ln::load_gguf(w, file));
    std::vector<ln::gguf_entry> notes;
    for (const ln::gguf_value& value : file.metadata())
      if (value.key.starts_with("tokenizer.")) notes.emplace_back(value);
    smollm2::take(ln::save_gguf(w, argument[6], ln::ggml_type::f32, notes));
  }

  const auto packed = smollm2::load<Deployed>(file);
  const ln::index inputs = static_cast<ln::index>(length) - 1;
  auto judge = smollm2::take(
      ln::evaluator<Deployed>::open(packed, {.target = inputs, .threads = std::atoi(argument[5])}));
  double nats = 0;
  for (std::size_t i = 0; i < windows; ++i) {
    const ln::token* const window = tokens.data() + i * length;
    const ln::loss_sum loss = judge.loss({window, window + 1, 1, inputs});
    nats += loss.nats;
  }
  const double predicted = static_cast<double>(windows) * static_cast<double>(inputs);
  std::printf("{\"perplexity\": %.9g, \"predicted\": %.0f, \"bytes\": %lld}\n",
              std::exp(nats / predicted), predicted, static_cast<long long>(packed.block().size()));
}
