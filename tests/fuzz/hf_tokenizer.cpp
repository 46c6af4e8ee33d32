// SPDX-License-Identifier: MIT
// Any bytes as a tokenizer.json and as an encoder.json. What is read gives ids of its vocabulary,
// and every text back if it says so.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::hf_tokenizer {

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto t = ln::parse_hf_tokenizer(bytes);
  if (!t) {
    if (t.error().message().empty()) __builtin_trap();
  } else {
    const auto ids = t->encode(text);
    for (const ln::token id : ids)
      if (id < 0 || id >= t->vocabulary()) __builtin_trap();
    const std::string back = t->decode(ids);
    if (t->is_lossless() && back != text) __builtin_trap();
    (void)t->decode(t->encode(text, true));
  }
  static const auto plain = ln::bpe_tokenizer::parse("#version: 0.2\na b\n");
  if (const auto same = ln::check_encoder_json(*plain, bytes);
      !same && same.error().message().empty())
    __builtin_trap();
  return 0;
}

}  // namespace fuzz::hf_tokenizer
