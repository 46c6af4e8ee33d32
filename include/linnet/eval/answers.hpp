#pragma once
/// @file
/// Answers that a model writes: greedy text, and the number in it (zoo C11).

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/types.hpp>

LINNET_NAMESPACE_BEGIN

/// Continues a prompt greedily by up to `most` tokens or as many as fit, handing each to
/// `emit(token)`, which returns false to end. `S` is a session of a decoder or a class with its
/// members reset, read, capacity. Returns how many were chosen; 0 for a prompt that is refused.
template <class S, class Emit>
index write_greedily(S& session, std::span<const token> prompt, index most, Emit&& emit) {
  session.reset();
  auto logits = session.read(prompt);
  index n = 0;
  while (!logits.empty() && n < most) {
    const auto next =
        static_cast<token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    ++n;
    if (!emit(next) || std::ssize(prompt) + n > session.capacity()) break;
    logits = session.read({&next, 1});
  }
  return n;
}

namespace detail {

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number that `text` begins with, in one spelling: no sign but a minus, no separators of
/// thousands, no needless zeros. "" if there is none.
inline std::string leading_number(std::string_view text) {
  std::string sign, whole, fraction;
  for (const char c : {'-', '$', '-'})  // -5, $5, -$5 and $-5
    if (text.starts_with(c)) {
      if (c == '-') sign = "-";
      text.remove_prefix(1);
    }
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
  return number == "0" ? number : sign + number;
}

}  // namespace detail

/// The answer that a solution of GSM8K states: the number behind its first "####" (Cobbe et al.
/// 2021), in one spelling, so that "1,000", "$1000" and "1000.0" are equal. "" if there is none.
inline std::string stated_number(std::string_view text) {
  const std::size_t mark = text.find("####");
  if (mark == text.npos) return "";
  text.remove_prefix(mark + 4);
  text.remove_prefix((std::min)(text.find_first_not_of(' '), text.size()));
  return detail::leading_number(text);
}

/// The last number of a text, in the same spelling: a milder reading of a solution. "" if there is
/// none.
inline std::string last_number(std::string_view text) {
  const auto digit = [&](std::size_t i) { return detail::is_digit(text[i]); };
  std::size_t end = text.size();
  while (end > 0 && !digit(end - 1)) --end;
  if (end == 0) return "";
  std::size_t begin = end - 1;
  while (begin > 0 && (digit(begin - 1) || (begin > 1 && digit(begin - 2) &&
                                            (text[begin - 1] == ',' || text[begin - 1] == '.'))))
    --begin;
  if (begin > 0 && text[begin - 1] == '.') --begin;
  if (begin > 0 && text[begin - 1] == '$') --begin;
  // A minus counts where nothing but white space stands before it: not in 5-3.
  if (begin > 0 && text[begin - 1] == '-' &&
      (begin == 1 || text[begin - 2] == ' ' || text[begin - 2] == '\n'))
    --begin;
  return detail::leading_number(text.substr(begin, end - begin));
}

LINNET_NAMESPACE_END
