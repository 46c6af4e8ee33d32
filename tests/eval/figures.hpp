// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Toy models behind the concept loglikelihood_scorer: tables of probabilities instead of a
/// network.

#include "support/data.hpp"
#include "support/test.hpp"

namespace test {

/// One token for each byte.
inline std::vector<token> bytes_of(std::string_view text) {
  return ln::byte_tokenizer{}.encode(text);
}

/// How often two texts were compared since the program began (eval/compare.cpp).
long texts_compared();

/// A model whose next token depends on the one before: log P(t | before) = rule(before, t). Says
/// how many tokens it was given and refuses more than `longest`.
template <class Rule>
struct bigrams {
  Rule rule;
  index room = 1 << 20;
  index vocabulary = 256;
  std::vector<token> given{};
  index begun = 0, read = 0;  ///< calls of begin(), tokens that went through the model

  index longest() const { return room; }
  bool begin(std::span<const token> tokens, std::span<ln::token_score> scores) {
    ++begun;
    read += std::ssize(tokens);
    given.assign(tokens.begin(), tokens.end());
    return !tokens.empty() && std::ssize(tokens) <= room && known(tokens) &&
           (scores.empty() || fill(tokens.first(1), tokens.subspan(1), scores));
  }
  bool score(std::span<const token> rest, std::span<ln::token_score> scores) {
    read += (std::max)(std::ssize(rest) - 1, index{0});
    if (given.empty() || std::ssize(given) + std::ssize(rest) - 1 > room || !known(rest))
      return false;
    return fill(std::span(given).last(1), rest, scores);
  }

 private:
  bool known(std::span<const token> tokens) const {
    return std::all_of(tokens.begin(), tokens.end(),
                       [&](token t) { return t >= 0 && t < vocabulary; });
  }
  bool fill(std::span<const token> before, std::span<const token> rest,
            std::span<ln::token_score> scores) {
    if (scores.size() != rest.size()) return false;
    token last = before[0];
    for (std::size_t i = 0; i < rest.size(); ++i) {
      token best = 0;
      for (token t = 0; t < vocabulary; ++t)
        if (rule(last, t) > rule(last, best)) best = t;
      scores[i] = {rule(last, rest[i]), best == rest[i]};
      last = rest[i];
    }
    return true;
  }
};
template <class Rule>
bigrams(Rule) -> bigrams<Rule>;

/// All tokens alike.
inline auto uniform(index vocabulary = 256) {
  const auto rule = [vocabulary](token, token) {
    return -std::log(static_cast<double>(vocabulary));
  };
  return bigrams<decltype(rule)>{.rule = rule, .vocabulary = vocabulary};
}

}  // namespace test
