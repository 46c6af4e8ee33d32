// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Unicode's normal forms (Unicode Standard Annex 15), lower case, and classes of marks.

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/utf8.hpp>
#include <linnet/text/unicode_classes.hpp>
#include <linnet/text/unicode_tables.hpp>

LINNET_NAMESPACE_BEGIN

/// Normal forms of Unicode: D is decomposed, C composed again; with K, characters that differ in
/// style alone become equal.
enum class normal_form { c, d, kc, kd };

/// Class of a character in BERT's rules: Mn, Mc or Me, P or printable ASCII that is neither letter
/// nor digit, and Cc, Cf or Co.
enum class mark_class : std::uint8_t { none, nonspacing, other_mark, punctuation, control };

namespace detail {

/// The value of the run of a table in which a code point lies.
template <std::uint32_t factor, class Table>
constexpr std::uint32_t run_value(const Table& starts, char32_t code) {
  if (code > 0x10ffff) return 0;
  const auto next = std::upper_bound(std::begin(starts), std::end(starts),
                                     factor * static_cast<std::uint32_t>(code) + factor - 1);
  return *std::prev(next) % factor;
}
constexpr std::uint32_t combining_class(char32_t code) {
  return code < 0x300 ? 0 : run_value<256>(combining_starts, code);
}

/// Where decomposition `number` is in decomposed_codes.
constexpr const std::uint32_t* decomposition(std::size_t number) {
  std::size_t at = decomposition_starts[number / 16];
  for (std::size_t i = number / 16 * 16; i < number; ++i) at += decompositions[i] % 32;
  return decomposed_codes + at;
}

// Syllables of Korean are composed by arithmetic.
inline constexpr std::uint32_t first_syllable = 0xac00, syllables = 11172, first_lead = 0x1100,
                               leads = 19, first_vowel = 0x1161, vowels = 21, before_tail = 0x11a7,
                               tails = 28;

/// Calls f(code) for what a code point decomposes into, all levels.
template <class F>
void decompose(char32_t code, bool compatible, F&& f) {
  if (code < 0xa0) return f(code);
  if (const std::uint32_t s = code - first_syllable; s < syllables) {
    f(static_cast<char32_t>(first_lead + s / (vowels * tails)));
    f(static_cast<char32_t>(first_vowel + s / tails % vowels));
    if (s % tails != 0) f(static_cast<char32_t>(before_tail + s % tails));
    return;
  }
  const auto at = std::lower_bound(std::begin(decompositions), std::end(decompositions),
                                   64 * static_cast<std::uint32_t>(code));
  if (code > 0x10ffff || at == std::end(decompositions) || *at / 64 != code ||
      ((*at & 32) != 0 && !compatible))
    return f(code);
  const std::uint32_t* const parts =
      decomposition(static_cast<std::size_t>(at - std::begin(decompositions)));
  for (std::uint32_t i = 0; i < *at % 32; ++i) decompose(char32_t{parts[i]}, compatible, f);
}

/// The code point that two others compose to, or 0.
constexpr char32_t composed(char32_t a, char32_t b) {
  if (const std::uint32_t l = a - first_lead, v = b - first_vowel; l < leads && v < vowels)
    return first_syllable + (l * vowels + v) * tails;
  if (const std::uint32_t s = a - first_syllable, t = b - before_tail;
      s < syllables && s % tails == 0 && t > 0 && t < tails)
    return a + t;
  const auto* const at = std::lower_bound(std::begin(compositions), std::end(compositions), 0,
                                          [&](std::uint16_t number, int) {
                                            const std::uint32_t* const two = decomposition(number);
                                            return two[0] != a ? two[0] < a : two[1] < b;
                                          });
  if (at == std::end(compositions)) return 0;
  const std::uint32_t* const two = decomposition(*at);
  return two[0] == a && two[1] == b ? decompositions[*at] / 64 : 0;
}

/// Brings a stream of code points into a normal form.
class normal_former {
 public:
  normal_former(normal_form form, std::string& to)
      : composes_(form == normal_form::c || form == normal_form::kc),
        compatible_(form == normal_form::kc || form == normal_form::kd),
        to_(to) {}
  /// Takes the next code point.
  void push(char32_t code) {
    decompose(code, compatible_, [&](char32_t c) { take(c); });
  }
  /// Takes a byte that belongs to no character.
  void push_byte(char byte) {
    flush();
    to_ += byte;
  }
  /// Ends the text.
  void flush() {
    combine();
    put();
  }

 private:
  struct element {
    char32_t code;
    std::uint32_t combining;
  };
  bool composes_, compatible_;
  std::string& to_;
  std::vector<element> held_{};  ///< a character and the marks behind it

  void take(char32_t c) {
    const std::uint32_t combining = combining_class(c);
    if (combining == 0 && !held_.empty()) {
      combine();
      if (composes_ && held_.size() == 1 && held_[0].combining == 0)
        if (const char32_t both = composed(held_[0].code, c); both != 0) {
          held_[0].code = both;
          return;
        }
      put();
    }
    held_.push_back({c, combining});
  }
  void put() {
    for (const element& e : held_) append_utf8(e.code, to_);
    held_.clear();
  }
  /// Orders the marks, and composes those that nothing stands between.
  void combine() {
    if (held_.size() < 2) return;
    std::stable_sort(held_.begin(), held_.end(),
                     [](const element& a, const element& b) { return a.combining < b.combining; });
    if (!composes_ || held_[0].combining != 0) return;
    std::size_t kept = 1;
    for (std::size_t i = 1; i < held_.size(); ++i) {
      const bool blocked = kept > 1 && held_[kept - 1].combining == held_[i].combining;
      const char32_t both = blocked ? 0 : composed(held_[0].code, held_[i].code);
      if (both != 0)
        held_[0].code = both;
      else
        held_[kept++] = held_[i];
    }
    held_.resize(kept);
  }
};

}  // namespace detail

/// The class of a code point; none for numbers that are none.
constexpr mark_class mark_class_of(char32_t c) {
  return static_cast<mark_class>(detail::run_value<8>(detail::mark_starts, c));
}

/// Whether a code point is in patterns' \\w: letters, marks, decimal and letter numbers, connecting
/// punctuation, and few others.
constexpr bool is_word(char32_t c) {
  const mark_class m = mark_class_of(c);
  const character_class k = class_of(c);
  const bool usual = k == character_class::letter || k == character_class::number ||
                     m == mark_class::nonspacing || m == mark_class::other_mark;
  return usual != (detail::run_value<2>(detail::word_exceptions, c) == 1);
}

/// Calls f(code) for the one or two code points of a code point's lower case.
template <class F>
void each_lower(char32_t c, F&& f) {
  if (c == 0x130) {
    f(U'i');
    return f(char32_t{0x307});
  }
  const auto* const run =
      std::lower_bound(std::begin(detail::lower_case_runs), std::end(detail::lower_case_runs), c,
                       [](const detail::case_run& r, char32_t code) { return r.last < code; });
  if (run == std::end(detail::lower_case_runs) || c < run->first || (c - run->first) % run->step)
    return f(c);
  f(static_cast<char32_t>(static_cast<std::int64_t>(c) + run->add));
}

/// A text in a normal form. Bytes that are not UTF-8 stay as they are.
inline std::string normalized(std::string_view text, normal_form form) {
  std::string to;
  to.reserve(text.size());
  detail::normal_former former(form, to);
  while (!text.empty()) {
    const detail::utf8_character c = detail::utf8_front(text);
    if (c.code == detail::no_code)
      former.push_byte(text[0]);
    else
      former.push(c.code);
    text.remove_prefix(c.size);
  }
  former.flush();
  return to;
}

LINNET_NAMESPACE_END
