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
#include "objectives.hpp"
#include "support.hpp"
#include "tokenizing.hpp"
#include "trained.hpp"

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

/// What zoo train wrote.
embedding open_folder(const trained_model& trained, const ln::limits& l) {
  const std::shared_ptr<running_encoder> run =
      load_module(trained.model, trained.kind)->open_encoder(trained.weights(), l);
  return [run](const ln::encoder_batch& b) { return run->embed(b); };
}

/// Texts between the marks that an encoder of zoo train learned with.
class marked_texts {
 public:
  marked_texts(const tokenizing& by, const ln::bert_ids& marks, ln::index longest)
      : by_(by), marks_(marks), longest_(longest) {}

  /// Valid until the next call.
  ln::encoder_batch batch(std::span<const std::string> texts) {
    std::vector<std::vector<ln::token>> rows;
    std::size_t length = 0;
    lengths_.clear();
    for (const std::string& text : texts) {
      std::vector<ln::token>& row = rows.emplace_back(1, marks_.first);
      const std::vector<ln::token> words = by_.encode(text);
      row.insert(row.end(), words.begin(), words.end());
      row.resize(std::min(row.size(), static_cast<std::size_t>(longest_ - 1)));
      row.push_back(marks_.last);
      lengths_.push_back(std::ssize(row));
      length = std::max(length, row.size());
    }
    ids_.clear();
    for (std::vector<ln::token>& row : rows) {
      row.resize(length, marks_.padding);
      ids_.insert(ids_.end(), row.begin(), row.end());
    }
    return {.tokens = ids_.data(),
            .lengths = lengths_.data(),
            .batch = std::ssize(texts),
            .length = static_cast<ln::index>(length)};
  }

 private:
  const tokenizing& by_;
  ln::bert_ids marks_;
  ln::index longest_;
  std::vector<ln::token> ids_{};
  std::vector<ln::index> lengths_{};
};

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

/// Prints the vectors of the texts that are given, or of the lines of standard input, `most` at a
/// time; `vectors(texts)` computes them.
template <class Vectors>
void embed_all(const embed_options& o, ln::index most, Vectors&& vectors) {
  const auto embed_some = [&](std::span<const std::string> texts) {
    const std::span<const float> made = vectors(texts);
    const std::size_t width = made.size() / texts.size();
    for (std::size_t i = 0; i < texts.size(); ++i) print(made.subspan(i * width, width), o.json);
  };
  for (std::size_t i = 0; i < o.texts.size(); i += static_cast<std::size_t>(most))
    embed_some(std::span(o.texts).subspan(
        i, std::min(o.texts.size() - i, static_cast<std::size_t>(most))));
  std::string line;
  if (o.texts.empty())
    while (std::getline(std::cin, line)) embed_some({&line, 1});
}

}  // namespace

void embed(const embed_options& o) {
  static constexpr std::string_view known[] = {"minilm"};
  check_name("model", o.model, known);
  const ln::index most = o.texts.empty() ? 1 : std::min<ln::index>(o.batch, std::ssize(o.texts));
  const auto limits_of = [&](const model_spec& model) {
    return ln::limits{
        .batch = most, .target = std::min(longest_text, model.context()), .threads = o.threads};
  };
  if (is_trained(o.weights)) {
    const trained_model trained = open_trained(o.weights);
    if (!trained.model.embeds())
      throw failure(fmt::format("{}: holds a {}, which is no encoder; zoo generate takes it",
                                o.weights, trained.model.name()));
    const tokenizing by =
        read_tokenizer(o.tokenizer.empty() ? trained.tokenizer_path() : o.tokenizer,
                       {trained.model.name(), false, trained.model.vocabulary(), true});
    ln::limits l = limits_of(trained.model);
    // Later positions have learned nothing.
    l.target =
        std::min(l.target, std::max(trained.described.value("length", l.target), ln::index{3}));
    marked_texts read(by, marks_in(trained.described, o.weights), l.target);
    const embedding run = open_folder(trained, l);
    return embed_all(o, most,
                     [&](std::span<const std::string> texts) { return run(read.batch(texts)); });
  }
  const std::string weights = weights_of(o.model, o.weights);
  const bool whole = fs::is_directory(weights);
  const std::optional<compression> what =
      whole ? compression{.model = parse_model("model", o.model, true), .to = {}}
            : compression_of(weights);
  if (!what || !what->model.embeds())
    throw failure(weights +
                  ": expected a Hugging Face directory, a folder of zoo train, or zoo compress's "
                  "file of an encoder");
  const std::string tokenizer =
      !o.tokenizer.empty() ? o.tokenizer
                           : (whole ? weights : weights_of(o.model, "")) + "/tokenizer.json";
  const tokenizing by =
      read_tokenizer(tokenizer, {what->model.name(), false, what->model.vocabulary(), true});
  const ln::limits l = limits_of(what->model);
  if (!by.pieces) throw failure(tokenizer + ": expected the tokenizer.json of an encoder");
  auto read = take(ln::encoder_texts::open(*by.pieces, l.target));
  const embedding run = whole ? open_directory(weights, l) : open_compressed(*what, weights, l);
  embed_all(o, most,
            [&](std::span<const std::string> texts) { return run(take(read.batch(texts))); });
}

}  // namespace zoo
