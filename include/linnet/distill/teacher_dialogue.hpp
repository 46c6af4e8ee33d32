// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Methods that let a teacher write training data: they ask, wait, keep items and refuse others.

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/text_lines.hpp>
#include <linnet/data/training_item.hpp>
#include <linnet/distill/teacher.hpp>
#include <linnet/text/filled.hpp>
#include <linnet/text/numbers.hpp>
#include <linnet/text/rouge.hpp>

LINNET_NAMESPACE_BEGIN

/// A seed that training data is made from: a question, an instruction or a passage.
struct seed_item {
  std::string question;
  std::string answer{};  ///< the right one; "" where none is known
  std::string other{};   ///< a wrong answer, or a student's; "" for none

  bool operator==(const seed_item&) const = default;
};

namespace detail {

/// An item that a method proposes, before filters that see all items.
struct proposed_item {
  training_item item;
  std::string refused_by{};  ///< the method's filter; "" where it accepts
  std::string text{};        ///< has to be new; "" for one that need not
  double most_overlap = 1;   ///< ROUGE-L of that text with others, at most
};

/// A text without white space around it.
inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view white = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(white);
  return first == text.npos ? std::string_view()
                            : text.substr(first, text.find_last_not_of(white) - first + 1);
}
/// Place of `what` in `text`, both of ASCII letters of either case; npos if it is not there.
inline std::size_t find_in_any_case(std::string_view text, std::string_view what,
                                    bool last = false) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::size_t found = text.npos;
  for (std::size_t i = 0; i + what.size() <= text.size(); ++i) {
    std::size_t n = 0;
    while (n < what.size() && low(text[i + n]) == low(what[n])) ++n;
    if (n < what.size()) continue;
    found = i;
    if (!last) break;
  }
  return found;
}
/// The part that follows `label` in a text, up to the first of `ends` behind it, without white
/// space around it; "" without the label.
inline std::string_view labelled(std::string_view text, std::string_view label,
                                 std::initializer_list<std::string_view> ends = {}) {
  const std::size_t at = find_in_any_case(text, label);
  if (at == text.npos) return {};
  text.remove_prefix(at + label.size());
  std::size_t end = text.size();
  for (const std::string_view one : ends) end = (std::min)(end, find_in_any_case(text, one));
  return trimmed(text.substr(0, end));
}

/// A solution in parts: its reasoning, and the answer that it states.
struct solution {
  std::string_view rationale;
  std::string_view answer;  ///< "" if it states none
};
/// Divides a solution at the last `mark`, such as "the answer is"; the answer is the rest of that
/// line. Without the mark all is rationale.
inline solution divided(std::string_view text, std::string_view mark) {
  const std::size_t at = find_in_any_case(text, mark, true);
  if (at == text.npos) return {trimmed(text), {}};
  std::string_view rest = trimmed(text.substr(at + mark.size()));
  while (!rest.empty() && (rest[0] == ':' || rest[0] == ' ')) rest.remove_prefix(1);
  rest = trimmed(take_line(rest));
  while (!rest.empty() && (rest.back() == '.' || rest.back() == '!')) rest.remove_suffix(1);
  return {trimmed(text.substr(0, at)), rest};
}
/// Whether an answer is right: its last number is that of `right` where that is a number, else its
/// words are those of `right`. An empty answer or one without words is never right.
inline bool same_answer(std::string_view answer, std::string_view right) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const std::string number = last_number(right);
  if (!number.empty() && std::none_of(right.begin(), right.end(), is_letter))
    return last_number(answer) == number;
  const auto words = words_of(right);
  return !words.empty() && words_of(answer) == words;
}

/// The texts of a list: lines that begin with a number and "." or ")", or with "-" or "*"; without
/// those marks.
inline std::vector<std::string_view> listed(std::string_view text) {
  std::vector<std::string_view> all;
  while (!text.empty()) {
    const std::string_view line = trimmed(take_line(text));
    const std::size_t digits = (std::min)(line.find_first_not_of("0123456789"), line.size());
    const bool numbered =
        digits > 0 && digits < line.size() && (line[digits] == '.' || line[digits] == ')');
    const bool dotted = line.size() > 1 && (line[0] == '-' || line[0] == '*') && line[1] == ' ';
    if (!numbered && !dotted) continue;
    const std::string_view one = trimmed(line.substr(numbered ? digits + 1 : 2));
    if (!one.empty()) all.push_back(one);
  }
  return all;
}

}  // namespace detail

/// How a method speaks with a teacher about one seed. A method is a callable `method(dialogue)`,
/// and is called anew whenever answers have come. So it is an ordinary function that asks and goes
/// on; where an answer is missing, ask() returns "" and waiting() is true, and it returns. It must
/// do the same whenever it is called with the same answers.
///
///     void operator()(ln::teacher_dialogue& d) const {
///       const auto answer = d.ask(d.seed().question);
///       if (d.waiting()) return;
///       if (answer.empty()) return d.refuse("empty answer");
///       d.keep({d.seed().question, std::string(answer)});
///     }
class teacher_dialogue {
 public:
  /// A dialogue about seed `number` of a list, with the answers that have come so far.
  teacher_dialogue(std::span<const seed_item> seeds, index number,
                   std::span<const std::string> answers)
      : seeds_(seeds), number_(number), answers_(answers) {}

  /// The seed that it is about.
  const seed_item& seed() const { return seeds_[static_cast<std::size_t>(number_)]; }
  /// All seeds.
  std::span<const seed_item> seeds() const { return seeds_; }
  /// The number of its seed.
  index number() const { return number_; }
  /// Asks the teacher; returns the answer without white space around it, or "" while it is missing.
  /// To ask for the same once more is another draw. Valid as long as the method runs.
  std::string_view ask(std::string prompt, std::string against = {}) {
    teacher_request request{std::move(prompt), std::move(against)};
    for (const teacher_request& before : asked_)
      request.draw += before.prompt == request.prompt && before.against == request.against;
    asked_.push_back(std::move(request));
    return asked_.size() <= answers_.size() ? detail::trimmed(answers_[asked_.size() - 1])
                                            : std::string_view();
  }
  /// Whether an answer is missing; the method then has to return.
  bool waiting() const { return asked_.size() > answers_.size(); }
  /// Proposes an item.
  void keep(training_item item) { items_.push_back({std::move(item)}); }
  /// Proposes an item whose `text` has to be new. The filter "not new" refuses a text whose ROUGE-L
  /// with a seed's question, or with such a text before it, is above `most_overlap`.
  void keep_new(training_item item, std::string_view text, double most_overlap) {
    items_.push_back({std::move(item), {}, std::string(text), most_overlap});
  }
  /// Counts an item that a filter of this name refused.
  void refuse(std::string_view filter) { items_.push_back({{}, std::string(filter)}); }

  /// The requests, in order.
  std::span<const teacher_request> asked() const { return asked_; }
  /// The proposed items, in order.
  std::span<detail::proposed_item> proposed() { return items_; }

 private:
  std::span<const seed_item> seeds_;
  index number_;
  std::span<const std::string> answers_;
  std::vector<teacher_request> asked_{};
  std::vector<detail::proposed_item> items_{};
};

LINNET_NAMESPACE_END
