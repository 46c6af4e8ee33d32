// SPDX-License-Identifier: MIT
// Any bytes as a tokenizer.bin and as a text: the vocabulary gets its 259 first pieces right, so
// that the rest of the file is reached.

#include <cstdio>
#include <cstring>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::tokenizer {

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  (void)ln::llama2c_tokenizer::parse(bytes, 259);
  (void)ln::llama2c_tokenizer::parse(bytes, 300);
  if (size < 1) return 0;

  std::string file(4, '\xff');
  const auto add = [&](std::string_view piece, float score = 0) {
    const auto length = static_cast<std::uint32_t>(piece.size());
    file.append(reinterpret_cast<const char*>(&score), 4)
        .append(reinterpret_cast<const char*>(&length), 4)
        .append(piece);
  };
  for (const char* special : {"<unk>", "\n<s>\n", "\n</s>\n"}) add(special);
  for (unsigned b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    add(name);
  }
  // The input as the rest of the file, its first byte says how many pieces; and as a text.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string rest = file + std::string(text.substr(1));
  if (const auto t =
          ln::llama2c_tokenizer::parse(std::as_bytes(std::span(rest)), 259 + data[0] % 8))
    (void)t->decode(t->encode(text));

  // Almost every such file is refused; pieces cut out of the text make one that is not.
  add(" ");
  ln::index pieces = 260;
  for (std::size_t at = 0, n = 1; at + n <= text.size() && pieces < 300;
       at += n, n = n % 3 + 1, ++pieces)
    add(text.substr(at, n), static_cast<float>(static_cast<signed char>(text[at])));
  const auto good = ln::llama2c_tokenizer::parse(std::as_bytes(std::span(file)), pieces);
  if (!good) __builtin_trap();
  const std::string decoded = good->decode(good->encode(text, true, true));
  if (text.find("<0x") == text.npos && decoded != text) __builtin_trap();
  return 0;
}

}  // namespace fuzz::tokenizer
