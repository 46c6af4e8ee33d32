// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// How well a model predicts texts, whatever its tokenizer: bits per byte, bits per character and
/// perplexities.

#include <string_view>

#include <linnet/eval/estimates.hpp>
#include <linnet/eval/session_scorer.hpp>

LINNET_NAMESPACE_BEGIN

/// Score of one text under a model: nats, tokens, bytes and characters.
struct text_score {
  double nats = 0;       ///< minus the summed log-probability of all tokens
  index tokens = 0;      ///< predicted tokens: all of the text
  index bytes = 0;       ///< bytes of the text
  index characters = 0;  ///< code points of the text's UTF-8
};

/// Code points of a UTF-8 text: bytes that do not continue one.
constexpr index characters_in(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

namespace detail {
/// The error of a text that could not be scored.
template <loglikelihood_scorer P>
error text_not_scored(P& paths, index stride) {
  if (stride > paths.longest())
    return {errc::invalid, "score_text", "stride", "at most " + std::to_string(paths.longest()),
            std::to_string(stride)};
  return not_scored(paths, "score_text", scorable);
}
/// Scores a whole text, see score_text(); score(tokens, scores) scores all tokens but the first.
template <class Encode, class Score>
result<text_score> score_text_by(const Encode& encode, token opening, std::string_view text,
                                 Score&& score) {
  std::vector<token> tokens{opening};
  for (const token t : encode(text)) tokens.push_back(t);
  std::vector<token_score> scores(tokens.size() - 1);
  if (result<void> done = score(std::span<const token>(tokens), std::span(scores)); !done)
    return done.error();
  text_score total{0, std::ssize(scores), std::ssize(text), characters_in(text)};
  for (const token_score& s : scores) total.nats -= s.log_probability;
  return total;
}
}  // namespace detail

/// Scores a whole text. `encode(text)` gives its tokens, without special ones; `opening` is the
/// token that stands before a text, such as begin or end of text. Nothing predicts it, but every
/// token of the text is predicted, from it at least. Longer texts go in windows, see score_windows.
/// Errors: errc::invalid for a stride beyond the longest sequence, and for tokens that the model
/// refuses, also for want of blocks.
template <loglikelihood_scorer P, class Encode>
result<text_score> score_text(P& paths, const Encode& encode, token opening, std::string_view text,
                              index stride = 0) LINNET_TRY {
  return detail::score_text_by(
      encode, opening, text,
      [&](std::span<const token> tokens, std::span<token_score> scores) -> result<void> {
        if (detail::score_all_windows(paths, tokens, scores, stride)) return {};
        return detail::text_not_scored(paths, stride);
      });
}
LINNET_OR_OUT_OF_MEMORY("score_text")

/// Metrics over documents: bits per byte, bits per character, perplexities. The ratios are of sums
/// over all documents (corpus level), with errors over documents, since the tokens of one are not
/// independent (see ratio_estimate). A perplexity of any unit is 2 to the power of its bits.
struct perplexity_metrics {
  index documents = 0;
  text_score total;
  estimate bits_per_byte;       ///< what models with different tokenizers compare by
  estimate bits_per_character;  ///< "original string length" (arXiv 2405.14159, 4.1.2)
  estimate bits_per_token;      ///< only for models with one tokenizer
  /// Mean over documents of exp(nats / characters), as the code of that paper averages. Short
  /// documents weigh as much as long ones, and exp() favours the worst: prefer a power of the
  /// corpus-level bits.
  estimate mean_perplexity;
};

/// Sums up documents; those without text are left out. Where memory lacks there are no figures, of
/// 0 documents.
inline perplexity_metrics summarize(std::span<const text_score> documents) LINNET_TRY {
  perplexity_metrics f;
  std::vector<double> bits, bytes, characters, tokens, perplexities;
  for (const text_score& d : documents) {
    if (d.bytes <= 0 || d.characters <= 0) continue;
    bits.push_back(d.nats / 0.69314718055994531);
    bytes.push_back(static_cast<double>(d.bytes));
    characters.push_back(static_cast<double>(d.characters));
    tokens.push_back(static_cast<double>(d.tokens));
    perplexities.push_back(std::exp(d.nats / static_cast<double>(d.characters)));
    f.total.nats += d.nats;
    f.total.tokens += d.tokens;
    f.total.bytes += d.bytes;
    f.total.characters += d.characters;
  }
  f.documents = std::ssize(bits);
  f.bits_per_byte = ratio_estimate(bits, bytes);
  f.bits_per_character = ratio_estimate(bits, characters);
  f.bits_per_token = ratio_estimate(bits, tokens);
  f.mean_perplexity = mean_estimate(perplexities);
  return f;
}
LINNET_WITHOUT_MEMORY(return {})

LINNET_NAMESPACE_END
