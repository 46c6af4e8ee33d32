// SPDX-License-Identifier: MIT
#include "tokens.hpp"

#include <linnet/file/file.hpp>
#include <linnet/text/bpe_trainer.hpp>

#include "support/basics.hpp"

namespace study {

namespace {

ln::bpe_tokenizer vocabulary_of(std::span<const std::string_view> training, ln::index size,
                                const std::string& merges) {
  if (!merges.empty()) {
    const auto file = support::take(ln::read_file(merges));
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    auto read = support::take(ln::bpe_tokenizer::parse(text, {}, merges));
    if (read.vocabulary() > size)
      throw support::failure(merges + ": more ids than the models have");
    return read;
  }
  ln::bpe_trainer learner;
  for (const std::string_view text : training) learner.add(text);
  constexpr ln::index bytes_and_end = 257;
  return support::take(
      ln::bpe_tokenizer::parse(support::take(learner.train(size - bytes_and_end))));
}

}  // namespace

tokenized tokenize(std::span<const std::string_view> training, ln::index size,
                   const std::string& merges,
                   std::span<const std::span<const std::string_view>> groups) {
  const ln::bpe_tokenizer by = vocabulary_of(training, size, merges);
  tokenized made;
  for (ln::token id = 0; id < by.vocabulary(); ++id)
    made.table.pieces.emplace_back(by.decode(-1, id));
  for (const auto& group : groups) {
    made.texts.emplace_back();
    for (const std::string_view text : group) by.encode(text, made.texts.back());
  }
  return made;
}

}  // namespace study
