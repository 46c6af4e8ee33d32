// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Changes of a text before it is cut into words: normal forms, BERT's rules, SentencePiece's.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/charsmap.hpp>
#include <linnet/text/tokenizer_parts.hpp>
#include <linnet/text/unicode_classes.hpp>
#include <linnet/text/unicode_normalization.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether BERT puts spaces around a character. The gap before U+2B920 is in its code, too.
constexpr bool is_chinese(char32_t c) {
  const auto within = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  return within(0x4e00, 0x9fff) || within(0x3400, 0x4dbf) || within(0x20000, 0x2a6df) ||
         within(0x2a700, 0x2b81f) || within(0x2b920, 0x2ceaf) || within(0xf900, 0xfaff) ||
         within(0x2f800, 0x2fa1f);
}

/// Calls f(code, bytes) for the characters of a text; the code of a byte that belongs to none is
/// no_code.
template <class F>
void each_character(std::string_view text, F&& f) {
  while (!text.empty()) {
    const utf8_character c = utf8_front(text);
    f(c.code, text.substr(0, c.size));
    text.remove_prefix(c.size);
  }
}

/// A text without the white space at its beginning or end.
inline std::string_view stripped(std::string_view text, bool left, bool right) {
  const auto is_space = [](std::string_view c) {
    return class_of(utf8_front(c).code) == character_class::space;
  };
  while (left && !text.empty() && is_space(text)) text.remove_prefix(utf8_front(text).size);
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && text.size() - last < 4 &&
           (static_cast<unsigned char>(text[last]) & 0xc0) == 0x80)
      --last;
    if (!is_space(text.substr(last)) || utf8_front(text.substr(last)).size != text.size() - last)
      break;
    text = text.substr(0, last);
  }
  return text;
}

/// Appends a text with `content` for each `pattern` of at least `least` in a row. Runs become one
/// `content`, single patterns one each if `least` is 1.
inline void append_replaced(std::string_view text, const normalization& n, bool runs,
                            std::string& to) {
  const std::string_view pattern = n.pattern;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t found = (std::min)(text.find(pattern, at), text.size());
    to += text.substr(at, found - at);
    if (found == text.size()) break;
    std::size_t times = 1;
    at = found + pattern.size();
    while (runs && text.substr(at).starts_with(pattern)) at += pattern.size(), ++times;
    if (!runs || times >= n.least)
      to += n.content;
    else
      to += text.substr(found, at - found);
  }
}

/// Makes the changes of a tokenizer, one after the other.
class normalizer {
 public:
  static constexpr std::size_t most_steps = 16;
  static constexpr std::size_t longest_pattern = 64;   ///< bytes
  static constexpr std::size_t longest_content = 256;  ///< bytes, but of a charsmap

  normalizer() = default;
  /// Takes the changes. Errors: errc::unsupported, errc::malformed (a charsmap).
  static result<normalizer> make(std::vector<normalization>&& steps, const std::string& where);

  /// Whether texts stay as they are.
  bool empty() const { return steps_.empty(); }
  /// Whether these are its changes.
  bool makes(const std::vector<normalization>& changes) const {
    return std::ranges::equal(steps_, changes, {}, &step::change);
  }
  /// Makes the changes. False where memory lacks.
  bool apply(std::string& text) const {
    for (const step& s : steps_) {
      // A character may become 18 of two bytes, which is six times its size or less.
      const std::size_t growth = (std::max)(std::size_t{12}, s.change.content.size() + 2);
      if (text.size() > PTRDIFF_MAX / 1024 || !has_memory(growth * text.size())) return false;
      std::string changed;
      changed.reserve(text.size());
      apply(s, text, changed);
      text = std::move(changed);
    }
    return true;
  }

 private:
  struct step {
    normalization change;
    charsmap map{};
  };
  std::vector<step> steps_;

  static void apply(const step& s, std::string_view text, std::string& to);
};

inline result<normalizer> normalizer::make(std::vector<normalization>&& steps,
                                           const std::string& where) {
  const auto wrong = [&](const char* what, std::string expected, std::string got) {
    return error{errc::unsupported, where, what, std::move(expected), std::move(got)};
  };
  if (steps.size() > most_steps)
    return wrong("normalizer", "at most " + std::to_string(most_steps) + " steps",
                 std::to_string(steps.size()));
  normalizer made;
  for (normalization& n : steps) {
    using kinds = normalization::kinds;
    const bool map = n.kind == kinds::charsmap;
    const bool replaces = n.kind == kinds::replace || n.kind == kinds::squeeze;
    if (replaces && (n.pattern.empty() || n.pattern.size() > longest_pattern))
      return wrong("normalizer.pattern", "1 to " + std::to_string(longest_pattern) + " bytes",
                   std::to_string(n.pattern.size()));
    if (!map && n.content.size() > longest_content)
      return wrong("normalizer.content", "at most " + std::to_string(longest_content) + " bytes",
                   std::to_string(n.content.size()));
    step s{std::move(n)};
    if (map) {
      auto parsed = charsmap::parse(s.change.content, where);
      if (!parsed) return parsed.error();
      s.map = std::move(*parsed);
      s.change.content.assign(s.map.growth(), ' ');  // says how much a text may grow
    }
    made.steps_.push_back(std::move(s));
  }
  return made;
}

inline void normalizer::apply(const step& s, std::string_view text, std::string& to) {
  using kinds = normalization::kinds;
  const auto copy = [&](std::string_view part) { to += part; };
  const normalization& n = s.change;
  switch (n.kind) {
    case kinds::nfc:
      to = normalized(text, normal_form::c);
      break;
    case kinds::nfd:
      to = normalized(text, normal_form::d);
      break;
    case kinds::nfkc:
      to = normalized(text, normal_form::kc);
      break;
    case kinds::nfkd:
      to = normalized(text, normal_form::kd);
      break;
    case kinds::lowercase:
      each_character(text, [&](char32_t c, std::string_view bytes) {
        if (c == no_code) return copy(bytes);
        each_lower(c, [&](char32_t l) { append_utf8(l, to); });
      });
      break;
    case kinds::strip_accents:
    case kinds::strip_marks:
      each_character(text, [&](char32_t c, std::string_view bytes) {
        const mark_class m = mark_class_of(c);
        if (m != mark_class::nonspacing &&
            (n.kind == kinds::strip_accents || m != mark_class::other_mark))
          copy(bytes);
      });
      break;
    case kinds::clean:
      each_character(text, [&](char32_t c, std::string_view bytes) {
        if (c == '\t' || c == '\n' || c == '\r') return copy(" ");
        if (c == 0 || c == 0xfffd || c == no_code || mark_class_of(c) == mark_class::control)
          return;
        copy(class_of(c) == character_class::space ? std::string_view(" ") : bytes);
      });
      break;
    case kinds::space_chinese:
      each_character(text, [&](char32_t c, std::string_view bytes) {
        if (!is_chinese(c)) return copy(bytes);
        copy(" ");
        copy(bytes);
        copy(" ");
      });
      break;
    case kinds::prepend:
      if (!text.empty()) copy(n.content);
      copy(text);
      break;
    case kinds::replace:
    case kinds::squeeze:
      append_replaced(text, n, n.kind == kinds::squeeze, to);
      break;
    case kinds::strip_left:
    case kinds::strip_right:
      copy(stripped(text, n.kind == kinds::strip_left, n.kind == kinds::strip_right));
      break;
    case kinds::charsmap:
      s.map.apply(text, to);
      break;
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
