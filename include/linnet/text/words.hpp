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

/// Bytes of the white space that a text begins with, but for its last character if something
/// follows.
inline std::size_t white_word(std::string_view text) {
  const std::size_t end = run_of(text, character_class::space);
  if (end == text.size()) return end;
  std::size_t last = end - 1;  // the first byte of the last character
  while ((static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
  return last > 0 ? last : end;
}
/// Bytes of 's, 't, 're, 've, 'm, 'll or 'd in either case at the front of a text, or 0. The long
/// s, U+017F, is an s.
inline std::size_t contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto low = [&](std::size_t i) {
    return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0';
  };
  const char a = low(1), b = low(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (text.substr(1).starts_with("\xc5\xbf")) return 3;
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
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
  return detail::white_word(text);
}

/// Bytes of the word that a text begins with by Llama 3's pattern; 0 for an empty one. It is
///
///     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
///     \s*[\r\n]+|\s+(?!\S)|\s+
///
/// (Grattafiori et al. 2024), with `most_numbers` for its 3: Qwen2 has 1.
inline std::size_t llama3_word(std::string_view text, std::size_t most_numbers = 3) {
  using detail::front_of, detail::run_of;
  if (text.empty()) return 0;
  if (const std::size_t n = detail::contraction(text); n > 0) return n;
  const auto breaks = [](char c) { return c == '\r' || c == '\n'; };
  const detail::front_character c = front_of(text);
  const auto kind_at = [&](std::size_t at) {
    return at < text.size() ? front_of(text.substr(at)).kind : character_class::space;
  };
  if (c.kind == character_class::number) {
    std::size_t end = c.size;
    for (std::size_t i = 1; i < most_numbers && kind_at(end) == character_class::number; ++i)
      end += front_of(text.substr(end)).size;
    return end;
  }
  if (c.kind == character_class::letter ||
      (!breaks(text[0]) && kind_at(c.size) == character_class::letter))
    return c.size + run_of(text.substr(c.size), character_class::letter);
  if (const std::size_t first = text[0] == ' ' ? 1 : 0; kind_at(first) == character_class::other) {
    std::size_t end = first + run_of(text.substr(first), character_class::other);
    while (end < text.size() && breaks(text[end])) ++end;
    return end;
  }
  const std::string_view white = text.substr(0, run_of(text, character_class::space));
  const std::size_t last = white.find_last_of("\r\n");
  return last != white.npos ? last + 1 : detail::white_word(text);
}

namespace detail {

/// Calls f(part, is_number) for the parts of a text: each number for itself, or with `runs`
/// together with its neighbours, and what stands between.
template <class F>
void each_number(std::string_view text, bool runs, F&& f) {
  while (!text.empty()) {
    const std::size_t before = run_of(text, character_class::number, true);
    if (before > 0) f(text.substr(0, before), false);
    text.remove_prefix(before);
    if (text.empty()) break;
    const std::size_t n = runs ? run_of(text, character_class::number) : front_of(text).size;
    f(text.substr(0, n), true);
    text.remove_prefix(n);
  }
}
/// Calls f(word) for the words of a text; word(rest) says how long the first one is.
template <class Word, class F>
void each_front(std::string_view text, Word&& word, F&& f) {
  while (!text.empty()) {
    const std::size_t n = word(text);
    f(text.substr(0, n));
    text.remove_prefix(n);
  }
}

}  // namespace detail

/// Calls f(word) for the words of a text, which together are the text. With `single_digits`, every
/// number is first cut out as a word of its own, and the rest is cut by itself.
template <class F>
void each_word(std::string_view text, bool single_digits, F&& f) {
  if (!single_digits) return detail::each_front(text, gpt2_word, f);
  detail::each_number(text, false,
                      [&](std::string_view part, bool) { detail::each_front(part, gpt2_word, f); });
}

LINNET_NAMESPACE_END
