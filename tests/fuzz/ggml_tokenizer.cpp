// SPDX-License-Identifier: MIT
// Any bytes as the lists of a GGUF file's tokenizer, and as a text for what comes of them. The
// first byte chooses the model, the next ones the settings; the rest are tokens with type and
// score.

#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::ggml_tokenizer {

int one_input(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string_view rest = text.substr(3);
  const auto byte = [&] {
    if (rest.empty()) return 0;
    const int b = static_cast<unsigned char>(rest[0]);
    rest.remove_prefix(1);
    return b;
  };
  constexpr std::string_view names[] = {"gpt2", "llama", "bert", "t5", "other"};
  constexpr std::string_view patterns[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "other"};
  ln::ggml_vocabulary v;
  v.model = names[data[0] % 5];
  v.pre = patterns[data[1] % 5];
  v.add_space_prefix = (data[2] & 1) != 0;
  v.remove_extra_whitespaces = (data[2] & 2) != 0;
  v.unknown = (data[2] & 4) != 0 ? data[2] >> 4 : -1;
  if ((data[2] & 8) != 0) {  // tokens for all bytes, spelled as each model does
    for (unsigned b = 0; b < 256; ++b) {
      const char one = static_cast<char>(b);
      constexpr std::string_view hex = "0123456789ABCDEF";
      const std::string token = std::string("<0x") + hex[b / 16] + hex[b % 16] + ">";
      v.tokens.push_back(v.model == "gpt2" ? ln::letters_of({&one, 1}) : token);
      v.types.push_back(v.model == "gpt2" ? 1 : 6);
      v.scores.push_back(0);
    }
  }
  if ((data[2] & 2) != 0) v.precompiled_charsmap = rest.substr(0, static_cast<std::size_t>(byte()));
  while (!rest.empty()) {
    const int head = byte();
    const std::string_view token = rest.substr(0, static_cast<std::size_t>(head % 16));
    rest.remove_prefix(token.size());
    if (head >= 224) {
      v.merges.push_back(token);
      continue;
    }
    v.tokens.push_back(token);
    v.types.push_back(head / 16 % 7);
    v.scores.push_back(static_cast<float>(byte()) / -8.f);
  }
  const auto t = ln::make_tokenizer(std::move(v));
  if (!t) {
    if (t.error().message().empty()) __builtin_trap();
    return 0;
  }
  for (const bool match : {false, true}) {
    const auto ids = t->encode(text, match);
    for (const ln::token id : ids)
      if (id < 0 || id >= t->vocabulary()) __builtin_trap();
    const std::string back = t->decode(ids);
    if (t->is_lossless() && !match && back != text) __builtin_trap();
  }
  if (auto written = ln::make_ggml_vocabulary(*t)) {  // and read again
    const auto again = ln::make_tokenizer(*std::move(written));
    if (!again || again->encode(text) != t->encode(text)) __builtin_trap();
  }
  return 0;
}

}  // namespace fuzz::ggml_tokenizer
