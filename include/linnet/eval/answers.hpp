// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Answers that a model generates: greedy text, and the number in it.

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/text/words.hpp>

LINNET_NAMESPACE_BEGIN

/// Continues several prompts greedily and together, each by up to `most` tokens or as many as fit.
/// Hands each token to `emit(number, token)`, `number` being that of its prompt, which returns
/// false to end that text; `no_token` ends it, too, and is not handed on. `S` is a session of a
/// decoder, or a class with its members planned, capacity, chunk, reset, feed and fork. Its limits'
/// batch is the most prompts. False if they are more, or one of them is empty, too long or of
/// tokens that the model refuses, or where memory lacks.
template <class S, class Emit>
bool generate_greedy(S& session, std::span<const std::span<const token>> prompts, index most,
                     Emit&& on_token) LINNET_TRY {
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
      texts[b].next = detail::most_likely(row);
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
