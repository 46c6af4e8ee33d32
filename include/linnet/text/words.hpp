// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts cut into words as GPT-2 does it: tokens never reach across the end of a word.

#include <array>
#include <string_view>

#include <linnet/core/utf8.hpp>
#include <linnet/text/stream.hpp>
#include <linnet/text/unicode_classes.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A character at the front of a text, and its bytes. A byte that belongs to no well-formed UTF-8
/// sequence is one of class other.
struct front_character {
  character_class kind;
  std::size_t size;
};

inline constexpr std::array<character_class, 128> ascii_classes = [] {
  std::array<character_class, 128> all{};
  for (std::size_t c = 0; c < all.size(); ++c) all[c] = class_of(static_cast<char32_t>(c));
  return all;
}();

/// The character at the front of a text that is not empty.
inline front_character front_of(std::string_view text) {
  if (const auto first = static_cast<unsigned char>(text[0]); first < 0x80)
    return {ascii_classes[first], 1};
  const utf8_character c = utf8_front(text);
  return {class_of(c.code), c.size};
}

/// Bytes before the first character whose class is not `kind`; with `until`, before the first whose
/// class is.
inline std::size_t run_of(std::string_view text, character_class kind, bool until = false) {
  std::size_t end = 0;
  while (end < text.size()) {
    const front_character c = front_of(text.substr(end));
    if ((c.kind == kind) == until) break;
    end += c.size;
  }
  return end;
}

}  // namespace detail

/// Bytes of the word that a text begins with; 0 for an empty one. This is GPT-2's pattern
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// (Radford et al. 2019): a contraction, or a run of letters, numbers or other characters
/// with at most one space before it, or white space. White space leaves its last character to what
/// follows. A byte that is not UTF-8 counts as another character.
inline std::size_t gpt2_word(std::string_view text) {
  using detail::run_of;
  if (text.empty()) return 0;
  if (text[0] == '\'' && text.size() > 1) {
    const char a = text[1], b = text.size() > 2 ? text[2] : '\0';
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  }
  const std::size_t first = text[0] == ' ' ? 1 : 0;
  if (first < text.size()) {
    const detail::front_character c = detail::front_of(text.substr(first));
    if (c.kind != character_class::space)
      return first + c.size + run_of(text.substr(first + c.size), c.kind);
  }
  const std::size_t end = run_of(text, character_class::space);
  if (end == text.size()) return end;
  std::size_t last = end - 1;  // the first byte of the last character
  while ((static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
  return last > 0 ? last : end;
}

/// Calls f(word) for the words of a text, which together are the text. With `single_digits`, every
/// number is first cut out as a word of its own, and the rest is cut by itself.
template <class F>
void each_word(std::string_view text, bool single_digits, F&& f) {
  while (!text.empty()) {
    std::size_t part = text.size();
    if (single_digits) part = detail::run_of(text, character_class::number, true);
    const std::size_t whole = part > 0 ? part : detail::front_of(text).size;
    for (std::string_view rest = text.substr(0, whole); !rest.empty();) {
      const std::size_t n = gpt2_word(rest);
      f(rest.substr(0, n));
      rest.remove_prefix(n);
    }
    text.remove_prefix(whole);
  }
}

LINNET_NAMESPACE_END
