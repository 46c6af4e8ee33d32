// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

#include <linnet/generate/byte_text.hpp>
#include <linnet/text/token_bytes.hpp>

namespace study {

/// By the bytes of tokens.
template <class M>
requires requires { M::bytes_per_token; }
struct tongue<M> {
  explicit tongue(const token_table& t)
      : bytes(std::ssize(t.pieces),
              [&](ln::token id) { return t.pieces[static_cast<std::size_t>(id)]; }) {}

  typename M::batch read(const ln::decoder_batch& b) const {
    return {b.tokens, b.labels, b.batch, b.length, bytes.data(), bytes.vocabulary()};
  }
  template <class Session, class Sampler>
  std::string write(Session& s, std::span<const ln::token> prompt, Sampler& choose,
                    ln::index tokens) const {
    std::string text;
    const auto ids = bytes.bytes_of(prompt);
    ln::generate_bytes(s, ids, choose, [&](std::string_view piece) { text += piece; },
                       {.tokens = tokens});
    return text;
  }

  ln::token_bytes bytes;
};

namespace {
inline constexpr ln::byte_pooling narrow{
    .width = 32, .between = {32}, .head_blocks = 2, .heads = 2};
}  // namespace

std::unique_ptr<learner> make_byte_pooled(bool full, const token_table& tokens) {
  return make_learner<ln::byte_pooled<small, ln::pooling::of<narrow>>,
                      ln::byte_pooled<table_1, ln::pooling::paper>>(full, tokens);
}

}  // namespace study
