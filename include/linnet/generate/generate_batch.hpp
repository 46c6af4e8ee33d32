// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Several prompts of any lengths, continued together.

#include <algorithm>
#include <span>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/generate/samplers.hpp>

LINNET_NAMESPACE_BEGIN

/// Continues several prompts together, each by up to `most` tokens or as many as fit. For each new
/// token it calls `choose(number, logits)` and then `on_token(number, token)`, `number` being that
/// of its prompt. `on_token` returns false to end that text; `no_token` ends it, too, and is not
/// handed on. `S` is a session of a decoder, or a class with its members planned, capacity, chunk,
/// reset, feed and fork. Its limits' batch is the most prompts. False if they are more, or one of
/// them is empty, too long or of tokens that the model refuses, or where memory lacks.
template <class S, class Choose, class Emit>
bool generate_batch(S& session, std::span<const std::span<const token>> prompts, index most,
                    Choose&& choose, Emit&& on_token) LINNET_TRY {
  if constexpr (requires { S::model::block_tokens; })
    static_assert(S::model::block_tokens == 1,
                  "linnet::generate_batch: tokens of one block see each other, so they are not "
                  "written one after the other");
  struct text {
    std::size_t number;  ///< of its prompt
    index length;        ///< of that
    token next;
  };
  std::vector<text> texts;  // those that go on, each in the sequence of its place
  for (const auto& prompt : prompts) texts.push_back({texts.size(), std::ssize(prompt), 0});
  // The longest first: prompts that have tokens left are always the first of the batch.
  std::stable_sort(texts.begin(), texts.end(),
                   [](const text& a, const text& b) { return a.length > b.length; });
  if (std::ssize(texts) > session.planned().batch) return false;
  for (const text& t : texts)
    if (t.length < 1 || t.length > session.capacity()) return false;
  if constexpr (requires { S::takes_prefix; })
    if (S::takes_prefix && texts[0].length > session.chunk()) return false;  // it has to be whole

  std::vector<token> inputs;
  std::vector<index> lengths;
  const auto feed = [&] {  // of the first lengths.size() texts
    const auto logits = session.feed(inputs, std::ssize(lengths), lengths);
    const std::size_t vocabulary = logits.size() / lengths.size();
    for (std::size_t b = 0; !logits.empty() && b < lengths.size(); ++b) {
      const auto row = logits.subspan(b * vocabulary, vocabulary);
      texts[b].next = choose(texts[b].number, row);
    }
    return !logits.empty();
  };
  session.reset();
  for (index at = 0; !texts.empty() && at < texts[0].length; at += session.chunk()) {
    inputs.clear();
    lengths.clear();
    const index length = (std::min)(session.chunk(), texts[0].length - at);
    for (const text& t : texts) {
      if (t.length <= at) break;
      lengths.push_back((std::min)(length, t.length - at));
      const auto part = prompts[t.number].subspan(static_cast<std::size_t>(at),
                                                  static_cast<std::size_t>(lengths.back()));
      inputs.insert(inputs.end(), part.begin(), part.end());
      inputs.resize(lengths.size() * static_cast<std::size_t>(length));
    }
    if (!feed()) return false;
  }
  for (index n = 1; n <= most && !texts.empty(); ++n) {
    for (std::size_t b = 0; b < texts.size();) {
      if (texts[b].next != no_token && on_token(texts[b].number, texts[b].next) &&
          texts[b].length + n <= session.capacity()) {
        ++b;
      } else {  // the last one takes its place
        if (!session.fork(std::ssize(texts) - 1, static_cast<index>(b))) return false;
        texts[b] = texts.back();
        texts.pop_back();
      }
    }
    inputs.clear();
    for (const text& t : texts) inputs.push_back(t.next);
    lengths.assign(texts.size(), 1);
    if (n < most && !texts.empty() && !feed()) return false;
  }
  return true;
}
LINNET_WITHOUT_MEMORY(return false)

LINNET_NAMESPACE_END
