// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/generated_data.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: training data that a teacher writes, by the methods of docs/generated-data.md. Needs
/// nlohmann/json, which reads recorded answers.

#include <linnet/linnet.hpp>
/// @file
/// More examples from labelled ones by a teacher: AugGPT, LLM2LLM and in-context learning
/// distillation. Each method runs in generate_data().

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Training data that a teacher writes: one function that runs every method, with filters and
/// counts.

#include <map>
#include <span>
#include <tuple>
#include <utility>

/// @file
/// Methods that let a teacher write training data: they ask, wait, keep items and refuse others.

#include <initializer_list>

#include <linnet/search.hpp>
/// @file
/// Teachers that are asked for text: what all of them can do, and one that is a function.

#include <concepts>
#include <optional>

LINNET_NAMESPACE_BEGIN

/// One text that a teacher is asked for.
struct teacher_request {
  std::string prompt;
  std::string against{};  ///< a second prompt, whose likely tokens are avoided (contrastive
                          ///< decoding, Wang et al. 2023); "" for none
  index draw = 0;         ///< number of this answer among those to one prompt

  bool operator==(const teacher_request&) const = default;
};

/// Concept of a teacher: `generate(requests)` returns one text for each request, or the error that
/// prevented them. An answer is a function of its request alone, so that a run can be repeated.
template <class T>
concept teacher = requires(T& t, std::span<const teacher_request> requests) {
  { t.generate(requests) } -> std::same_as<result<std::vector<std::string>>>;
};
/// Concept of a teacher that also has `score(prompt, text)`: the mean log-likelihood of the text
/// behind the prompt, in nats per token.
template <class T>
concept scoring_teacher = teacher<T> && requires(T& t, std::string_view text) {
  { t.score(text, text) } -> std::same_as<result<double>>;
};

namespace detail {

/// `text` with U+FFFD in the place of each byte that is not UTF-8.
inline std::string only_utf8(std::string_view text) {
  if (is_utf8(text)) return std::string(text);
  std::string clean;
  while (!text.empty()) {
    const utf8_character c = utf8_front(text);
    if (c.code == no_code)
      clean += "\xef\xbf\xbd";
    else
      clean += text.substr(0, c.size);
    text.remove_prefix(c.size);
  }
  return clean;
}

/// The error of a teacher that has no answer to a prompt.
inline error no_answer(const std::string& where, std::string_view prompt, index draw) {
  return failure(errc::missing, where,
                 "answer " + std::to_string(draw) + " to \"" + printable(prompt) + '"',
                 "one, of a teacher that has not run out of answers", "none");
}

}  // namespace detail

/// A teacher of any type, which must outlive it. Answers are checked: there are as many as
/// requests, they are UTF-8 (other bytes become U+FFFD), and scores are numbers.
class teacher_ref {
 public:
  template <teacher T>
  requires(!std::same_as<T, teacher_ref>) teacher_ref(T& t)
      : object_(const_cast<void*>(static_cast<const void*>(&t))),
        generate_([](void* object, std::span<const teacher_request> all) {
          return static_cast<T*>(object)->generate(all);
        }) {
    if constexpr (scoring_teacher<T>)
      score_ = [](void* object, std::string_view prompt, std::string_view text) {
        return static_cast<T*>(object)->score(prompt, text);
      };
  }

  /// Whether score() can be asked for.
  bool can_score() const { return score_ != nullptr; }
  /// One text for each request. Errors: the teacher's; errc::mismatch for another number of texts.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) const LINNET_TRY {
    auto texts = generate_(object_, all);
    if (!texts) return texts;
    if (texts->size() != all.size())
      return detail::failure(errc::mismatch, "teacher", "answers", std::to_string(all.size()),
                             std::to_string(texts->size()));
    for (std::string& text : *texts) text = detail::only_utf8(text);
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY("teacher")
  /// Nats per token of a text behind a prompt, negative but for certain texts. Errors: the
  /// teacher's; errc::unsupported for one that cannot score; errc::invalid for NaN and infinity.
  result<double> score(std::string_view prompt, std::string_view text) const LINNET_TRY {
    if (!can_score())
      return detail::failure(errc::unsupported, "teacher", "score", "a teacher that has one",
                             "one that only writes; set least_score to 0");
    auto nats = score_(object_, prompt, text);
    if (nats && !is_finite(*nats))
      return detail::failure(errc::invalid, "teacher",
                             "score of \"" + detail::printable(text) + '"', "a finite number",
                             is_nan(*nats) ? "NaN" : "infinity");
    return nats;
  }
  LINNET_OR_OUT_OF_MEMORY("teacher")

 private:
  void* object_;
  result<std::vector<std::string>> (*generate_)(void*, std::span<const teacher_request>);
  result<double> (*score_)(void*, std::string_view, std::string_view) = nullptr;
};

/// A teacher whose answers a function gives: `answer(request)` returns a std::string, or a
/// std::optional of one that is empty where there is no answer. For tests, and to wrap a program of
/// your own.
///
///     ln::scripted_teacher teacher([](const ln::teacher_request&) { return std::string("42"); });
template <class Answer>
class scripted_teacher {
 public:
  explicit scripted_teacher(Answer answer) : answer_(std::move(answer)) {}

  /// Asks the function for each answer. Errors: errc::missing where it has none.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) LINNET_TRY {
    std::vector<std::string> texts;
    for (const teacher_request& one : all) {
      std::optional<std::string> text = answer_(one);
      if (!text) return detail::no_answer("scripted_teacher", one.prompt, one.draw);
      texts.push_back(std::move(*text));
    }
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY("scripted_teacher")

 private:
  Answer answer_;
};

LINNET_NAMESPACE_END
/// @file
/// Words of a text for comparisons, and ROUGE-L (Lin 2004), by which near-duplicates are found.

#include <cstdint>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The words of a text as numbers: runs of ASCII letters and digits, in either case, and of bytes
/// beyond ASCII. Each is its FNV-1a hash.
inline std::vector<std::uint64_t> words_of(std::string_view text) {
  std::vector<std::uint64_t> words;
  char low[64];
  std::size_t size = 0;
  std::uint64_t hash = 0;
  bool inside = false;
  const auto end = [&] {
    if (inside) words.push_back(hash ^ stream_of({low, size}));
    size = 0, hash = 0, inside = false;
  };
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool in = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    static_cast<unsigned char>(c) >= 0x80;
    if (!in) {
      end();
      continue;
    }
    if (size == sizeof low) hash = (hash ^ stream_of({low, size})) * 31, size = 0;
    low[size++] = upper ? static_cast<char>(c + ('a' - 'A')) : c;
    inside = true;
  }
  end();
  return words;
}

/// ROUGE-L of words: 2 LCS(a, b) / (|a| + |b|), 0 of an empty text. It is 0 as
/// well where the lengths alone say that it is at most `least`.
inline double rouge_l(const std::vector<std::uint64_t>& a, const std::vector<std::uint64_t>& b,
                      double least = 0) {
  const std::size_t shorter = (std::min)(a.size(), b.size()), sum = a.size() + b.size();
  if (shorter == 0 || 2 * static_cast<double>(shorter) <= least * static_cast<double>(sum))
    return 0;
  std::vector<std::size_t> row(b.size() + 1);  // longest common subsequences with a's beginning
  for (const std::uint64_t word : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : (std::max)(above, row[j]);
      diagonal = above;
    }
  }
  return 2 * static_cast<double>(row.back()) / static_cast<double>(sum);
}

}  // namespace detail

/// ROUGE-L of two texts, from 0 to 1: the F1 of their longest common subsequence of words. Words
/// are runs of letters and digits, case aside. 0 where memory lacks.
inline double rouge_l(std::string_view a, std::string_view b) LINNET_TRY {
  return detail::rouge_l(detail::words_of(a), detail::words_of(b));
}
LINNET_WITHOUT_MEMORY(return 0)

LINNET_NAMESPACE_END

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

LINNET_NAMESPACE_BEGIN

/// Options of generate_data().
struct data_generation_options {
  index together = 32;     ///< seeds whose requests go to the teacher in one call
  index most_asked = 256;  ///< requests about one seed
  index longest = 0;       ///< bytes of a target; longer ones are refused; 0 takes all
  double least_score = 0;  ///< nats per token that the teacher gives a target, at least; negative;
                           ///< 0 asks for no score

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("together", self.together, detail::count(1));
    f("most_asked", self.most_asked, detail::count(1));
    f("longest", self.longest, detail::count(0, "0 takes all"));
    f("least_score", self.least_score, detail::between(-1000, 0, "0 asks for no score"));
  }
};

/// Counts of the items of a run, and of those that filters refused.
struct data_statistics {
  index seeds = 0;     ///< that were asked about
  index asked = 0;     ///< different requests to the teacher, those of a record among them
  index proposed = 0;  ///< items, good or not
  index accepted = 0;  ///< items that passed all filters
  std::vector<std::pair<std::string, index>> refused{};  ///< items by filter, in order of the names

  /// Part of the proposed items that were accepted; 0 of none.
  double acceptance() const {
    return proposed > 0 ? static_cast<double>(accepted) / static_cast<double>(proposed) : 0;
  }
  /// Items that a filter refused.
  index refused_by(std::string_view filter) const {
    for (const auto& [name, count] : refused)
      if (name == filter) return count;
    return 0;
  }
  /// One line for people: "3 of 5 items accepted, 7 requests; refused: wrong answer 2".
  std::string text() const {
    std::string line = std::to_string(accepted) + " of " + std::to_string(proposed) +
                       " items accepted, " + std::to_string(asked) + " requests";
    for (std::size_t i = 0; i < refused.size(); ++i)
      line += (i == 0 ? "; refused: " : ", ") + refused[i].first + ' ' +
              std::to_string(refused[i].second);
    return line;
  }
};

/// Items that a teacher has written, in the order of their seeds.
struct generated_data {
  std::vector<training_item> items{};
  data_statistics statistics{};
};

namespace detail {

/// A method of any type, as generate_data() calls it.
struct data_method {
  const void* object;
  void (*call)(const void*, teacher_dialogue&);
};

/// Runs a method over seeds; see generate_data().
class data_generator {
 public:
  data_generator(std::span<const seed_item> seeds, data_method method, teacher_ref teacher,
                 const data_generation_options& how)
      : seeds_(seeds), method_(method), teacher_(teacher), how_(how) {}

  result<generated_data> run() {
    if (auto fit = acceptable(where, "data_generation_options", how_); !fit) return fit.error();
    if (auto fit = check_seeds(); !fit) return fit.error();
    made_.statistics.seeds = std::ssize(seeds_);
    for (const seed_item& seed : seeds_) known_.push_back(words_of(seed.question));
    for (index first = 0; first < std::ssize(seeds_); first += how_.together)
      if (auto done = run(first, (std::min)(how_.together, std::ssize(seeds_) - first)); !done)
        return done.error();
    data_statistics& counts = made_.statistics;
    counts.accepted = std::ssize(made_.items);
    counts.refused.assign(refused_.begin(), refused_.end());
    if (made_.items.empty())
      return failure(errc::invalid, where, "items", "at least 1 that every filter accepts",
                     "none: " + counts.text());
    return std::move(made_);
  }

 private:
  static constexpr const char* where = "generate_data";
  using request_key = std::tuple<std::string, std::string, index>;

  result<void> check_seeds() const {
    if (seeds_.empty()) return failure(errc::invalid, where, "seeds", "at least 1", "0");
    for (std::size_t i = 0; i < seeds_.size(); ++i) {
      const seed_item& s = seeds_[i];
      const std::string name = "seed " + std::to_string(i);
      if (trimmed(s.question).empty())
        return failure(errc::invalid, where, name, "a question that is not empty", "an empty one");
      if (!is_utf8(s.question) || !is_utf8(s.answer) || !is_utf8(s.other))
        return failure(errc::invalid, where, name, "texts in UTF-8", "other bytes");
    }
    return {};
  }
  /// The seeds from number `first` on: asks until no method waits any more.
  result<void> run(index first, index count) {
    std::vector<std::vector<std::string>> answers(static_cast<std::size_t>(count));
    std::vector<bool> ended(answers.size());
    for (bool waits = true; waits;) {
      waits = false;
      std::vector<teacher_request> wanted;
      std::vector<std::pair<std::size_t, request_key>> places;  // of answers to come
      for (std::size_t i = 0; i < answers.size(); ++i) {
        if (ended[i]) continue;
        const index number = first + static_cast<index>(i);
        teacher_dialogue talk(seeds_, number, answers[i]);
        method_.call(method_.object, talk);
        if (!talk.waiting()) {
          ended[i] = true;
          proposed_.resize((std::max)(proposed_.size(), i + 1));
          proposed_[i].assign(talk.proposed().begin(), talk.proposed().end());
          continue;
        }
        waits = true;
        const auto asked = talk.asked();
        if (std::ssize(asked) > how_.most_asked)
          return failure(
              errc::invalid, where, "requests about seed " + std::to_string(number),
              "at most " + std::to_string(how_.most_asked) + ", data_generation_options.most_asked",
              std::to_string(asked.size()));
        for (std::size_t k = answers[i].size(); k < asked.size(); ++k) {
          request_key key(asked[k].prompt, asked[k].against, asked[k].draw);
          if (answered_.try_emplace(key).second) wanted.push_back(asked[k]);
          places.emplace_back(i, std::move(key));
        }
      }
      if (!wanted.empty()) {
        auto texts = teacher_.generate(wanted);
        if (!texts) return texts.error();
        made_.statistics.asked += std::ssize(wanted);
        for (std::size_t k = 0; k < wanted.size(); ++k)
          answered_[{wanted[k].prompt, wanted[k].against, wanted[k].draw}] = std::move((*texts)[k]);
      }
      for (const auto& [i, key] : places) answers[i].push_back(answered_[key]);
    }
    for (auto& items : proposed_)
      for (proposed_item& one : items)
        if (auto done = filter(one); !done) return done;
    proposed_.clear();
    return {};
  }
  /// Counts an item, and keeps it unless a filter refuses it.
  result<void> filter(proposed_item& one) {
    ++made_.statistics.proposed;
    std::string refused = std::move(one.refused_by);
    std::vector<std::uint64_t> words;
    if (refused.empty() && trimmed(one.item.target).empty()) refused = "empty target";
    if (refused.empty() && how_.longest > 0 && std::ssize(one.item.target) > how_.longest)
      refused = "long target";
    if (refused.empty() && !one.text.empty()) {
      words = words_of(one.text);
      for (const auto& known : known_)
        if (rouge_l(words, known, one.most_overlap) > one.most_overlap) refused = "not new";
    }
    if (refused.empty() && how_.least_score < 0) {
      const auto score = teacher_.score(one.item.prompt, one.item.target);
      if (!score) return score.error();
      if (*score < how_.least_score) refused = "low score";
    }
    if (!refused.empty()) {
      ++refused_[refused];
      return {};
    }
    if (!words.empty()) known_.push_back(std::move(words));
    made_.items.push_back(std::move(one.item));
    return {};
  }

  std::span<const seed_item> seeds_;
  data_method method_;
  teacher_ref teacher_;
  data_generation_options how_;
  generated_data made_{};
  std::map<request_key, std::string> answered_{};
  std::vector<std::vector<proposed_item>> proposed_{};
  std::vector<std::vector<std::uint64_t>> known_{};  ///< texts that new ones must not be close to
  std::map<std::string, index> refused_{};
};

}  // namespace detail

/// Lets a method make training items from seeds with a teacher's help. The result is a function of
/// the arguments and the teacher's answers: seeds come in order, and equal requests are asked once.
/// With a answer_recorder, a run that was interrupted continues exactly where it was. Errors:
/// errc::invalid for options out of range, no seeds, and seeds that are empty or not UTF-8. Also
/// for a method that asks without end, and for filters that leave no item. Those of the teacher:
/// see teacher_ref.
template <class Method>
requires std::invocable<const Method&, teacher_dialogue&> result<generated_data> generate_data(
    std::span<const seed_item> seeds, const Method& method, teacher_ref teacher,
    const data_generation_options& how = {})
LINNET_TRY {
  if constexpr (detail::has_ranges<Method>)
    if (auto fit = detail::acceptable("generate_data", Method::name, method); !fit)
      return fit.error();
  const auto call = [](const void* object, teacher_dialogue& d) {
    (*static_cast<const Method*>(object))(d);
  };
  return detail::data_generator(seeds, {&method, call}, teacher, how).run();
}
LINNET_OR_OUT_OF_MEMORY("generate_data")

LINNET_NAMESPACE_END
/// @file
/// Instructions and answers that a teacher writes: adversarial distillation, LaMini, Evol-Instruct,
/// reflection-tuning and FANNO. Each method runs in generate_data().

#include <array>
#include <system_error>

/// @file
/// BM25 (Robertson and Zaragoza 2009): which of some texts are about a question.

#include <cmath>
#include <unordered_map>

LINNET_NAMESPACE_BEGIN

/// Options of `bm25`.
struct bm25_options {
  double k1 = 1.2;  ///< how soon more of one word stops to count
  double b = 0.75;  ///< how much long texts are held back

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("k1", self.k1, detail::at_least(0));
    f("b", self.b, detail::between(0, 1));
  }
};

/// An index of texts by their words. Each word of a question adds to the score of a text d:
///
///     ln(1 + (N - n + ½) / (n + ½)) · f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|))
///
/// Here f is how often d has the word, and n how many of the N texts have it.
class bm25 {
 public:
  /// A text that was found, and its score.
  struct match {
    index text;
    double score;
  };

  /// Indexes texts, which need not outlive it. Errors: errc::invalid for options out of range.
  static result<bm25> open(std::span<const std::string_view> texts,
                           const bm25_options& how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable("bm25::open", "bm25_options", how); !fit) return fit.error();
    bm25 made(how);
    for (const std::string_view text : texts) {
      const index number = std::ssize(made.lengths_);
      const auto words = detail::words_of(text);
      for (const std::uint64_t word : words) {
        auto& postings = made.places_[word];
        if (postings.empty() || postings.back().text != number) postings.push_back({number, 0});
        ++postings.back().times;
      }
      made.lengths_.push_back(static_cast<double>(words.size()));
      made.words_ += static_cast<double>(words.size());
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("bm25::open")

  /// Number of texts.
  index texts() const { return std::ssize(lengths_); }
  /// The `most` texts with the highest scores above 0, the best first; ties go to the first text.
  /// None where memory lacks.
  std::vector<match> find(std::string_view question, index most) const LINNET_TRY {
    std::vector<double> scores(lengths_.size());
    const double n = static_cast<double>(lengths_.size()), mean = words_ / (std::max)(n, 1.0);
    for (const std::uint64_t word : detail::words_of(question)) {
      const auto found = places_.find(word);
      if (found == places_.end()) continue;
      const auto with = static_cast<double>(found->second.size());
      const double rarity = std::log(1 + (n - with + 0.5) / (with + 0.5));
      for (const posting& p : found->second) {
        const auto d = static_cast<std::size_t>(p.text);
        const double damp = how_.k1 * (1 - how_.b + how_.b * lengths_[d] / mean);
        scores[d] += rarity * p.times * (how_.k1 + 1) / (p.times + damp);
      }
    }
    std::vector<match> all;
    for (std::size_t d = 0; d < scores.size(); ++d)
      if (scores[d] > 0) all.push_back({static_cast<index>(d), scores[d]});
    std::stable_sort(all.begin(), all.end(),
                     [](const match& x, const match& y) { return x.score > y.score; });
    if (std::ssize(all) > (std::max)(most, index{0}))
      all.resize(static_cast<std::size_t>((std::max)(most, index{0})));
    return all;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  struct posting {
    index text;
    double times;
  };
  explicit bm25(const bm25_options& how) : how_(how) {}

  bm25_options how_;
  std::unordered_map<std::uint64_t, std::vector<posting>> places_{};
  std::vector<double> lengths_{};  ///< words of each text
  double words_ = 0;               ///< of all
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The numbers `number` and `count - 1` others of a list of `size`, without repeats, drawn by a
/// seed of its own.
inline std::vector<index> drawn_with(index number, index count, index size, std::uint64_t key) {
  std::vector<index> all{number};
  random_stream random(seed{key ^ stream_of("linnet::drawn_with")},
                       static_cast<std::uint64_t>(number));
  while (std::ssize(all) < (std::min)(count, size)) {
    const auto one = static_cast<index>(random.below(static_cast<std::uint32_t>(size)));
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
  }
  return all;
}

/// Two scores from 1 to 10 that a judge wrote.
struct two_scores {
  double first = 0, second = 0;
  bool valid = false;
};
/// The first two numbers of a text, if both are such scores.
inline two_scores two_scores_in(std::string_view text) {
  double found[2]{};
  for (double& x : found) {
    const std::size_t at = text.find_first_of("0123456789");
    if (at == text.npos) return {};
    const char* const end = text.data() + text.size();
    const auto [stop, problem] = read_real(text.data() + at, end, x);
    if (problem != std::errc() || !(x >= 1 && x <= 10)) return {};
    text = {stop, static_cast<std::size_t>(end - stop)};
  }
  return {found[0], found[1], true};
}

}  // namespace detail

/// One round of adversarial distillation (Jiang et al. 2023, the model Lion). A seed without
/// seed_item::other is imitated: its answer, the teacher's where none is known, is the target. A
/// seed with a student's answer there is judged: the teacher rates both answers from 1 to 10, twice
/// with their places exchanged. It is hard where the teacher's is better by `gap` on average. New
/// instructions of its kind and their answers become items, `per_hard` or `per_easy` of them.
/// Filters: "empty answer", "no scores", "short instruction", "not new".
struct adversarial_distillation {
  static constexpr const char* name = "adversarial_distillation";
  std::string_view judge =
      "Instruction: {question}\nAssistant 1: {first}\nAssistant 2: {second}\nRate the answers of "
      "both assistants from 1 to 10. Write the two numbers alone.";
  std::string_view more_hard =
      "Write one new instruction of the same field and kind, as hard as this one:\n{question}";
  std::string_view more_easy =
      "Write one new instruction of the same field, about something rarer than this "
      "one:\n{question}";
  double gap = 1;             ///< points
  index per_hard = 1;         ///< new instructions for each hard one
  index per_easy = 1;         ///< new instructions for each easy one
  double most_overlap = 0.7;  ///< ROUGE-L with other instructions

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("gap", self.gap, detail::between(0, 9));
    f("per_hard", self.per_hard, detail::count(0));
    f("per_easy", self.per_easy, detail::count(0));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view answer = s.answer.empty() ? d.ask(s.question) : s.answer;
    if (d.waiting()) return;
    if (answer.empty()) return d.refuse("empty answer");
    if (s.other.empty()) return d.keep({s.question, std::string(answer)});
    const auto rate = [&](std::string_view first, std::string_view second) {
      return d.ask(
          detail::filled(judge, {{"question", s.question}, {"first", first}, {"second", second}}));
    };
    const std::string_view one = rate(answer, s.other), two = rate(s.other, answer);
    if (d.waiting()) return;
    const auto a = detail::two_scores_in(one), b = detail::two_scores_in(two);
    if (!a.valid || !b.valid) return d.refuse("no scores");
    const double better = ((a.first - a.second) + (b.second - b.first)) / 2;
    const bool hard = better >= gap;
    std::vector<std::string_view> instructions, answers;
    for (index i = 0; i < (hard ? per_hard : per_easy); ++i)
      instructions.push_back(
          d.ask(detail::filled(hard ? more_hard : more_easy, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : instructions)
      answers.push_back(text.empty() ? text : d.ask(std::string(text)));
    if (d.waiting()) return;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (detail::words_of(instructions[i]).size() < 3)
        d.refuse("short instruction");
      else if (answers[i].empty())
        d.refuse("empty answer");
      else
        d.keep_new({std::string(instructions[i]), std::string(answers[i])}, instructions[i],
                   most_overlap);
    }
  }
};

/// LaMini (Wu et al. 2023): the teacher lists new instructions, guided by examples among the seeds
/// or by topics, and answers them. Filters: "no instructions", "short instruction", "empty answer",
/// "not new".
struct lamini {
  static constexpr const char* name = "lamini";
  std::string_view by_examples =
      "Here are instructions:\n{examples}\nWrite {count} new instructions as a numbered list.";
  std::string_view by_topic =
      "Here are instructions:\n{examples}\nWrite {count} new instructions about {topic} as a "
      "numbered list.";
  std::span<const std::string_view> topics{};  ///< one is drawn for each seed; none: no topics
  index count = 3;                             ///< instructions of each list
  index examples = 3;                          ///< seeds that are shown, the seed itself among them
  double most_overlap = 0.7;                   ///< ROUGE-L with other instructions
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("count", self.count, detail::count(1));
    f("examples", self.examples, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    std::string shown;
    for (const index i : detail::drawn_with(d.number(), examples, std::ssize(d.seeds()), seed))
      shown += "- " + d.seeds()[static_cast<std::size_t>(i)].question + '\n';
    shown.pop_back();
    const std::string many = std::to_string(count);
    std::vector<std::string_view> lists{
        d.ask(detail::filled(by_examples, {{"examples", shown}, {"count", many}}))};
    if (!topics.empty()) {
      random_stream random(linnet::seed{seed}, static_cast<std::uint64_t>(d.number()));
      const auto topic = topics[random.below(static_cast<std::uint32_t>(topics.size()))];
      lists.push_back(d.ask(
          detail::filled(by_topic, {{"examples", shown}, {"count", many}, {"topic", topic}})));
    }
    if (d.waiting()) return;
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    for (const std::string_view list : lists) {
      auto found = detail::listed(list);
      if (found.empty()) d.refuse("no instructions");
      if (std::ssize(found) > count) found.resize(static_cast<std::size_t>(count));
      for (const std::string_view one : found) {
        if (detail::words_of(one).size() < 3)
          d.refuse("short instruction");
        else
          pairs.emplace_back(one, d.ask(std::string(one)));
      }
    }
    if (d.waiting()) return;
    for (const auto& [instruction, answer] : pairs) {
      if (answer.empty())
        d.refuse("empty answer");
      else
        d.keep_new({std::string(instruction), std::string(answer)}, instruction, most_overlap);
    }
  }
};

/// Evol-Instruct (Xu et al. 2023): the teacher rewrites an instruction `rounds` times, in depth or
/// in breadth by a draw, and answers each. A rewriting that fails is left out, and the next round
/// starts from the instruction before it. Filters are the paper's: "no gain", where
/// the teacher calls both equal; "refusal", a short answer with "sorry"; "empty answer" and "empty
/// instruction", without words. "copied form" finds words of the request. And "not new".
struct evol_instruct {
  static constexpr const char* name = "evol_instruct";
  /// Ways to rewrite; the last one is in breadth.
  std::array<std::string_view, 5> ways{
      "Rewrite the given instruction with one more constraint.",
      "Rewrite the given instruction so that it asks for more depth.",
      "Rewrite the given instruction with more concrete words in the place of general ones.",
      "Rewrite the given instruction so that it needs several steps of reasoning.",
      "Write a new instruction of the same field as the given one, but rarer."};
  std::string_view form =
      "{way} Write the instruction alone.\n#Given instruction#\n{question}\n#Rewritten "
      "instruction#\n";
  std::string_view judge =
      "Do these instructions ask for the same, in the same depth and breadth? Answer Equal or Not "
      "Equal.\nFirst: {question}\nSecond: {new}";
  index rounds = 1;
  index short_refusal = 80;  ///< words, below which "sorry" is a refusal
  double most_overlap = 1;   ///< ROUGE-L with other instructions
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rounds", self.rounds, detail::count(1));
    f("short_refusal", self.short_refusal, detail::count(0));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    std::string now = d.seed().question;
    random_stream random(linnet::seed{seed}, static_cast<std::uint64_t>(d.number()));
    for (index round = 0; round < rounds; ++round) {
      const std::string_view way = ways[random.below(static_cast<std::uint32_t>(ways.size()))];
      const std::string made(d.ask(detail::filled(form, {{"way", way}, {"question", now}})));
      if (d.waiting()) return;
      if (const char* const filter = unfit(made)) {
        d.refuse(filter);
        continue;
      }
      const auto verdict = d.ask(detail::filled(judge, {{"question", now}, {"new", made}}));
      const auto answer = d.ask(made);
      if (d.waiting()) return;
      if (says_equal(verdict)) {
        d.refuse("no gain");
      } else if (detail::words_of(answer).empty()) {
        d.refuse("empty answer");
      } else if (std::ssize(detail::words_of(answer)) < short_refusal &&
                 detail::find_in_any_case(answer, "sorry") != answer.npos) {
        d.refuse("refusal");
      } else {
        d.keep_new({made, std::string(answer)}, made, most_overlap);
        now = made;
      }
    }
  }

 private:
  static const char* unfit(std::string_view made) {
    if (detail::words_of(made).empty()) return "empty instruction";
    for (const std::string_view words : {"given instruction", "rewritten instruction"})
      if (detail::find_in_any_case(made, words) != made.npos) return "copied form";
    return nullptr;
  }
  static bool says_equal(std::string_view verdict) {
    return detail::find_in_any_case(verdict, "equal") != verdict.npos &&
           detail::find_in_any_case(verdict, "not equal") == verdict.npos;
  }
};

/// Reflection-tuning (Li et al. 2023): the teacher criticises an instruction and writes a better
/// one with its answer. Then it criticises that answer and writes a better one, too. Filters: "no
/// new instruction", "no new answer", "unchanged".
struct reflection_tuning {
  static constexpr const char* name = "reflection_tuning";
  std::string_view of_instruction =
      "Instruction: {question}\nAnswer: {answer}\nWhy is this instruction not a good one? Consider "
      "its topic, detail, knowledge and ambiguity. Then write a better one and its answer, as [New "
      "Instruction] ... [End] [New Answer] ... [End]";
  std::string_view of_answer =
      "Instruction: {question}\nAnswer: {answer}\nWhy is this answer not a good one? Consider its "
      "helpfulness, relevance, accuracy and detail. Then write a better one, as [Better Answer] "
      "... "
      "[End]";

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view old = s.answer.empty() ? d.ask(s.question) : s.answer;
    if (d.waiting()) return;
    const auto first =
        d.ask(detail::filled(of_instruction, {{"question", s.question}, {"answer", old}}));
    if (d.waiting()) return;
    const std::string_view instruction =
        detail::labelled(first, "[New Instruction]", {"[End]", "[New Answer]"});
    const std::string_view answer = detail::labelled(first, "[New Answer]", {"[End]"});
    if (instruction.empty()) return d.refuse("no new instruction");
    if (answer.empty()) return d.refuse("no new answer");
    const auto second =
        d.ask(detail::filled(of_answer, {{"question", instruction}, {"answer", answer}}));
    if (d.waiting()) return;
    const std::string_view better = detail::labelled(second, "[Better Answer]", {"[End]"});
    if (better.empty()) return d.refuse("no new answer");
    if (instruction == s.question && better == old) return d.refuse("unchanged");
    d.keep({std::string(instruction), std::string(better)});
  }
};

/// FANNO (Zhu et al. 2024): seeds are passages. The teacher writes an instruction about each, that
/// stands without it, and answers it with the passages before its eyes that BM25 finds. The student
/// sees the instruction alone. Filters: "short instruction", "names the passage", "nothing found",
/// "empty answer", "not new".
struct fanno {
  static constexpr const char* name = "fanno";
  const bm25* passages = nullptr;  ///< of the seeds' questions, in their order; required
  std::string_view ask =
      "{passage}\nWrite one instruction that can be answered from this text. It has to make sense "
      "without it.";
  std::string_view answer = "{passages}\nAnswer this with what stands above: {question}";
  index found = 2;            ///< passages that an answer is written from
  double most_overlap = 0.7;  ///< ROUGE-L with other instructions and with the passages

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("found", self.found, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    if (!passages || passages->texts() != std::ssize(d.seeds()))
      return d.refuse("an index of other passages");
    const std::string_view question = d.ask(detail::filled(ask, {{"passage", d.seed().question}}));
    if (d.waiting()) return;
    if (detail::words_of(question).size() < 3) return d.refuse("short instruction");
    for (const std::string_view words :
         {"the passage", "the text", "this text", "the document", "this passage"})
      if (detail::find_in_any_case(question, words) != question.npos)
        return d.refuse("names the passage");
    std::string shown;
    for (const auto& one : passages->find(question, found))
      shown.append(d.seeds()[static_cast<std::size_t>(one.text)].question).append("\n");
    if (shown.empty()) return d.refuse("nothing found");
    shown.pop_back();
    const std::string_view text =
        d.ask(detail::filled(answer, {{"passages", shown}, {"question", question}}));
    if (d.waiting()) return;
    if (text.empty()) return d.refuse("empty answer");
    d.keep_new({std::string(question), std::string(text)}, question, most_overlap);
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// AugGPT (Dai et al. 2023): paraphrases of a text keep its label. Filters: "no label", "empty
/// paraphrase", "other numbers" (one of the text is missing), and "not new".
struct auggpt {
  static constexpr const char* name = "auggpt";
  std::string_view ask = "Rephrase this text. Write the new text alone.\n{question}";
  std::string_view prompt = "{question}\n";
  index paraphrases = 6;
  bool keep_numbers = true;
  bool keep_seed = true;       ///< the text itself is an item, too
  double most_overlap = 0.95;  ///< ROUGE-L with the text and with other paraphrases

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("paraphrases", self.paraphrases, detail::count(1));
    f("keep_numbers", self.keep_numbers, detail::one_of(detail::false_or_true));
    f("keep_seed", self.keep_seed, detail::one_of(detail::false_or_true));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no label");
    std::vector<std::string_view> texts;
    for (index i = 0; i < paraphrases; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    const auto item = [&](std::string_view text) {
      return training_item{detail::filled(prompt, {{"question", text}}), s.answer};
    };
    if (keep_seed) d.keep(item(s.question));
    for (const std::string_view text : texts) {
      if (detail::words_of(text).empty())
        d.refuse("empty paraphrase");
      else if (keep_numbers && numbers_of(text) != numbers_of(s.question))
        d.refuse("other numbers");
      else
        d.keep_new(item(text), text, most_overlap);
    }
  }

 private:
  /// All runs of digits, sorted.
  static std::vector<std::string_view> numbers_of(std::string_view text) {
    std::vector<std::string_view> all;
    constexpr std::string_view digits = "0123456789";
    for (std::size_t at = 0; (at = text.find_first_of(digits, at)) != text.npos;) {
      const std::size_t end = (std::min)(text.find_first_not_of(digits, at), text.size());
      all.push_back(text.substr(at, end - at));
      at = end;
    }
    std::sort(all.begin(), all.end());
    return all;
  }
};

/// LLM2LLM (Lee et al. 2024), one round: for each question that the student got wrong the teacher
/// writes similar ones with their answers. Seeds are the seed set, with the student's answers in
/// seed_item::other; generated items are no seeds, and so never lead to more. Train the student of
/// the next round from the base model on the seeds and all items so far. Filters: "student is
/// right", "no known answer", "no question", "no answer", "not new".
struct llm2llm {
  static constexpr const char* name = "llm2llm";
  std::string_view ask =
      "Question: {question}\nRight answer: {answer}\nA student's wrong answer: {other}\nWrite a "
      "similar question that trains the same skill, and its answer, as lines \"Question:\" and "
      "\"Answer:\".";
  std::string_view prompt = "{question}\n";
  index per_failure = 1;
  double most_overlap = 0.95;  ///< ROUGE-L with seeds and items

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("per_failure", self.per_failure, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    if (detail::same_answer(s.other, s.answer)) return d.refuse("student is right");
    std::vector<std::string_view> texts;
    for (index i = 0; i < per_failure; ++i)
      texts.push_back(d.ask(detail::filled(
          ask, {{"question", s.question}, {"answer", s.answer}, {"other", s.other}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const std::string_view question = detail::labelled(text, "Question:", {"Answer:"});
      const std::string_view answer = detail::labelled(text, "Answer:", {"Question:"});
      if (question.empty())
        d.refuse("no question");
      else if (answer.empty())
        d.refuse("no answer");
      else
        d.keep_new({detail::filled(prompt, {{"question", question}}), std::string(answer)},
                   question, most_overlap);
    }
  }
};

/// In-context learning distillation (Huang et al. 2022): the student reads `examples` other seeds
/// before the question, as the teacher does. It learns the teacher's answer with weight 1 - `hard`,
/// and the known one with weight `hard`, each as text: both losses are cross-entropies. The paper's
/// soft labels are probabilities, for which `distillation` takes a teacher whose logits are there.
/// Train with sequence_mean, so that lengths do not count. So it is in Meta-ICT; `alone` gives both
/// targets a second time behind the question without examples, as in multitask-ICT. Filters: "empty
/// answer", "wrong answer" (with `only_right`).
struct in_context_distillation {
  static constexpr const char* name = "in_context_distillation";
  std::string_view example = "{question}\n{answer}\n\n";
  std::string_view prompt = "{examples}{question}\n";
  index examples = 4;  ///< other seeds that have answers, at most
  double hard = 0.5;
  bool only_right = true;  ///< refuses answers that differ from a known one
  bool alone = false;
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("examples", self.examples, detail::count(0));
    f("hard", self.hard, detail::between(0, 1));
    f("only_right", self.only_right, detail::one_of(detail::false_or_true));
    f("alone", self.alone, detail::one_of(detail::false_or_true));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::string shown;
    const auto drawn = detail::drawn_with(d.number(), examples + 1, std::ssize(d.seeds()), seed);
    for (const index i : drawn) {
      const seed_item& other = d.seeds()[static_cast<std::size_t>(i)];
      if (i != d.number() && !other.answer.empty())
        shown += detail::filled(example, {{"question", other.question}, {"answer", other.answer}});
    }
    const auto behind = [&](std::string_view context) {
      return detail::filled(prompt, {{"examples", context}, {"question", s.question}});
    };
    std::string_view answer = d.ask(behind(shown));
    if (d.waiting()) return;
    answer = detail::trimmed(detail::take_line(answer));
    const bool known = !s.answer.empty();
    if (answer.empty()) return d.refuse("empty answer");
    if (only_right && known && !detail::same_answer(answer, s.answer))
      return d.refuse("wrong answer");
    for (const std::string& context : {shown, std::string()}) {
      d.keep({behind(context), std::string(answer), known ? 1 - hard : 1});
      if (known) d.keep({behind(context), s.answer, hard});
      if (!alone) break;
    }
  }
};

LINNET_NAMESPACE_END
/// @file
/// Programs that are written line by line, with a beam search that a verifier guides.

#include <cstddef>
#include <functional>

/// @file
/// Small programs of arithmetic, as teachers write them in Python, run without any access to the
/// machine.

#include <charconv>

LINNET_NAMESPACE_BEGIN

/// Most that a program may take.
struct program_limits {
  index bytes = 4096;  ///< of its source
  index steps = 1000;  ///< operations, names, numbers and calls that are evaluated
  index names = 100;   ///< variables
  index depth = 50;    ///< parentheses, signs and powers inside each other

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("bytes", self.bytes, detail::count(1));
    f("steps", self.steps, detail::count(1));
    f("names", self.names, detail::count(1));
    f("depth", self.depth, detail::option_range{.least = 1, .most = 1000});
  }
};

namespace detail {

/// Reads a program and evaluates it as it goes. A text in `problem_` ends it.
class program_runner {
 public:
  program_runner(std::string_view source, const program_limits& l) : limits_(l), rest_(source) {}

  result<double> run() {
    if (std::ssize(rest_) > limits_.bytes)
      return failure(errc::invalid, "program", "size",
                     "at most " + std::to_string(limits_.bytes) + " bytes",
                     std::to_string(rest_.size()));
    while (!ended_ && problem_.empty() && !rest_.empty()) {
      ++line_;
      statement();
    }
    if (problem_.empty() && !has_value_) problem_ = "no value", got_ = "a program without one";
    if (problem_.empty()) return value_;
    return failure(errc::invalid, "program", "line " + std::to_string(line_), "a program that runs",
                   problem_ + (got_.empty() ? "" : ": " + got_));
  }

 private:
  void fail(std::string_view problem, std::string_view got = {}) {
    if (!problem_.empty()) return;
    problem_ = problem;
    got_ = printable(got);
  }
  static bool begins_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }
  static bool is_numeral(char c) { return c >= '0' && c <= '9'; }
  /// The next character of the line behind blanks; 0 at its end.
  char peek() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\r'))
      rest_.remove_prefix(1);
    return rest_.empty() || rest_[0] == '\n' || rest_[0] == '#' ? '\0' : rest_[0];
  }
  bool take(std::string_view sign) {
    if (peek() == '\0' || !rest_.starts_with(sign)) return false;
    rest_.remove_prefix(sign.size());
    return true;
  }
  std::string_view take_name() {
    std::size_t n = 0;
    if (begins_name(peek()))
      while (n < rest_.size() && (begins_name(rest_[n]) || is_numeral(rest_[n]))) ++n;
    const std::string_view name = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return name;
  }
  bool step() {
    if (++steps_ > limits_.steps) fail("too many steps");
    return problem_.empty();
  }

  void statement() {
    const std::string_view begin = rest_;
    const std::string_view name = peek() == '\0' ? std::string_view() : take_name();
    if (name == "def") {  // its body's lines follow
      rest_.remove_prefix((std::min)(rest_.find('\n'), rest_.size()));
    } else if (name == "return" || name == "print") {
      value_ = sum();
      has_value_ = true;
      ended_ = name == "return" || ended_;
    } else if (!name.empty()) {
      const char operation = peek();
      const bool changes = std::string_view("+-*/").find(operation) != std::string_view::npos &&
                           rest_.size() > 1 && rest_[1] == '=' && operation != '\0';
      if (changes) rest_.remove_prefix(1);
      if ((changes || operation == '=') && !rest_.starts_with("==") && take("=")) {
        const double right = sum();
        const double x = changes ? apply(operation, variable(name), right) : right;
        assign(name, x);
      } else {
        rest_ = begin;
        value_ = sum();
        has_value_ = true;
      }
    } else if (peek() != '\0') {
      value_ = sum();
      has_value_ = true;
    }
    if (problem_.empty() && peek() != '\0')
      fail("not understood", rest_.substr(0, (std::min)(rest_.find('\n'), rest_.size())));
    if (!problem_.empty()) return;
    rest_.remove_prefix((std::min)(rest_.find('\n'), rest_.size()));
    if (!rest_.empty()) rest_.remove_prefix(1);
  }
  void assign(std::string_view name, double x) {
    if (!problem_.empty()) return;
    if (std::ssize(variables_) >= limits_.names && !variables_.contains(std::string(name)))
      return fail("too many names", name);
    variables_[std::string(name)] = value_ = x;
    has_value_ = true;
  }
  double variable(std::string_view name) {
    const auto found = variables_.find(std::string(name));
    if (found == variables_.end()) return fail("a name that has no value", name), 0.0;
    return found->second;
  }
  double finite(double x) {
    if (!is_finite(x)) fail("a number that is too large");
    return problem_.empty() ? x : 0;
  }
  double apply(char operation, double a, double b) {
    if (!step()) return 0;
    switch (operation) {
      case '+':
        return finite(a + b);
      case '-':
        return finite(a - b);
      case '*':
        return finite(a * b);
      default:
        break;
    }
    // '/' and, as letters, 'f' for // and 'm' for %, which round downwards as Python's do. They go
    // by the exact remainder, as a quotient may have been rounded up: 1 // 0.1 is 9.
    if (b == 0) return fail("division by zero"), 0.0;
    if (operation == '/') return finite(a / b);
    double left = std::fmod(a, b);
    if (left != 0 && (left < 0) != (b < 0)) left += b;
    return finite(operation == 'f' ? std::nearbyint((a - left) / b) : left);
  }

  double sum() {
    double x = product();
    while (problem_.empty()) {
      if (take("+"))
        x = apply('+', x, product());
      else if (take("-"))
        x = apply('-', x, product());
      else
        break;
    }
    return x;
  }
  double product() {
    double x = signed_power();
    while (problem_.empty() && !(peek() == '*' && rest_.starts_with("**"))) {
      if (take("*"))
        x = apply('*', x, signed_power());
      else if (take("//"))
        x = apply('f', x, signed_power());
      else if (take("/"))
        x = apply('/', x, signed_power());
      else if (take("%"))
        x = apply('m', x, signed_power());
      else
        break;
    }
    return x;
  }
  /// A sign binds weaker than **, as in Python: -2 ** 2 is -4.
  double signed_power() {
    const inside here(*this);
    if (!problem_.empty()) return 0;
    if (take("-")) return -signed_power();
    if (take("+")) return signed_power();
    const double base = atom();
    if (!problem_.empty() || !take("**")) return base;
    const double exponent = signed_power();
    if (!step()) return 0;
    if (base == 0 && exponent < 0) return fail("division by zero"), 0.0;
    if (base < 0 && exponent != std::floor(exponent))
      return fail("a root of a negative number"), 0.0;
    return finite(std::pow(base, exponent));
  }
  double atom() {
    if (!step()) return 0;
    const char c = peek();
    if (take("(")) {
      const double x = sum();
      if (problem_.empty() && !take(")")) fail("no closing parenthesis");
      return x;
    }
    if (is_numeral(c) || c == '.') return number();
    const std::string_view name = take_name();
    if (name.empty())
      return fail("no value", c == '\0' ? std::string_view("the line's end") : rest_.substr(0, 1)),
             0.0;
    return take("(") ? call(name) : variable(name);
  }
  double number() {
    std::string digits;  // underscores divide thousands
    std::size_t n = 0;
    for (; n < rest_.size(); ++n) {
      const char c = rest_[n];
      const bool exponent = (c == 'e' || c == 'E') && n + 1 < rest_.size() &&
                            (is_numeral(rest_[n + 1]) || rest_[n + 1] == '-');
      const bool sign = c == '-' && n > 0 && (rest_[n - 1] == 'e' || rest_[n - 1] == 'E');
      if (!is_numeral(c) && c != '.' && c != '_' && !exponent && !sign) break;
      if (c != '_') digits += c;
    }
    double x = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, problem] = read_real(digits.data(), end, x);
    if (stop != end || problem != std::errc() || !is_finite(x))
      return fail("no number", rest_.substr(0, n)), 0.0;
    rest_.remove_prefix(n);
    return x;
  }
  /// A number with so many decimals. Its own digits decide, as in Python: 2.675 is a little less.
  static double rounded(double x, int decimals) {
    if (decimals < 0) {
      double scale = 1;  // exactly, which a compiler's pow() need not be
      for (int i = decimals; i < 0; ++i) scale *= 10;
      return std::nearbyint(x / scale) * scale;
    }
    char digits[360];  // 309 before the point, a sign, a point and 15 behind it
    const auto written =
        std::to_chars(digits, digits + sizeof digits, x, std::chars_format::fixed, decimals);
    read_real(digits, written.ptr, x);
    return x;
  }
  double call(std::string_view name) {
    double x[8];
    std::size_t count = 0;
    while (problem_.empty() && !take(")")) {
      if (count == 8 || (count > 0 && !take(","))) return fail("no list of values", name), 0.0;
      x[count++] = sum();
    }
    if (!problem_.empty()) return 0;
    const double first = count > 0 ? x[0] : 0;
    if (count == 1 && (name == "int" || name == "float"))
      return name == "float" ? first : first < 0 ? std::ceil(first) : std::floor(first);
    if (count == 1 && name == "abs") return std::abs(first);
    if (count == 1 && name == "round") return std::nearbyint(first);  // halves to even
    if (count == 2 && name == "round" && x[1] == std::floor(x[1]) && std::abs(x[1]) <= 15)
      return rounded(first, static_cast<int>(x[1]));
    if (count > 0 && (name == "sum" || name == "min" || name == "max")) {
      double all = first;
      for (std::size_t i = 1; i < count; ++i)
        all = name == "sum"   ? all + x[i]
              : name == "min" ? (std::min)(all, x[i])
                              : (std::max)(all, x[i]);
      return finite(all);
    }
    return fail("a function that is not known", name), 0.0;
  }

  /// Counts how deep values stand inside each other.
  struct inside {
    explicit inside(program_runner& r) : runner(r) {
      if (++runner.depth_ > runner.limits_.depth) runner.fail("too deep");
    }
    inside(const inside&) = delete;
    inside& operator=(const inside&) = delete;
    ~inside() { --runner.depth_; }
    program_runner& runner;
  };

  program_limits limits_;
  std::string_view rest_;  ///< that is not read yet
  std::map<std::string, double> variables_{};
  std::string problem_{}, got_{};
  double value_ = 0;  ///< of the last statement
  bool has_value_ = false, ended_ = false;
  index line_ = 0, steps_ = 0, depth_ = 0;
};

}  // namespace detail

/// Runs a program of assignments and arithmetic: a small part of Python. Lines are `name = value`,
/// `name += value`, a value, `print(value)`, `return value`, comments, and `def name():`, whose
/// body follows. Values have + - * / // % **, parentheses, and int, float, abs, round, min, max and
/// sum of values. There are no loops and no conditions, so a program always ends. The result is
/// what is returned, else the value of the last line. Errors: errc::invalid, naming the line, for
/// what is not understood, has no value or exceeds the limits.
inline result<double> run_program(std::string_view source,
                                  const program_limits& l = {}) LINNET_TRY {
  if (auto fit = detail::acceptable("run_program", "program_limits", l); !fit) return fit.error();
  return detail::program_runner(source, l).run();
}
LINNET_OR_OUT_OF_MEMORY("run_program")

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Options of search_program().
struct program_search_options {
  index width = 3;      ///< programs that go on at a time
  index draws = 4;      ///< lines that the model proposes behind each of them
  index lines = 16;     ///< most of a program
  double verifier = 1;  ///< weight of the verifier's score beside the likelihood
  program_limits limits{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("width", self.width, detail::count(1));
    f("draws", self.draws, detail::count(1));
    f("lines", self.lines, detail::count(1));
    f("verifier", self.verifier, detail::at_least(0));
    f("limits", self.limits);
  }
};

/// A program that a search has found.
struct found_program {
  std::string text;   ///< lines, each with its end
  double value = 0;   ///< of run_program()
  double score = 0;   ///< nats per token + verifier times what the verifier says
  bool runs = false;  ///< whether it has a value yet; those that come back do
};

/// Beam search over programs, step by step (PaD, Zhu et al. 2023). `from` proposes lines behind
/// `prompt` and a program so far: the first line of each of its answers. An empty one ends the
/// program. Lines with which the program does not run are dropped, as no later line mends them.
/// Of the rest, the `width` best go on. Their score is the mean log-likelihood of the whole
/// program, 0 for a model that cannot score, and what `judge(program)` says of it. Ties go to the
/// first. Programs that are ended come back, at most `width`, best first; those of `lines` lines
/// count as ended. None is an empty list. Errors: errc::invalid for options out of their ranges,
/// and the model's.
template <class Verifier>
result<std::vector<found_program>> search_program(const teacher_ref& from, std::string_view prompt,
                                                  const program_search_options& how,
                                                  Verifier&& judge) LINNET_TRY {
  if (auto fit = detail::acceptable("search_program", "program_search_options", how); !fit)
    return fit.error();
  const auto keep_best = [&](std::vector<found_program>& all) {
    std::ranges::stable_sort(all, std::ranges::greater{}, &found_program::score);
    if (std::ssize(all) > how.width) all.resize(static_cast<std::size_t>(how.width));
  };
  std::vector<found_program> going(1), ended;
  for (index line = 0; line < how.lines && !going.empty(); ++line) {
    std::vector<teacher_request> requests;
    for (const found_program& one : going)
      for (index i = 0; i < how.draws; ++i)
        requests.push_back({.prompt = std::string(prompt) + one.text, .draw = i});
    const auto answers = from.generate(requests);
    if (!answers) return answers.error();
    std::vector<found_program> next;
    for (std::size_t i = 0; i < answers->size(); ++i) {
      const found_program& before = going[i / static_cast<std::size_t>(how.draws)];
      const std::string_view answer = (*answers)[i];
      const std::string_view more = answer.substr(0, answer.find('\n'));
      if (more.find_first_not_of(" \t\r") == more.npos) {
        const auto is_same = [&](const found_program& one) { return one.text == before.text; };
        if (before.runs && std::ranges::none_of(ended, is_same)) ended.push_back(before);
        continue;
      }
      found_program made{before.text + std::string(more) + '\n'};
      const auto is_same = [&](const found_program& one) { return one.text == made.text; };
      if (std::ranges::any_of(next, is_same)) continue;
      const auto value = run_program(made.text, how.limits);
      made.runs = bool(value);
      if (value)
        made.value = *value;
      else if (!value.error().got.starts_with("no value"))
        continue;  // but lines that compute nothing yet may go on
      made.score = how.verifier * judge(std::string_view(made.text));
      if (from.can_score()) {
        const auto nats = from.score(prompt, made.text);
        if (!nats) return nats.error();
        made.score += *nats;
      }
      next.push_back(std::move(made));
    }
    keep_best(next);
    going = std::move(next);
  }
  for (found_program& one : going)
    if (one.runs) ended.push_back(std::move(one));
  keep_best(ended);
  return ended;
}
LINNET_OR_OUT_OF_MEMORY("search_program")
/// search_program() without another verifier than that programs run.
inline result<std::vector<found_program>> search_program(const teacher_ref& from,
                                                         std::string_view prompt,
                                                         const program_search_options& how = {}) {
  return search_program(from, prompt, how, [](std::string_view) { return 0.0; });
}

LINNET_NAMESPACE_END
/// @file
/// Rationales of a teacher as training data: chain of thought, step by step, Socratic questions,
/// contrastive rationales, and programs. Each method runs in generate_data().

LINNET_NAMESPACE_BEGIN

/// Chain of thought (Ho et al. 2022, Magister et al. 2023): the target is the teacher's reasoning
/// and the answer. Of several draws those are kept whose final answer is right. Filters: "no known
/// answer", "no final answer", "no rationale", "wrong answer", "repeated".
struct chain_of_thought {
  static constexpr const char* name = "chain_of_thought";
  std::string_view ask =
      "{question}\nThink step by step. End with \"The answer is\" and the answer.";
  std::string_view prompt = "{question}\n";
  std::string_view mark = "The answer is";  ///< stands before the answer
  bool needs_mark = true;                   ///< false: without it the last number is the answer
  index draws = 1;                          ///< rationales for each question

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("needs_mark", self.needs_mark, detail::one_of(detail::false_or_true));
    f("draws", self.draws, detail::count(1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::vector<std::string_view> texts, kept;
    for (index i = 0; i < draws; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const auto [rationale, answer] = detail::divided(text, mark);
      if (s.answer.empty()) {
        d.refuse("no known answer");
      } else if (needs_mark && answer.empty()) {
        d.refuse("no final answer");
      } else if (rationale.empty()) {
        d.refuse("no rationale");
      } else if (!detail::same_answer(answer.empty() ? rationale : answer, s.answer)) {
        d.refuse("wrong answer");
      } else if (std::find(kept.begin(), kept.end(), rationale) != kept.end()) {
        d.refuse("repeated");
      } else {
        kept.push_back(rationale);
        d.keep({detail::filled(prompt, {{"question", s.question}}),
                std::string(rationale) + '\n' + std::string(mark) + ' ' + s.answer + '.'});
      }
    }
  }
};

/// Distilling step by step (Hsieh et al. 2023): one task predicts the label, another one writes the
/// rationale, from the same input with "predict: " or "explain: " before it. The loss is
/// α L_label + (1 - α) L_rationale, by the items' weights and sequence_mean. The label is the
/// seed's, or the teacher's where none is known. At inference "predict: " alone is asked. Filters:
/// "no rationale", "no answer", "wrong answer".
struct step_by_step {
  static constexpr const char* name = "step_by_step";
  std::string_view ask = "{question}\nExplain first. End with \"The answer is\" and the answer.";
  std::string_view mark = "The answer is";
  double alpha = 0.5;  ///< weight of the labels

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view text = d.ask(detail::filled(ask, {{"question", s.question}}));
    if (d.waiting()) return;
    const auto [rationale, answer] = detail::divided(text, mark);
    if (rationale.empty()) return d.refuse("no rationale");
    if (answer.empty()) return d.refuse("no answer");
    if (!s.answer.empty() && !detail::same_answer(answer, s.answer))
      return d.refuse("wrong answer");
    d.keep({"predict: " + s.question, s.answer.empty() ? std::string(answer) : s.answer, alpha});
    d.keep({"explain: " + s.question, std::string(rationale), 1 - alpha});
  }
};

/// Socratic chain of thought (Shridhar et al. 2023): the teacher cuts a question into smaller ones
/// and answers each. One student learns to write the questions. Another one, or the same, learns to
/// answer each after those before. Filters: "no questions", "too many questions", "a question
/// without an answer", "wrong answer".
struct socratic {
  static constexpr const char* name = "socratic";
  std::string_view ask =
      "{question}\nSolve this by smaller questions. Write each as a line \"Q: \" and its answer "
      "as a line \"A: \". The last answer is the result.";
  std::string_view decompose = "{question}\nSmaller questions:\n";
  std::string_view solve = "{question}\n{steps}Q: {step}\nA:";
  index most_questions = 8;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("most_questions", self.most_questions, detail::count(1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::string_view text = d.ask(detail::filled(ask, {{"question", s.question}}));
    if (d.waiting()) return;
    std::vector<std::pair<std::string_view, std::string_view>> steps;  // question and answer
    while (!text.empty()) {
      const std::string_view line = detail::trimmed(detail::take_line(text));
      if (line.starts_with("Q:"))
        steps.emplace_back(detail::trimmed(line.substr(2)), "");
      else if (line.starts_with("A:") && !steps.empty() && steps.back().second.empty())
        steps.back().second = detail::trimmed(line.substr(2));
    }
    if (steps.empty()) return d.refuse("no questions");
    if (std::ssize(steps) > most_questions) return d.refuse("too many questions");
    for (const auto& [question, answer] : steps)
      if (question.empty() || answer.empty()) return d.refuse("a question without an answer");
    if (!s.answer.empty() && !detail::same_answer(steps.back().second, s.answer))
      return d.refuse("wrong answer");
    std::string questions, before;
    for (const auto& one : steps) questions.append(one.first).append("\n");
    d.keep({detail::filled(decompose, {{"question", s.question}}), questions});
    for (const auto& [question, answer] : steps) {
      d.keep(
          {detail::filled(solve, {{"question", s.question}, {"steps", before}, {"step", question}}),
           ' ' + std::string(answer)});
      before.append("Q: ").append(question).append("\nA: ").append(answer).append("\n");
    }
  }
};

/// SCOTT (Wang et al. 2023): the teacher explains the right answer by contrastive decoding
/// against a prompt with a wrong one. So the rationale belongs to the answer. A second item
/// explains the wrong answer and learns that answer alone: a student that reads the rationale
/// follows it. The loss is (1 - α) L_factual + α L_counterfactual, by the items' weights and
/// sequence_mean. Without seed_item::other the contrast has no answer, and there is no
/// counterfactual. For decoders: a T5 would read the rationale in its encoder. Filters: "no known
/// answer", "no rationale", "one rationale for both answers".
struct scott {
  static constexpr const char* name = "scott";
  std::string_view ask = "{question}\nThe answer is {answer}. Explain why.";
  std::string_view mark = "So the answer is";
  double alpha = 0.5;  ///< weight of the counterfactual

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    const auto asked = [&](std::string_view answer) {
      return detail::filled(ask, {{"question", s.question}, {"answer", answer}});
    };
    const std::string right = asked(s.answer), wrong = asked(s.other);
    const std::string_view why = d.ask(right, wrong);
    const std::string_view why_wrong = s.other.empty() ? std::string_view() : d.ask(wrong, right);
    if (d.waiting()) return;
    if (why.empty()) return d.refuse("no rationale");
    if (why == why_wrong) return d.refuse("one rationale for both answers");
    const std::string end = ' ' + std::string(mark);
    d.keep({"[factual] " + s.question + '\n',
            "[factual] " + std::string(why) + end + ' ' + s.answer, 1 - alpha});
    if (s.other.empty()) return;
    if (why_wrong.empty()) return d.refuse("no rationale");
    d.keep({"[counterfactual] " + s.question + "\n[counterfactual] " + std::string(why_wrong) + end,
            ' ' + s.other, alpha});
  }
};

/// PaD, program-aided distillation (Zhu et al. 2023): the rationale is a program, kept if
/// run_program() gives the answer. With `refine`, a second item repairs a program with an error
/// from the message that running it gives. Filters: "no known answer", "no program", "program
/// fails", "wrong answer".
struct program_aided {
  static constexpr const char* name = "program_aided";
  std::string_view ask =
      "{question}\nWrite a Python program with one assignment per line. The last line is the "
      "result.";
  std::string_view prompt = "{question}\n# program\n";
  std::string_view repair = "{question}\n# wrong program\n{program}\n# error\n{error}\n# program\n";
  bool refine = true;
  index draws = 1;  ///< programs for each question
  program_limits limits{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("refine", self.refine, detail::one_of(detail::false_or_true));
    f("draws", self.draws, detail::count(1));
    f("limits", self.limits);
  }

  /// The program in an answer: what stands between ``` marks, or all of it.
  static std::string_view program_in(std::string_view text) {
    const std::size_t open = text.find("```");
    if (open == text.npos) return detail::trimmed(text);
    text.remove_prefix(open + 3);
    text.remove_prefix((std::min)(text.find('\n'), text.size()));
    return detail::trimmed(text.substr(0, text.find("```")));
  }
  /// The program with the first name that it assigns misspelt there. Later lines that read the name
  /// fail. A program without " = " stays as it is.
  static std::string broken(std::string_view program) {
    const std::size_t equals = program.find(" = ");
    std::string wrong(program);
    if (equals != program.npos) wrong.insert(equals, "_");
    return wrong;
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    std::vector<std::string_view> texts;
    for (index i = 0; i < draws; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const std::string_view program = program_in(text);
      if (program.empty()) {
        d.refuse("no program");
        continue;
      }
      const auto value = run_program(program, limits);
      if (!value) {
        d.refuse("program fails");
        continue;
      }
      if (!is_close(*value, s.answer)) {
        d.refuse("wrong answer");
        continue;
      }
      d.keep({detail::filled(prompt, {{"question", s.question}}), std::string(program)});
      if (!refine) continue;
      const std::string wrong = broken(program);
      const auto failed = run_program(wrong, limits);
      if (failed) continue;
      d.keep({detail::filled(
                  repair,
                  {{"question", s.question}, {"program", wrong}, {"error", failed.error().got}}),
              std::string(program)});
    }
  }

 private:
  /// Whether they agree to eight digits, so that 0.1 + 0.2 is 0.3.
  static bool is_close(double value, std::string_view answer) {
    const std::string number = last_number(answer);
    double right = 0;
    const auto [end, problem] =
        detail::read_real(number.data(), number.data() + number.size(), right);
    return !number.empty() && problem == std::errc() && end == number.data() + number.size() &&
           std::abs(value - right) <= 1e-8 * (std::max)(1.0, std::abs(right));
  }
};

LINNET_NAMESPACE_END
/// @file
/// Teachers in files: recorded answers in JSON lines, and a recording of another teacher, by which
/// interrupted runs continue.

#include <linnet/json.hpp>

LINNET_NAMESPACE_BEGIN

/// A teacher whose answers stand in JSON lines, found by prompt:
///
///     {"prompt": "What is 2 + 2?", "answer": "4"}
///     {"prompt": "What is 2 + 2?", "against": "What is 2 + 3?", "answer": "4"}
///     {"prompt": "What is 2 + 2?", "text": "4", "score": -0.125}
///
/// Several answers to one prompt are its draws, in their order. `against` is that of
/// teacher_request, `score` that of scoring_teacher. A line {"teacher": "name"} says who wrote
/// them.
class recorded_answers {
 public:
  /// Parses JSON lines; `where` names the file in errors. Errors: errc::malformed, naming the
  /// line, for what is no such object; errc::unsupported for a line above 1 MiB.
  static result<recorded_answers> parse(std::string_view lines,
                                        const std::string& where = "recorded_answers") LINNET_TRY {
    recorded_answers made(where);
    if (auto added = made.add_lines(lines); !added) return added.error();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  /// Reads a file. Errors: as above, and errc::io.
  static result<recorded_answers> open(const std::string& path) LINNET_TRY {
    const auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    return parse({reinterpret_cast<const char*>(bytes->data()), bytes->size()}, path);
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// Number of answers.
  index answers() const { return count_; }
  /// Who wrote them; "" if no line says it.
  std::string_view name() const { return name_; }
  /// The answer to a request, or null.
  const std::string* find(const teacher_request& one) const {
    const auto found = answers_.find({one.prompt, one.against});
    if (found == answers_.end() || one.draw < 0 || one.draw >= std::ssize(found->second))
      return nullptr;
    return &found->second[static_cast<std::size_t>(one.draw)];
  }
  /// The score of a text behind a prompt, or null.
  const double* find_score(std::string_view prompt, std::string_view text) const {
    const auto found = scores_.find({std::string(prompt), std::string(text)});
    return found == scores_.end() ? nullptr : &found->second;
  }

  /// Looks the answers up. Errors: errc::missing for a request without one.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) const LINNET_TRY {
    std::vector<std::string> texts;
    for (const teacher_request& one : all) {
      const std::string* const text = find(one);
      if (!text) return detail::no_answer(where_, one.prompt, one.draw);
      texts.push_back(*text);
    }
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// Looks a score up. Errors: errc::missing.
  result<double> score(std::string_view prompt, std::string_view text) const LINNET_TRY {
    if (const double* const found = find_score(prompt, text)) return *found;
    return detail::failure(errc::missing, where_, "score of \"" + detail::printable(text) + '"',
                           "one that was recorded", "none");
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

  /// Adds lines behind those that are there. Errors: see parse(); lines before the wrong one stay.
  result<void> add_lines(std::string_view lines) LINNET_TRY {
    for (index line = 1; !lines.empty(); ++line) {
      const std::size_t end = (std::min)(lines.find('\n'), lines.size());
      const std::string_view object = lines.substr(0, end);
      lines.remove_prefix((std::min)(end + 1, lines.size()));
      if (object.find_first_not_of(" \t\r") == object.npos) continue;
      if (auto added = add(object, where_ + ":" + std::to_string(line)); !added) return added;
    }
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  result<void> add(std::string_view object, const std::string& place) {
    const std::string fields[] = {"prompt", "against", "answer", "text", "score", "teacher"};
    detail::line_reader reader(fields, place);
    if (auto read =
            detail::read_json({reinterpret_cast<const std::byte*>(object.data()), object.size()},
                              detail::longest_json_line, place, "the line", reader);
        !read)
      return read.error();
    const auto& has = reader.found;
    auto& values = reader.values;
    const auto wrong = [&](const char* expected) {
      return detail::failure(errc::malformed, place, "the line", expected, "other fields");
    };
    if (has[5] && !has[0] && !has[1] && !has[2] && !has[3] && !has[4]) {
      name_ = std::move(values[5]);
      return {};
    }
    if (!has[0] || has[5] || has[2] == has[4] || has[3] != has[4] || (has[1] && !has[2]))
      return wrong(
          "\"prompt\" with \"answer\", and maybe \"against\", or with \"text\" and \"score\"");
    if (has[2]) {
      answers_[{std::move(values[0]), std::move(values[1])}].push_back(std::move(values[2]));
      ++count_;
      return {};
    }
    double score = 0;
    const char* const end = values[4].data() + values[4].size();
    if (const auto [stop, problem] = detail::read_real(values[4].data(), end, score);
        stop != end || problem != std::errc() || !is_finite(score))
      return detail::failure(errc::malformed, place, "score", "a number",
                             detail::printable(values[4]));
    scores_[{std::move(values[0]), std::move(values[3])}] = score;
    return {};
  }
  using text_pair_key = std::pair<std::string, std::string>;
  explicit recorded_answers(std::string where) : where_(std::move(where)) {}

  std::string where_, name_{};
  std::map<text_pair_key, std::vector<std::string>> answers_{};
  std::map<text_pair_key, double> scores_{};
  index count_ = 0;
};

/// Asks another teacher, which must outlive it, and writes all that it says to a file; what stands
/// there is not asked again. So a run that ended in the middle continues exactly: it gets the
/// answers it had, and then new ones. The file is one for a recorded_answers.
class answer_recorder {
 public:
  /// Continues the record in `path`, or begins it. `name` says which teacher and settings it is of.
  /// Requests go to the teacher `portion` at a time, and their answers to the disk. An unfinished
  /// last line, left by a program that was killed, is dropped. Errors: those of
  /// recorded_answers::open(), errc::io, errc::mismatch for another teacher's record, errc::invalid
  /// for a portion below 1.
  static result<answer_recorder> open(const std::string& path, teacher_ref teacher,
                                      const std::string& name, index portion = 8) LINNET_TRY {
    if (portion < 1)
      return detail::failure(errc::invalid, "answer_recorder::open", "portion", "at least 1",
                             std::to_string(portion));
    std::string kept;
    if (detail::exists(path)) {
      const auto bytes = read_file(path);
      if (!bytes) return bytes.error();
      const std::string_view all(reinterpret_cast<const char*>(bytes->data()), bytes->size());
      kept = all.substr(0, all.rfind('\n') + 1);
    }
    if (kept.empty())
      kept = "{\"teacher\": " + detail::json_quoted(detail::only_utf8(name)) + "}\n";
    auto known = recorded_answers::parse(kept, path);
    if (!known) return known.error();
    if (known->name() != detail::only_utf8(name))
      return detail::failure(errc::mismatch, path, "teacher", detail::printable(name),
                             known->name().empty() ? "a record without a teacher's name"
                                                   : detail::printable(known->name()));
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    return answer_recorder(path, teacher, std::move(*known), std::move(*file), portion);
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// All that was recorded so far.
  const recorded_answers& record() const { return known_; }
  /// Answers from the record, and asks for the others. Errors: the teacher's; errc::io, after which
  /// the record has to be opened anew; errc::invalid for a draw before the ones below it.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) LINNET_TRY {
    std::vector<teacher_request> missing;
    const auto asks = [&](const teacher_request& one) {
      return std::find(missing.begin(), missing.end(), one) != missing.end();
    };
    for (const teacher_request& one : all) {
      if (known_.find(one) || asks(one)) continue;
      // Draws are found again by their order, so none is asked for before those below it.
      if (const teacher_request below{one.prompt, one.against, one.draw - 1};
          one.draw != 0 && !known_.find(below) && !asks(below))
        return detail::failure(errc::invalid, path_, "draw", "one behind all draws below it",
                               std::to_string(one.draw));
      missing.push_back(one);
    }
    for (std::size_t i = 0; i < missing.size(); i += static_cast<std::size_t>(portion_)) {
      const auto some = std::span(missing).subspan(
          i, (std::min)(missing.size() - i, static_cast<std::size_t>(portion_)));
      const auto texts = teacher_.generate(some);
      if (!texts) return texts.error();
      std::string lines;
      for (std::size_t k = 0; k < some.size(); ++k)
        lines +=
            "{\"prompt\": " + detail::json_quoted(some[k].prompt) +
            (some[k].against.empty() ? std::string()
                                     : ", \"against\": " + detail::json_quoted(some[k].against)) +
            ", \"answer\": " + detail::json_quoted((*texts)[k]) + "}\n";
      if (auto done = write(lines); !done) return done.error();
    }
    std::vector<std::string> texts;
    for (const teacher_request& one : all) texts.push_back(*known_.find(one));
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// The score from the record, or the teacher's. Errors: as above.
  result<double> score(std::string_view prompt, std::string_view text) LINNET_TRY {
    if (const double* const found = known_.find_score(prompt, text)) return *found;
    const auto nats = teacher_.score(prompt, text);
    if (!nats) return nats;
    if (auto done = write("{\"prompt\": " + detail::json_quoted(prompt) +
                          ", \"text\": " + detail::json_quoted(text) +
                          ", \"score\": " + detail::number_text(*nats) + "}\n");
        !done)
      return done.error();
    return nats;
  }
  LINNET_OR_OUT_OF_MEMORY(path_)

 private:
  answer_recorder(std::string path, teacher_ref teacher, recorded_answers known, line_file file,
                  index portion)
      : path_(std::move(path)),
        teacher_(teacher),
        known_(std::move(known)),
        file_(std::move(file)),
        portion_(portion) {}

  /// Writes lines in one piece, then knows them.
  result<void> write(std::string_view lines) {
    if (torn_)
      return detail::failure(errc::io, path_, "", "a record that was opened anew",
                             "one that could not be written");
    // Nothing is written that could not be read again.
    if (auto checked = recorded_answers::parse(lines, path_); !checked) return checked.error();
    auto done = file_.write(lines);
    if (done) done = file_.sync();
    torn_ = !done;
    return done ? known_.add_lines(lines) : done;
  }

  std::string path_;
  teacher_ref teacher_;
  recorded_answers known_;
  line_file file_;
  index portion_;
  bool torn_ = false;
};

/// Writes training items as JSON lines {"prompt", "target", "weight"}; `path` never holds a part of
/// them. Errors: errc::io; errc::invalid for an item that is not UTF-8 or has no finite weight.
inline result<void> write_training_items(const std::string& path,
                                         std::span<const training_item> items) LINNET_TRY {
  std::string all;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const training_item& one = items[i];
    if (!detail::is_utf8(one.prompt) || !detail::is_utf8(one.target) || !is_finite(one.weight))
      return detail::failure(errc::invalid, path, "item " + std::to_string(i),
                             "texts in UTF-8 and a finite weight", "others");
    all += "{\"prompt\": " + detail::json_quoted(one.prompt) +
           ", \"target\": " + detail::json_quoted(one.target) +
           ", \"weight\": " + detail::number_text(one.weight) + "}\n";
  }
  return write_file(path, std::as_bytes(std::span(all)));
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Reads what write_training_items() wrote. Errors: errc::io, and those of parse_json_lines();
/// errc::malformed for a weight that is no number of at least 0.
inline result<std::vector<training_item>> read_training_items(const std::string& path) LINNET_TRY {
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto rows = parse_json_lines({reinterpret_cast<const char*>(bytes->data()), bytes->size()},
                                     {"prompt", "target", "weight"}, path);
  if (!rows) return rows.error();
  std::vector<training_item> items;
  for (index i = 0; i < rows->rows(); ++i) {
    const std::string_view weight = rows->at(i, 2);
    training_item one{std::string(rows->at(i, 0)), std::string(rows->at(i, 1))};
    const auto [end, problem] =
        detail::read_real(weight.data(), weight.data() + weight.size(), one.weight);
    if (end != weight.data() + weight.size() || problem != std::errc() || !(one.weight >= 0))
      return rows->wrong(i, "weight", "a number of at least 0", weight);
    items.push_back(std::move(one));
  }
  return items;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// A local model as a teacher: it writes through its session, several answers at a time.

LINNET_NAMESPACE_BEGIN

/// Options of session_teacher.
struct session_teacher_options {
  index tokens = 256;                           ///< most new ones of an answer
  sampling_options sampling{.temperature = 0};  ///< its seed is mixed with prompt and draw
  contrast_options contrast{};                  ///< of requests with `against`
  bool chat = false;                            ///< prompts are messages of a user in ChatML
  std::string system{};                         ///< message before them; "" for none
  std::vector<token> opening{}, stops{};        ///< before each prompt; that end an answer
  std::vector<std::string> stop_texts{};        ///< that end an answer, and are cut off

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(1));
    f("sampling", self.sampling);
    f("contrast", self.contrast);
    f("chat", self.chat, detail::one_of(detail::false_or_true));
  }
};

/// A teacher that is a model here: packed weights of any type, and their tokenizer. An answer is a
/// function of its request and the options. Decoders answer limits.batch requests at a time. Of
/// models with coded weights a batch may change the last bits of logits, so there it counts, too.
template <class M, class T = float>
class session_teacher {
  static_assert(session<M, T>::ids_per_token == 1,
                "linnet::session_teacher: a model of tokens writes the answers");
  static_assert(M::block_tokens == 1,
                "linnet::session_teacher: tokens of one block see each other, so such a model does "
                "not write answers token by token");

 public:
  /// Opens a session. Weights and tokenizer must outlive it. Errors: those of session::open();
  /// errc::invalid for options out of range; errc::missing for a chat without ChatML's marks.
  static result<session_teacher> open(const packed<M, T>& p, const limits& l,
                                      const tokenizer& pieces,
                                      session_teacher_options how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable(where, "session_teacher_options", how); !fit)
      return fit.error();
    auto run = session<M, T>::open(p, l);
    if (!run) return run.error();
    session_teacher made(p, std::move(*run), pieces, std::move(how));
    if (!made.how_.chat) return made;
    auto format = chatml::open(pieces);
    if (!format) return format.error();
    made.how_.stops.push_back(format->end());
    made.format_.emplace(*format);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  // Weights that would be gone before they are read.
  static result<session_teacher> open(const packed<M, T>&&, const limits&, const tokenizer&,
                                      session_teacher_options = {}) = delete;

  /// New tokens so far, of all answers.
  index written() const { return written_; }

  /// Answers each request. Errors: errc::invalid for a prompt that is empty, too long or of other
  /// tokens, and for logits without a maximum; errc::out_of_memory.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) LINNET_TRY {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < all.size();) {
      std::size_t n = 1;  // how many are answered together
      if constexpr (!M::encodes)
        while (all[i].against.empty() && i + n < all.size() && all[i + n].against.empty() &&
               static_cast<index>(n) < session_.planned().batch)
          ++n;
      auto some = answer(all.subspan(i, n));
      if (!some) return some;
      for (std::string& text : *some) texts.push_back(std::move(text));
      i += n;
    }
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(where)

  /// Mean log-likelihood of a text behind a prompt. Errors: as above; errc::invalid for a text of
  /// no tokens.
  result<double> score(std::string_view prompt, std::string_view text) LINNET_TRY {
    const std::vector<token> before = ids_of(prompt), ids = pieces_->encode(text);
    if (ids.empty()) return detail::failure(errc::invalid, where, "text", "at least 1 token", "0");
    std::span<T> logits = session_.reset_and_prefill(before);
    double sum = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (i > 0) logits = session_.feed({&ids[i - 1], 1});
      if (logits.empty()) return refused(prompt);
      const auto most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
      double mass = 0;
      for (const T x : logits) mass += std::exp(static_cast<double>(x) - most);
      sum += static_cast<double>(logits[static_cast<std::size_t>(ids[i])]) - most - std::log(mass);
    }
    return sum / static_cast<double>(ids.size());
  }
  LINNET_OR_OUT_OF_MEMORY(where)

 private:
  static constexpr const char* where = "session_teacher";
  /// An answer that is being written.
  struct writing {
    std::vector<token> ids;  ///< prompt and answer
    sampler draw;
    token previous = -1;
    std::string text{};
  };

  session_teacher(const packed<M, T>& p, session<M, T> run, const tokenizer& pieces,
                  session_teacher_options how)
      : packed_(&p), session_(std::move(run)), pieces_(&pieces), how_(std::move(how)) {
    order_.resize(static_cast<std::size_t>(M::vocabulary));
  }

  std::vector<token> ids_of(std::string_view prompt) const {
    std::vector<token> ids = how_.opening;
    if (!format_) {
      pieces_->encode(prompt, ids);
      if constexpr (requires(const typename M::batch& b) { b.target_length; })  // a T5's source
        ids.push_back(t5_ids::end);
      return ids;
    }
    if (!how_.system.empty()) format_->append(chatml::role::system, how_.system, ids);
    format_->append(chatml::role::user, prompt, ids);
    format_->append_opening(ids);
    return ids;
  }
  sampler sampler_of(const teacher_request& one) const {
    sampling_options s = how_.sampling;
    random_stream mixed(seed{s.seed ^ stream_of(one.prompt) ^ stream_of(one.against) * 3},
                        static_cast<std::uint64_t>(one.draw));
    const std::uint64_t high = mixed.bits();
    s.seed = high << 32 | mixed.bits();
    return sampler(s);
  }
  bool stops(token t) const {
    return std::find(how_.stops.begin(), how_.stops.end(), t) != how_.stops.end();
  }
  token choose(writing& one, std::span<T> logits) {
    const token t = one.draw(logits, std::span(order_), one.ids);
    if (t == no_token) spoilt_ = true;
    return t;
  }
  /// Adds a token to an answer; false where that ends it.
  bool add(writing& one, token t) {
    if (stops(t)) return false;
    ++written_;
    one.ids.push_back(t);
    const std::size_t old = one.text.size();
    one.text += pieces_->decode(std::exchange(one.previous, t), t);
    for (const std::string& stop : how_.stop_texts) {
      const std::size_t from = old - (std::min)(old, stop.size());
      if (const std::size_t at = one.text.find(stop, from); !stop.empty() && at != stop.npos) {
        one.text.resize(at);
        return false;
      }
    }
    return true;
  }
  linnet::error refused(std::string_view prompt) const {
    return detail::failure(errc::invalid, where, "prompt \"" + detail::printable(prompt) + '"',
                           "one that fits the limits and the model",
                           std::string(session_.last_refusal()));
  }

  result<std::vector<std::string>> answer(std::span<const teacher_request> some) {
    std::vector<writing> all;
    std::vector<std::vector<token>> prompts;
    for (const teacher_request& one : some) {
      prompts.push_back(ids_of(one.prompt));
      if (prompts.back().empty() || std::ssize(prompts.back()) > room())
        return detail::failure(
            errc::invalid, where, "prompt \"" + detail::printable(one.prompt) + '"',
            "1 to " + std::to_string(room()) + " tokens", std::to_string(prompts.back().size()));
      all.push_back({prompts.back(), sampler_of(one)});
    }
    spoilt_ = false;
    if (M::encodes || !some[0].against.empty()) {
      if (auto done = write_alone(some[0], prompts[0], all[0]); !done) return done.error();
    } else {
      const std::vector<std::span<const token>> views(prompts.begin(), prompts.end());
      const auto pick = [&](std::size_t i, std::span<T> logits) { return choose(all[i], logits); };
      const auto put = [&](std::size_t i, token t) { return add(all[i], t); };
      if (!generate_batch(session_, std::span(views), how_.tokens, pick, put))
        return refused(some[0].prompt);
    }
    if (spoilt_)
      return detail::failure(
          errc::invalid, where, "logits", "finite numbers",
          "none that is largest, behind \"" + detail::printable(some[0].prompt) + '"');
    std::vector<std::string> texts;
    for (writing& one : all) texts.push_back(std::move(one.text));
    return texts;
  }
  /// Most tokens of a prompt: some are left for the answer.
  index room() const {
    if constexpr (M::encodes)
      return session_.planned().source;
    else
      return session_.capacity();
  }
  result<void> write_alone(const teacher_request& one, std::span<const token> prompt, writing& to) {
    std::optional<contrast<M, T>> against;
    if (!one.against.empty()) {
      if (!amateur_) {
        auto run = session<M, T>::open(*packed_, session_.planned());
        if (!run) return run.error();
        amateur_.emplace(std::move(*run));
      }
      against.emplace(*amateur_, how_.contrast);
      if (!against->reset_and_prefill(ids_of(one.against))) return refused(one.against);
    }
    const auto pick = [&](std::span<T> logits, std::span<token>, std::span<const token> fed) {
      if (against) {  // ends where one of both would (Wang et al. 2023)
        if (const token plain = detail::most_likely(logits); stops(plain)) return plain;
        (*against)(logits, fed);
      }
      return choose(to, logits);
    };
    const generation_options most{.tokens = how_.tokens};
    if (session_.generate(
            prompt, pick, [&](token t) { return add(to, t); }, most) == 0 &&
        !spoilt_)
      return refused(one.prompt);
    return {};
  }

  const packed<M, T>* packed_;
  session<M, T> session_;
  std::optional<session<M, T>> amateur_{};  ///< opened by the first request with `against`
  const tokenizer* pieces_;
  session_teacher_options how_;
  std::optional<chatml> format_{};
  std::vector<token> order_{};  ///< for samplers
  index written_ = 0;
  bool spoilt_ = false;
};

LINNET_NAMESPACE_END
