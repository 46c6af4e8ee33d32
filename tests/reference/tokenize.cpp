// SPDX-License-Identifier: MIT
// For compare_tokenizers.py: reads a tokenizer.json and texts, and writes their ids and what the
// ids decode to. Texts are u32 bytes and the bytes; ids u32 how many and the ids.
//   c++ -std=c++20 -O2 -Iinclude tests/reference/tokenize.cpp -o tokenize

#include <cstdio>
#include <cstdlib>
#include <linnet/json.hpp>

int main(int count, char** arguments) {
  const bool match_added = count > 2 && arguments[2][0] == '1';
  const auto t = linnet::read_hf_tokenizer(count > 1 ? arguments[1] : "");
  if (!t) {
    std::fprintf(stderr, "%s\n", t.error().message().c_str());
    return 1;
  }
  const auto write = [](const void* data, std::size_t size, std::size_t n) {
    const auto length = static_cast<std::uint32_t>(n);
    std::fwrite(&length, sizeof length, 1, stdout);
    std::fwrite(data, size, n, stdout);
  };
  std::string text;
  for (std::uint32_t size = 0; std::fread(&size, sizeof size, 1, stdin) == 1;) {
    text.resize(size);
    if (std::fread(text.data(), 1, size, stdin) != size) return 1;
    const std::vector<linnet::token> ids = t->encode(text, match_added);
    const std::string back = t->decode(ids);
    write(ids.data(), sizeof(linnet::token), ids.size());
    write(back.data(), 1, back.size());
  }
  return 0;
}
