// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SQuAD (Rajpurkar et al. 2016): questions whose answers stand in a text, and the two figures that
/// judge answers. Opt-in, through linnet/json.hpp.

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/data/pair_stream.hpp>
#include <linnet/eval/estimates.hpp>
#include <linnet/file/json.hpp>
#include <linnet/text/unicode_normalization.hpp>
#include <linnet/text/words.hpp>

LINNET_NAMESPACE_BEGIN

/// A question on a text.
struct squad_question {
  std::string id, text;
  std::size_t context = 0;           ///< number in squad::contexts
  std::vector<std::string> answers;  ///< none: the text does not tell (version 2)
};

/// A file of SQuAD.
struct squad {
  std::vector<std::string> contexts;
  std::vector<squad_question> questions;

  /// A question in T5's words: "question: … context: …" -> its first answer (Raffel et al. 2020,
  /// appendix D.15). Texts stay as they are, where T5's code puts spaces around punctuation.
  /// Without an answer the target is empty.
  text_pair pair(std::size_t number) const {
    const squad_question& q = questions[number];
    return {"question: " + q.text + " context: " + contexts[q.context],
            q.answers.empty() ? "" : q.answers.front()};
  }
};

namespace detail {

/// Takes questions out of {"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …,
/// "answers": [{"text": …}]}]}]}]}, whatever order the members have; other members are left out.
struct squad_reader {
  std::string where{};
  squad made{};
  error failure{};

  explicit squad_reader(const std::string& file) : where(file) {}

  bool open(bool array) {
    if (open_.size() == 32) return fail("the file", "at most 32 levels", "more");
    open_.push_back({next_, array});
    if (array) return true;
    wanted_ = nullptr;
    if (next_ == things::paragraph) {
      first_ = made.questions.size();
      context_.reset();
    }
    if (next_ == things::question) {
      made.questions.push_back(
          {.id = {}, .text = {}, .context = made.contexts.size(), .answers = {}});
      id_.reset();
      text_.reset();
    }
    if (next_ == things::answer) answer_.reset();
    next_ = things::other;
    return true;
  }
  bool close() {
    const auto [thing, array] = open_.back();
    open_.pop_back();
    next_ = !open_.empty() && open_.back().array ? open_.back().thing : things::other;
    if (array) return true;
    if (thing == things::answer) {
      if (!answer_) return fail("answers.text", "a text", "none");
      made.questions.back().answers.push_back(*std::move(answer_));
    }
    if (thing == things::question) {
      if (!id_ || !text_) return fail(id_ ? "question" : "id", "a text", "none");
      made.questions.back().id = *std::move(id_);
      made.questions.back().text = *std::move(text_);
    }
    if (thing == things::paragraph) {
      if (!context_ && made.questions.size() > first_) return fail("context", "a text", "none");
      if (context_) made.contexts.push_back(*std::move(context_));
    }
    return true;
  }
  bool key(std::string_view name) {
    const things in = open_.back().thing;
    const auto is = [&](things thing, std::string_view one) { return in == thing && name == one; };
    next_ = is(things::file, "data")            ? things::article
            : is(things::article, "paragraphs") ? things::paragraph
            : is(things::paragraph, "qas")      ? things::question
            : is(things::question, "answers")   ? things::answer
                                                : things::other;
    wanted_ = is(things::paragraph, "context")   ? &context_
              : is(things::question, "id")       ? &id_
              : is(things::question, "question") ? &text_
              : is(things::answer, "text")       ? &answer_
                                                 : nullptr;
    if (wanted_) name_ = name;
    if (wanted_ && *wanted_) return fail(name_, "it once", "twice");
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (open_.empty()) return fail("the file", "an object with data", value.text());
    const auto [thing, array] = open_.back();
    if (array && thing == things::answer) return fail("answers", "objects", value.text());
    if (!wanted_ || array) return true;
    if (value.kind != json_scalar::kinds::text) return fail(name_, "a text", value.text());
    *wanted_ = std::string(value.string);
    return true;
  }

 private:
  enum class things { other, file, article, paragraph, question, answer };
  struct level {
    things thing;  ///< what it is, or what the array holds
    bool array;
  };
  std::vector<level> open_;
  things next_ = things::file;  ///< what an object is that begins now
  std::optional<std::string> context_, id_, text_, answer_;
  std::optional<std::string>* wanted_ = nullptr;  ///< where the text of the last key goes
  std::string name_;                              ///< of it
  std::size_t first_ = 0;                         ///< question of the paragraph

  bool fail(std::string what, const char* expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), expected, std::move(got)};
    return false;
  }
};

}  // namespace detail

/// Reads a file of SQuAD, version 1.1 or 2, of at most 256 MiB. Errors: errc::malformed, naming the
/// file and the member, errc::unsupported for a larger file.
inline result<squad> read_squad(std::string_view text, const std::string& where) LINNET_TRY {
  if (!detail::has_memory(2 * text.size())) return detail::out_of_memory(where);
  detail::squad_reader reader(where);
  if (auto read = detail::read_json(std::as_bytes(std::span(text)), std::size_t{1} << 28, where,
                                    "the file", reader);
      !read)
    return read.error();
  if (reader.made.questions.empty())
    return detail::failure(errc::malformed, where, "data", "at least one question", "none");
  return std::move(reader.made);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// An answer as SQuAD compares it: lower case, without ASCII punctuation and the words a, an and
/// the, one space between words. "" where memory lacks.
inline std::string normalized_answer(std::string_view text) LINNET_TRY {
  constexpr std::string_view punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  std::string plain;
  while (!text.empty()) {
    const detail::utf8_character c = detail::utf8_front(text);
    const std::string_view bytes = text.substr(0, c.size);
    text.remove_prefix(c.size);
    if (bytes.size() == 1 && punctuation.find(bytes[0]) != punctuation.npos) continue;
    if (bytes.size() == 1 && static_cast<unsigned char>(bytes[0]) >= 0x80)
      plain += bytes;  // no UTF-8
    else
      each_lower(c.code, [&](char32_t low) { detail::append_utf8(low, plain); });
  }
  std::string made;
  bool apart = false;
  for (std::string_view rest = plain; !rest.empty();) {
    const auto kind = [](std::string_view at) { return detail::front_of(at).kind; };
    const auto in_word = [&](std::string_view at) {
      return kind(at) == character_class::letter || kind(at) == character_class::number;
    };
    std::size_t end = 0;
    while (end < rest.size() && in_word(rest.substr(end)))
      end += detail::front_of(rest.substr(end)).size;
    const std::string_view word = rest.substr(0, end);
    const bool article = word == "a" || word == "an" || word == "the";
    if (end == 0) end = detail::front_of(rest).size;
    if (article || kind(rest) == character_class::space) {
      apart = !made.empty();
    } else {
      if (apart) made += ' ';
      apart = false;
      made += rest.substr(0, end);
    }
    rest.remove_prefix(end);
  }
  return made;
}
LINNET_WITHOUT_MEMORY(return {})

namespace detail {
/// F1 of the words of two normalized answers.
inline double word_overlap(std::string_view one, std::string_view other) {
  const auto words_of = [](std::string_view text) {
    std::vector<std::string_view> words;
    while (!text.empty()) {
      const std::size_t end = (std::min)(text.find(' '), text.size());
      words.push_back(text.substr(0, end));
      text.remove_prefix((std::min)(end + 1, text.size()));
    }
    std::sort(words.begin(), words.end());
    return words;
  };
  const auto a = words_of(one), b = words_of(other);
  if (a.empty() || b.empty()) return a.empty() && b.empty();
  std::size_t same = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++same;
    const int order = a[i].compare(b[j]);
    i += order <= 0;
    j += order >= 0;
  }
  return 2 * static_cast<double>(same) / static_cast<double>(a.size() + b.size());
}
}  // namespace detail

/// Whether a prediction is one of the answers, both normalized (Rajpurkar et al. 2016, section
/// 6.1). Without answers it has to be empty.
inline bool squad_exact(std::string_view prediction,
                        std::span<const std::string> answers) LINNET_TRY {
  const std::string words = normalized_answer(prediction);
  if (answers.empty()) return words.empty();
  return std::any_of(answers.begin(), answers.end(),
                     [&](const std::string& answer) { return normalized_answer(answer) == words; });
}
LINNET_WITHOUT_MEMORY(return false)

/// The largest F1 between the words of a prediction and those of an answer, both normalized. With
/// no words on one side it is 1 if there are none on the other, else 0; NaN where memory lacks.
inline double squad_f1(std::string_view prediction,
                       std::span<const std::string> answers) LINNET_TRY {
  const std::string words = normalized_answer(prediction);
  if (answers.empty()) return words.empty();
  double best = 0;
  for (const std::string& answer : answers)
    best = (std::max)(best, detail::word_overlap(words, normalized_answer(answer)));
  return best;
}
LINNET_WITHOUT_MEMORY(return detail::unknown)

LINNET_NAMESPACE_END
