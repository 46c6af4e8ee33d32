// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Numbers that a text states, in one spelling, so that they can be compared as texts.

#include <algorithm>
#include <string>
#include <string_view>

#include <linnet/core/result.hpp>
#include <linnet/text/words.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// "-", U+2212 and the fullwidth U+FF0D. An en dash is none: it stands between numbers.
inline constexpr std::string_view minus_signs[] = {"-", "\xe2\x88\x92", "\xef\xbc\x8d"};
/// Signs of money: $, and those of euro, pound, yen and rupee.
inline constexpr std::string_view money_signs[] = {"$", "\xe2\x82\xac", "\xc2\xa3", "\xc2\xa5",
                                                   "\xe2\x82\xb9"};

/// Takes one of some signs from the front of a text; whether there was one.
template <std::size_t N>
bool take_sign(std::string_view& text, const std::string_view (&signs)[N]) {
  for (const std::string_view sign : signs)
    if (text.starts_with(sign)) return text.remove_prefix(sign.size()), true;
  return false;
}
/// Bytes of the sign that a text ends with; 0 without one.
template <std::size_t N>
std::size_t sign_behind(std::string_view text, const std::string_view (&signs)[N]) {
  for (const std::string_view sign : signs)
    if (text.ends_with(sign)) return sign.size();
  return 0;
}

/// Whether a minus behind `text` is between two things, as in 5-3, (x)-3, --3 or covid-19, and no
/// sign.
inline bool minus_is_between(std::string_view text) {
  if (text.empty()) return false;
  std::size_t last = text.size() - 1;  // the first byte of the last character
  while (last > 0 && text.size() - last < 4 &&
         (static_cast<unsigned char>(text[last]) & 0xc0) == 0x80)
    --last;
  const character_class kind = front_of(text.substr(last)).kind;
  return kind == character_class::letter || kind == character_class::number ||
         sign_behind(text, minus_signs) > 0 ||
         std::string_view(")]}%._!").find(text.back()) != std::string_view::npos;
}

/// The number that `text` begins with, in one spelling: no sign but one minus, no separators of
/// thousands, no needless zeros. "" if there is none.
inline std::string leading_number(std::string_view text) {
  bool negative = take_sign(text, minus_signs);  // -5, $5, -$5 and $-5
  if (take_sign(text, money_signs) && !negative) negative = take_sign(text, minus_signs);
  std::string whole, fraction;
  while (!text.empty() && (is_digit(text[0]) || (text[0] == ',' && !whole.empty() &&
                                                 text.size() > 1 && is_digit(text[1])))) {
    if (text[0] != ',') whole += text[0];
    text.remove_prefix(1);
  }
  if (text.size() > 1 && text[0] == '.' && is_digit(text[1]))
    for (text.remove_prefix(1); !text.empty() && is_digit(text[0]); text.remove_prefix(1))
      fraction += text[0];
  if (whole.empty() && fraction.empty()) return "";
  whole.erase(0, (std::min)(whole.find_first_not_of('0'), whole.size()));
  fraction.erase(fraction.find_last_not_of('0') + 1);
  if (whole.empty()) whole = "0";
  const std::string number = fraction.empty() ? whole : whole + "." + fraction;
  return negative && number != "0" ? "-" + number : number;
}

}  // namespace detail

/// The answer that a solution of GSM8K states: the number behind its first "####" (Cobbe et al.
/// 2021). It has one spelling, so that "1,000", "$1000" and "1000.0" are equal. "" if there is
/// none, or where memory lacks.
inline std::string parse_gsm8k_answer(std::string_view text) LINNET_TRY {
  const std::size_t mark = text.find("####");
  if (mark == text.npos) return "";
  text.remove_prefix(mark + 4);
  text.remove_prefix((std::min)(text.find_first_not_of(" \t"), text.size()));
  return detail::leading_number(text);
}
LINNET_WITHOUT_MEMORY(return {})

/// The last number of a text, in one spelling: a milder reading of a solution than
/// parse_gsm8k_answer(). A minus (-, U+2212, U+FF0D) is its sign, before or behind a sign of money
/// ($, euro, pound, yen, rupee). It is none behind a letter, a number, a closing bracket, another
/// minus or one of %._! as in 5-3. An en dash is no sign. "" if there is no number, or where memory
/// lacks.
inline std::string last_number(std::string_view text) LINNET_TRY {
  const auto digit = [&](std::size_t i) { return detail::is_digit(text[i]); };
  std::size_t end = text.size();
  while (end > 0 && !digit(end - 1)) --end;
  if (end == 0) return "";
  std::size_t begin = end - 1;
  while (begin > 0 && (digit(begin - 1) || (begin > 1 && digit(begin - 2) &&
                                            (text[begin - 1] == ',' || text[begin - 1] == '.'))))
    --begin;
  if (begin > 0 && text[begin - 1] == '.') --begin;
  begin -= detail::sign_behind(text.substr(0, begin), detail::money_signs);
  const std::size_t minus = detail::sign_behind(text.substr(0, begin), detail::minus_signs);
  if (!detail::minus_is_between(text.substr(0, begin - minus))) begin -= minus;
  return detail::leading_number(text.substr(begin, end - begin));
}
LINNET_WITHOUT_MEMORY(return {})

LINNET_NAMESPACE_END
