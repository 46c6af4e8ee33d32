// SPDX-License-Identifier: MIT
// Any bytes as a vocab.bpe, with and without its first line. What is read gives every text back.

#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::vocab_bpe {

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const std::string& file : {text, "#version: 0.2\n" + text}) {
    const auto t = ln::bpe_tokenizer::parse(file, {.added = {"<|x|>", text + "!"}});
    if (!t) {
      if (t.error().message().empty()) __builtin_trap();
      continue;
    }
    for (const std::string& some : {text, file, std::string(200, 'a') + text})
      if (t->decode(t->encode(some)) != some) __builtin_trap();
    (void)t->decode(t->encode(file + text, true));
  }
  return 0;
}

}  // namespace fuzz::vocab_bpe
