// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Teachers that are asked for text: what all of them can do, and one that is a function.

#include <concepts>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>
#include <linnet/core/utf8.hpp>

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
