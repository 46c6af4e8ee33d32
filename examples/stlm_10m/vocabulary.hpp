// SPDX-License-Identifier: MIT
#pragma once
// GPT-2's tokens, which one model reads by their ids and the other by their bytes.

#include <linnet/text/bpe_tokenizer.hpp>
#include <linnet/text/token_bytes.hpp>

#include "commands.hpp"
#include "support/basics.hpp"

namespace stlm_10m {

/// The ids of GPT-2's vocabulary that stand for text; behind them is the end of a text, which no
/// training text has. What opens a text that is judged is a line's end.
struct vocabulary {
  ln::bpe_tokenizer pieces;
  ln::token_bytes bytes;
  ln::token opening;

  explicit vocabulary(ln::bpe_tokenizer by)
      : pieces(std::move(by)),
        bytes(pieces.vocabulary(),
              [&](ln::token id) { return std::string(pieces.decode(-1, id)); }),
        opening(pieces.encode("\n").front()) {}
};

inline vocabulary read_vocabulary(const options& o) {
  return vocabulary(
      support::take(ln::bpe_tokenizer::parse(support::file_text(o.merges), {}, o.merges)));
}

}  // namespace stlm_10m
