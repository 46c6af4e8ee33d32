// SPDX-License-Identifier: MIT
// zoo embed: the vectors of texts.

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <linnet/compress/quantize.hpp>
#include <linnet/data/encoder_texts.hpp>
#include <linnet/formats/hugging_face.hpp>
#include <linnet/generate/embedder.hpp>
#include <linnet/model/presets.hpp>
#include <linnet/text/hf_tokenizer.hpp>

#include "commands.hpp"
#include "models.hpp"
#include "support.hpp"

namespace zoo {

namespace {

using minilm = ln::zoo::minilm_l6;

/// Texts of more tokens than this are cut, as the sentence-transformers package does.
constexpr ln::index longest = 256;

ln::packed<minilm> load(const std::string& directory) {
  ln::weights<minilm> w;
  if (!w.valid()) throw failure("not enough memory for the weights");
  take(ln::load_hugging_face(w, directory, ln::nonfinite::refuse));
  return ln::pack(w);
}

/// The tokenizer beside the weights.
ln::tokenizer pieces_of(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  ln::tokenizer pieces = take(ln::read_hf_tokenizer(path));
  if (pieces.vocabulary() > minilm::shape.vocabulary)
    throw failure(fmt::format("{}: {} tokens, but the model's vocabulary is {}", path,
                              pieces.vocabulary(), minilm::shape.vocabulary));
  return pieces;
}

void print(std::span<const float> vector, bool json) {
  std::string line = json ? "{\"embedding\":[" : "";
  for (std::size_t i = 0; i < vector.size(); ++i)
    line += fmt::format("{}{:.9g}", i == 0 ? "" : json ? "," : " ", vector[i]);
  put("{}{}\n", line, json ? "]}" : "");
}

}  // namespace

void embed(const embed_options& o) {
  static constexpr std::string_view known[] = {"minilm"};
  check_name("model", o.model, known);
  const std::string directory = weights_of(o.model, o.weights);
  const ln::tokenizer pieces = pieces_of(directory);
  auto read = take(ln::encoder_texts::open(pieces, longest));
  const ln::packed<minilm> weights = load(directory);
  const ln::index most = o.texts.empty() ? 1 : std::min<ln::index>(o.batch, std::ssize(o.texts));
  auto run = take(ln::embedder<minilm>::open(
      weights, {.batch = most, .target = longest, .threads = o.threads}));

  const auto embed_some = [&](std::span<const std::string> texts) {
    const auto vectors = run.embed(take(read.batch(texts)));
    if (vectors.empty())
      throw failure("the model gives nothing: " + std::string(run.last_refusal()));
    for (std::size_t i = 0; i < texts.size(); ++i)
      print(vectors.subspan(i * minilm::d, minilm::d), o.json);
  };
  for (std::size_t i = 0; i < o.texts.size(); i += static_cast<std::size_t>(most))
    embed_some(std::span(o.texts).subspan(
        i, std::min(o.texts.size() - i, static_cast<std::size_t>(most))));
  std::string line;
  if (o.texts.empty())
    while (std::getline(std::cin, line)) embed_some({&line, 1});
}

}  // namespace zoo
