// SPDX-License-Identifier: MIT
// zoo embed: the vectors of texts.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <linnet/compress/quantize.hpp>
#include <linnet/data/encoder_texts.hpp>
#include <linnet/formats/hugging_face.hpp>
#include <linnet/generate/embedder.hpp>
#include <linnet/model/presets.hpp>

#include "commands.hpp"
#include "compressor.hpp"
#include "models.hpp"
#include "support.hpp"
#include "tokenizing.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using minilm = ln::zoo::minilm_l6;

/// Vectors of texts, one after the other, valid until the next call.
using embedding = std::function<std::span<const float>(const ln::encoder_batch&)>;

/// MiniLM as its authors give it.
embedding open_directory(const std::string& directory, const ln::limits& l) {
  struct opened {
    ln::packed<minilm> weights;
    std::optional<ln::embedder<minilm>> run{};
  };
  ln::weights<minilm> w;
  if (!w.valid()) throw failure("not enough memory for the weights");
  take(ln::load_hugging_face(w, directory, ln::nonfinite::refuse));
  const auto all = std::make_shared<opened>(opened{ln::pack(w)});
  all->run.emplace(take(ln::embedder<minilm>::open(all->weights, l)));
  return [all](const ln::encoder_batch& b) {
    const auto vectors = all->run->embed(b);
    if (vectors.empty())
      throw failure("the model gives nothing: " + std::string(all->run->last_refusal()));
    return vectors;
  };
}

/// What zoo compress wrote.
embedding open_compressed(const compression& what, const std::string& path, const ln::limits& l) {
  return [run = std::shared_ptr<stored_model>(find_compressor(what)->reopen(path, l))](
             const ln::encoder_batch& b) { return run->embed(b); };
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
  const std::string weights = weights_of(o.model, o.weights);
  const bool whole = fs::is_directory(weights);
  const ln::index most = o.texts.empty() ? 1 : std::min<ln::index>(o.batch, std::ssize(o.texts));
  const std::optional<compression> what =
      whole ? compression{.model = parse_model("model", o.model, true), .to = {}}
            : compression_of(weights);
  if (!what || !what->model.embeds())
    throw failure(weights +
                  ": expected a Hugging Face directory, or zoo compress's file of an encoder");
  const std::string tokenizer =
      !o.tokenizer.empty() ? o.tokenizer
                           : (whole ? weights : weights_of(o.model, "")) + "/tokenizer.json";
  const tokenizing by =
      read_tokenizer(tokenizer, {what->model.name(), false, what->model.vocabulary(), true});
  const ln::index longest = std::min(longest_text, what->model.context());
  const ln::limits l{.batch = most, .target = longest, .threads = o.threads};
  if (!by.pieces) throw failure(tokenizer + ": expected the tokenizer.json of an encoder");
  auto read = take(ln::encoder_texts::open(*by.pieces, longest));
  const embedding run = whole ? open_directory(weights, l) : open_compressed(*what, weights, l);

  const auto embed_some = [&](std::span<const std::string> texts) {
    const auto vectors = run(take(read.batch(texts)));
    const std::size_t width = vectors.size() / texts.size();
    for (std::size_t i = 0; i < texts.size(); ++i) print(vectors.subspan(i * width, width), o.json);
  };
  for (std::size_t i = 0; i < o.texts.size(); i += static_cast<std::size_t>(most))
    embed_some(std::span(o.texts).subspan(
        i, std::min(o.texts.size() - i, static_cast<std::size_t>(most))));
  std::string line;
  if (o.texts.empty())
    while (std::getline(std::cin, line)) embed_some({&line, 1});
}

}  // namespace zoo
