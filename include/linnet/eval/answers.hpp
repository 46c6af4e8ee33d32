// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Answers that a model generates: greedy text, and the number in it.

#include <span>

#include <linnet/generate/generate_batch.hpp>
#include <linnet/text/numbers.hpp>

LINNET_NAMESPACE_BEGIN

/// Continues several prompts greedily and together, as generate_batch() does.
template <class S, class Emit>
bool generate_greedy(S& session, std::span<const std::span<const token>> prompts, index most,
                     Emit&& on_token) {
  return generate_batch(
      session, prompts, most, [](std::size_t, auto logits) { return detail::most_likely(logits); },
      on_token);
}

/// Continues one prompt greedily and calls `on_token(token)` for each token. Returns how many
/// tokens were chosen; 0 for a prompt that is refused or where memory lacks.
template <class S, class Emit>
index generate_greedy(S& session, std::span<const token> prompt, index most, Emit&& on_token) {
  index n = 0;
  (void)generate_greedy(session, std::span(&prompt, 1), most, [&](std::size_t, token t) {
    ++n;
    return on_token(t);
  });
  return n;
}

LINNET_NAMESPACE_END
