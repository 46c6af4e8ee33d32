// SPDX-License-Identifier: MIT
#include "train_tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <linnet/file/file.hpp>
#include <linnet/text/bpe_trainer.hpp>
#include <span>

#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

/// "bpe:4096": how many ids to learn, or 0.
ln::index ids_to_learn(const std::string& asked) {
  if (!asked.starts_with("bpe:")) return 0;
  constexpr long most = 65'536, least = 257;
  const char* const end = asked.data() + asked.size();
  long ids = 0;
  const auto [last, problem] = std::from_chars(asked.data() + 4, end, ids);
  if (problem != std::errc() || last != end || ids < least || ids > most)
    throw failure(
        fmt::format("--tokenizer {}: expected a number of ids from {} to {}", asked, least, most));
  return ids;
}

/// The merges of a tokenizer that is learned from the text, as a vocab.bpe.
std::string learn_merges(const training_text& text, ln::index ids) {
  constexpr ln::index bytes_and_end = 257;
  ln::bpe_trainer learner;
  for (std::size_t g = 0; g < text.groups.size(); ++g)
    for (const std::string_view part : text.training(g)) learner.add(part);
  say("learning {} merges\n", grouped(ids - bytes_and_end));
  return take(learner.train(ids - bytes_and_end));
}

}  // namespace

bool has_vocabulary(const model_spec& model) {
  return std::any_of(model.changes.begin(), model.changes.end(),
                     [](auto& c) { return c.first == "vocabulary"; });
}

tokenizing prepare_tokenizer(const train_options& o, const model_spec& model,
                             const training_text& text, const beginning* from) {
  if (from) return find_tokenizer(o.tokenizer, from->path, from->preset());
  const tokenizing_for whom{model.name(), model.encodes(),
                            has_vocabulary(model) ? model.vocabulary() : 0};
  const ln::index ids = ids_to_learn(o.tokenizer);
  if (ids == 0) return read_tokenizer(o.tokenizer, whom);
  if (model.encodes())
    throw failure(
        fmt::format("--tokenizer {}: {} is an encoder-decoder, which needs T5's ids: "
                    "bytes, or sentencepiece:FILE",
                    o.tokenizer, model.name()));
  if (const std::string kept = o.out + "/vocab.bpe"; fs::exists(kept))
    return read_tokenizer(kept, whom);
  return learned_tokenizer(learn_merges(text, ids), whom);
}

std::string file_of(const tokenizing& by) {
  if (by.kept_as.empty() || !by.learned.empty()) return by.learned;
  const ln::file_bytes file = take(ln::read_file(by.name));
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void keep_tokenizer(const tokenizing& by, const std::string& out) {
  const std::string path = out + "/" + by.kept_as;
  std::error_code ignored;
  if (by.kept_as.empty() || fs::equivalent(by.name, path, ignored)) return;
  const std::string file = file_of(by);
  take(ln::write_file(path, std::as_bytes(std::span(file))));
}

}  // namespace zoo
