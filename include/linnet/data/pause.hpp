// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pause tokens: one extra token gives a model time to compute before it has to answer (Goyal et
/// al. 2023, arXiv:2310.02226).
///
/// The pause is an id behind those of the text, so the model's shape has a vocabulary of one more.
/// It is learned as an input alone, never as a target. To generate, put pauses behind the prompt,
/// and let none be chosen:
///
///     prompt.insert(prompt.end(), 10, pause);
///     ln::with_logit_processors choose(ln::greedy{},
///                                      [](std::span<float> l) { l[pause] = -1e30f; });
///     session.generate(prompt, choose, emit);
///
/// What the model says before the last pause is never looked at. As many pauses as in fine-tuning:
/// a model that was tuned with them does badly without.

#include <algorithm>
#include <span>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// Pauses in the texts of pre-training.
struct pause_options {
  token pause = 0;     ///< the id
  double share = 0.1;  ///< pauses to put among `length` tokens, as a part of `length`; 0 to 1

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("share", self.share, detail::between(0, 1));
  }

  /// Pauses to put among `length` tokens, halves away from zero.
  constexpr index count(index length) const {
    return static_cast<index>(share * static_cast<double>(length) + 0.5);
  }
};

/// Builds one row of pre-training, as a pure function of (key, number). The text[length + 1] gets
/// how.count(length) pauses, and is cut to length + 1 tokens again. Every choice of their places is
/// equally likely, but none is in front of the first token. The first `length` tokens are the
/// inputs tokens[length]. The token that follows each is its label in labels[length], or `ignored`
/// where that is a pause. A pause whose next token is one of the text does have a label. Allocates
/// nothing. Returns how many tokens of the text are inputs, so that the next row may go on there;
/// 0, and nothing done, if sizes do not fit or `how` is out of its ranges.
inline index insert_pauses(const pause_options& how, std::span<const token> text, seed key,
                           std::uint64_t number, std::span<token> tokens, std::span<token> labels) {
  const index length = std::ssize(tokens);
  if (length < 1 || length > (index{1} << 30) || std::ssize(labels) != length ||
      std::ssize(text) != length + 1 || !detail::in_range(how))
    return 0;
  random_stream random(key, number);
  index left = how.count(length), read = 1;  // pauses to place, tokens of the text placed
  for (index i = 0; i < length; ++i) {
    // Of the places behind this one, `left` are pauses, any of them.
    const auto places = static_cast<std::uint32_t>(length + 1 - read + left);
    const bool pause = left > 0 && static_cast<index>(random.below(places)) < left;
    const token next = pause ? how.pause : text[static_cast<std::size_t>(read)];
    left -= pause;
    read += !pause;
    const auto here = static_cast<std::size_t>(i);
    labels[here] = next == how.pause ? ignored : next;
    if (i + 1 < length)
      tokens[here + 1] = next;
    else
      read -= !pause;  // the last label is not an input
  }
  tokens[0] = text[0];
  return read;
}

/// Builds one row of fine-tuning: a prompt, `pauses` pauses and an answer. Tokens of the answer are
/// labels of the tokens before them; all other labels are `ignored`. The rest of the row is filled
/// with pauses. Allocates nothing. Returns how many inputs the example takes, one less than its
/// tokens; 0, and nothing done, if prompt or answer is empty, or the row too short.
inline index pause_before(std::span<const token> prompt, index pauses,
                          std::span<const token> answer, token pause, std::span<token> tokens,
                          std::span<token> labels) {
  const index room = std::ssize(tokens), before = std::ssize(prompt) + pauses;
  if (prompt.empty() || answer.empty() || pauses < 0 || pauses > room ||
      before + std::ssize(answer) - 1 > room || std::ssize(labels) != room)
    return 0;
  std::copy(prompt.begin(), prompt.end(), tokens.begin());
  std::fill(tokens.begin() + std::ssize(prompt), tokens.end(), pause);
  std::copy(answer.begin(), answer.end() - 1, tokens.data() + before);
  std::fill(labels.begin(), labels.end(), ignored);
  std::copy(answer.begin(), answer.end(), labels.data() + before - 1);
  return before + std::ssize(answer) - 1;
}

LINNET_NAMESPACE_END
