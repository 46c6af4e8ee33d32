// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The loop of session::generate(): choose, show, feed.

#include <linnet/core/refusal.hpp>
#include <linnet/generate/generation_options.hpp>
#include <linnet/generate/samplers.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Lets last_refusal() of a session say why what runs it did nothing.
template <class Session>
void refuse(Session& s, refusal why) noexcept {
  s.reason_ = why;
}

/// session::generate() of a session `s` with options in range; `scratch` [vocabulary] is the
/// sampler's.
template <class Session, class Sampler, class Emit>
index generate_text(Session& s, std::span<token> scratch, std::span<const token> tokens,
                    Sampler& choose, Emit& on_token, const generation_options& g) {
  auto logits = s.reset_and_prefill(tokens);
  if (logits.empty()) return 0;
  for (index n = 0;; ++n) {
    if (g.tokens > 0 && n == g.tokens) return n;
    const token next = choose_token(choose, logits, scratch, s.fed());
    if (next == no_token) refuse(s, refusal::nothing_chosen);
    if (g.stops(next)) return n;
    if (!goes_on(on_token, next) || n + 1 == g.tokens) return n + 1;
    if (s.position() >= s.capacity()) {
      if (g.tokens > 0) refuse(s, refusal::over_target);
      return n + 1;
    }
    logits = s.feed({&next, 1});
    if (logits.empty()) return n + 1;
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
