// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Generation with byte_pooled models: the bytes of one token after the other.

#include <array>
#include <string_view>

#include <linnet/core/shapes.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Generates after a prompt of tokens [length, bytes_per_token] (see token_bytes::bytes_of). In
/// each step `choose(logits, scratch)` chooses the bytes of the next token, slot by slot and each
/// for itself. They end before the first byte_pad, byte_end or stop byte. They are passed to
/// `on_text(std::string_view)`, which may return false to end, and fed back as the next token. Ends
/// with a token without bytes, with a stop byte or a number outside of [0, byte_values), or after
/// `g.tokens` tokens. Returns the number
/// of tokens passed to `on_text`; 0 if the prompt does not fit. Tokens may be cut anywhere, also
/// within a character: text_stream puts them together. Bytes so far are not shown to the sampler,
/// so a repetition penalty changes nothing.
template <class M, class T, class Sampler, class Emit>
index generate_bytes(session<M, T>& s, std::span<const token> prompt, Sampler&& choose,
                     Emit&& on_text, const generation_options& g = {}) {
  constexpr auto width = static_cast<std::size_t>(M::vocabulary);
  constexpr auto most = static_cast<std::size_t>(M::bytes_per_token);
  std::array<token, most> next;
  std::array<token, width> scratch;
  std::array<char, most> text;
  index n = 0;
  if (!detail::in_range(g)) {
    detail::refuse(s, refusal::options);
    return n;
  }
  for (std::span<T> logits = s.reset_and_prefill(prompt); !logits.empty(); logits = s.feed(next)) {
    next.fill(byte_pad);
    std::size_t count = 0;
    bool stopped = false;
    while (count < most) {
      const token byte = detail::choose_token(choose, logits.subspan(count * width, width),
                                              std::span<token>(scratch), {});
      stopped = g.stops(byte);
      if (byte == no_token) detail::refuse(s, refusal::nothing_chosen);
      if (stopped || byte >= byte_pad) break;
      next[count] = byte;
      text[count++] = static_cast<char>(byte);
    }
    if (count == 0) break;
    ++n;
    if (!detail::goes_on(on_text, std::string_view(text.data(), count)) || stopped || n == g.tokens)
      break;
    if (s.position() >= s.capacity()) {
      if (g.tokens > 0) detail::refuse(s, refusal::over_target);
      break;
    }
  }
  return n;
}

LINNET_NAMESPACE_END
