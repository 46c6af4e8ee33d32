// SPDX-License-Identifier: MIT
// Any bytes as a text: merges are learned from its first half, and the whole is encoded as the rule
// says, step by step, and comes back.

#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::bpe {

namespace {

/// The ids of a word by the rule: the leftmost pair of the lowest rank, again and again.
std::vector<ln::token> step_by_step(const ln::bpe_tokenizer& t, std::string_view word) {
  std::vector<ln::token> ids;
  for (std::size_t i = 0; i < word.size(); ++i) ids.push_back(t.find(word.substr(i, 1)));
  for (;;) {
    ln::token best = -1;  // of merges that were learned, ids and ranks have the same order
    std::size_t where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const ln::token id = t.find(std::string(t.piece(ids[i])) + std::string(t.piece(ids[i + 1])));
      if (id >= 0 && (best < 0 || id < best)) {
        best = id;
        where = i;
      }
    }
    if (best < 0) return ids;
    ids[where] = best;
    ids.erase(ids.begin() + static_cast<ln::index>(where) + 1);
  }
}

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size < 1024 ? size : 1024);
  const bool digits = !text.empty() && text.front() == '7';
  ln::bpe_trainer trainer(digits);
  trainer.add(text.substr(0, text.size() / 2));
  const auto file = trainer.train(40, 1);
  if (!file) __builtin_trap();
  const auto t = ln::bpe_tokenizer::parse(*file, {.single_digits = digits});
  if (!t) __builtin_trap();
  const auto ids = t->encode(text);
  if (t->decode(ids) != text) __builtin_trap();
  std::vector<ln::token> expected;
  ln::each_word(text, digits, [&](std::string_view word) {
    if (word.empty()) __builtin_trap();
    for (const ln::token id : step_by_step(*t, word)) expected.push_back(id);
  });
  if (ids != expected) __builtin_trap();
  return 0;
}

}  // namespace fuzz::bpe
