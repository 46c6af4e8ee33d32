// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/json.hpp: do not edit.
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
/// Opt-in: everything that needs nlohmann/json: safetensors, Hugging Face directories and
/// tokenizers, JSON lines, tests of language models, logs of metrics. Needs nlohmann/json, whose
/// streaming parser reads all JSON.

/// @file
/// Tables of JSON: one object per line, or an array of objects.

#include <algorithm>
#include <utility>

#include <linnet/linnet.hpp>
/// @file
/// JSON as a stream of events, with nlohmann/json (opt-in, through linnet/json.hpp). Nothing is
/// kept but what the reader of the events keeps, so memory stays bounded and duplicate keys can be
/// seen.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// `text` as a JSON string with quotes (UTF-8 stays as it is).
inline std::string json_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      (quoted += '\\') += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr std::string_view hex = "0123456789abcdef";
      ((quoted += "\\u00") += hex[static_cast<unsigned char>(c) >> 4]) += hex[c & 15];
    } else {
      quoted += c;
    }
  }
  return quoted += '"';
}

/// A JSON value that is neither object nor array.
struct json_scalar {
  enum class kinds { null, boolean, number, text };
  kinds kind = kinds::null;
  bool truth = false;  ///< of a boolean
  double number = 0;   ///< of a number
  bool whole = false;  ///< whether the number is a whole one from 0 to 2^64-1, held in `count`
  std::uint64_t count = 0;
  std::string_view string{};  ///< of a text, valid during the event

  /// The value as JSON, for comparisons and messages; numbers by value, so 1e-6 and 0.000001 are
  /// equal.
  std::string text() const {
    if (kind == kinds::null) return "null";
    if (kind == kinds::boolean) return truth ? "true" : "false";
    return kind == kinds::number ? number_text(number) : json_quoted(printable(string));
  }
};

/// Passes nlohmann's events to a reader that has these members:
///   bool open(bool array), bool close(), bool key(std::string_view),
///   bool scalar(const json_scalar&)
/// Each returns false to stop, having said why in the reader's member `failure`.
template <class Reader>
struct json_events {
  using json = nlohmann::json;
  using kinds = json_scalar::kinds;
  Reader& reader;
  bool broken = false;  ///< the text is not JSON
  std::string problem{};

  bool null() { return reader.scalar({}); }
  bool boolean(bool x) { return reader.scalar({.kind = kinds::boolean, .truth = x}); }
  bool number_integer(json::number_integer_t x) {
    return reader.scalar({.kind = kinds::number, .number = static_cast<double>(x)});
  }
  bool number_unsigned(json::number_unsigned_t x) {
    return reader.scalar(
        {.kind = kinds::number, .number = static_cast<double>(x), .whole = true, .count = x});
  }
  bool number_float(json::number_float_t x, const std::string&) {
    return is_finite(x) ? reader.scalar({.kind = kinds::number, .number = x}) : too_large();
  }
  bool string(std::string& x) { return reader.scalar({.kind = kinds::text, .string = x}); }
  bool binary(json::binary_t&) { return false; }
  bool start_object(std::size_t) { return reader.open(false); }
  bool end_object() { return reader.close(); }
  bool start_array(std::size_t) { return reader.open(true); }
  bool end_array() { return reader.close(); }
  bool key(std::string& x) { return reader.key(x); }
  bool parse_error(std::size_t at, const std::string& last, const nlohmann::detail::exception& e) {
    if (e.id == 406) return too_large();
    broken = true;
    problem = "an error at byte " + std::to_string(at);
    if (!last.empty())
      problem += ", after " + printable(last.size() > 20 ? last.substr(last.size() - 20) : last);
    return false;
  }
  /// Refuses a number that is too large; nlohmann does so too, but not under -ffast-math.
  bool too_large() {
    broken = true;
    problem = "a number too large for a double";
    return false;
  }
};

/// Longest stretch of white space between the values of accepted JSON. nlohmann collects it, at
/// several times its size.
inline constexpr index longest_white_space = 1024;

/// Parses `text` of at most `limit` bytes as one JSON value and nothing behind it; `what` names it
/// in messages.
template <class Reader>
result<void> read_json(std::span<const std::byte> text, std::size_t limit, const std::string& where,
                       const std::string& what, Reader& reader) {
  if (text.size() > limit)
    return detail::failure(errc::unsupported, where, what,
                           "at most " + std::to_string(limit) + " bytes",
                           std::to_string(text.size()));
  const std::string_view characters(reinterpret_cast<const char*>(text.data()), text.size());
  index blanks = 0;
  bool inside = false, escaped = false;  // of a text, whose blanks are its own
  for (const char c : characters) {
    inside ^= c == '"' && !escaped;
    escaped = inside && c == '\\' && !escaped;
    const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    blanks = blank && !inside ? blanks + 1 : 0;
    if (blanks > longest_white_space)
      return detail::failure(errc::unsupported, where, what,
                             "at most " + std::to_string(longest_white_space) + " blanks in a row",
                             "more");
  }
  json_events<Reader> events{reader};
  if (nlohmann::json::sax_parse(characters.data(), characters.data() + characters.size(), &events))
    return {};
  if (!events.broken) return reader.failure;
  return detail::failure(errc::malformed, where, what, "JSON", events.problem);
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Longest line of JSON that is read, in bytes.
inline constexpr std::size_t longest_json_line = 1 << 20;

/// Takes the wanted fields out of one object.
struct line_reader {
  std::span<const std::string> names;
  std::string where;
  std::vector<std::string> values;
  std::vector<bool> found;
  error failure{};

  line_reader(std::span<const std::string> wanted_fields, const std::string& place)
      : names(wanted_fields), where(place), values(names.size()), found(names.size()) {}

  bool open(bool array) {
    if (depth == 0 && array) return fail("the line", "a JSON object", "an array");
    if (depth == 1 && wanted < names.size()) return fail(names[wanted], "one value", "several");
    return ++depth <= 32 || fail("the line", "at most 32 levels", "more");
  }
  bool close() {
    --depth;
    return true;
  }
  bool key(std::string_view name) {
    if (depth != 1) return true;
    wanted = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    return wanted == names.size() || !found[wanted] || fail(names[wanted], "it once", "twice");
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("the line", "a JSON object", value.text());
    if (wanted == names.size()) return true;
    values[wanted] =
        value.kind == json_scalar::kinds::text ? std::string(value.string) : value.text();
    return found[wanted] = true;
  }
  bool fail(const std::string& what, const char* expected, std::string got) {
    failure = {errc::malformed, where, what, expected, std::move(got)};
    return false;
  }

 private:
  int depth = 0;
  std::size_t wanted = 0;  ///< number of the name that came last at depth 1; deeper there is none
};

/// Adds the fields of one object, which begins at this line, to a table.
inline result<void> append_object(table& to, std::string_view object,
                                  std::span<const std::string> names, const std::string& where,
                                  index line) {
  const std::string place = where + ":" + std::to_string(line);
  line_reader reader(names, place);
  if (auto read = read_json({reinterpret_cast<const std::byte*>(object.data()), object.size()},
                            longest_json_line, place, "the line", reader);
      !read)
    return read.error();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!reader.found[i])
      return error{errc::malformed, place, printable(names[i]), "a value", "none"};
    to.append(reader.values[i]);
  }
  return to.end_row(line);
}

}  // namespace detail

/// Parses JSON lines into a table of the fields `names`. Numbers, truth values and null are as JSON
/// writes them; other fields are left out. Lines of white space count as none. Errors name file and
/// line. They are errc::malformed for a line that is no object and for a field that is absent,
/// there twice, an object or an array. They are errc::unsupported for a line above 1 MiB.
inline result<table> parse_json_lines(std::string_view text, std::vector<std::string> names,
                                      const std::string& where = "JSON lines") LINNET_TRY {
  if (!detail::has_memory(2 * text.size())) return detail::out_of_memory(where);
  table made(where, names);
  for (index line = 1; !text.empty(); ++line) {
    const std::size_t end = (std::min)(text.find('\n'), text.size());
    const std::string_view object = text.substr(0, end);
    text.remove_prefix((std::min)(end + 1, text.size()));
    if (object.find_first_not_of(" \t\r") == object.npos) continue;
    if (auto row = detail::append_object(made, object, names, where, line); !row)
      return row.error();
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Parses a text that is one array of objects, [{…}, {…}]; each row's line is where its object
/// begins. Errors: as above, and for what is no such array.
inline result<table> parse_json_array(std::string_view text, std::vector<std::string> names,
                                      const std::string& where = "JSON") LINNET_TRY {
  if (!detail::has_memory(2 * text.size())) return detail::out_of_memory(where);
  table made(where, names);
  index line = 1;
  std::size_t at = 0;
  const auto wrong = [&](const char* expected) {
    return error{errc::malformed, where + ":" + std::to_string(line), "the array", expected,
                 at < text.size() ? detail::printable(text.substr(at, 1)) : "the end of the file"};
  };
  const auto skip_blanks = [&] {
    for (; at < text.size() && std::string_view(" \t\r\n").find(text[at]) != text.npos; ++at)
      line += text[at] == '\n';
  };
  const auto next_is = [&](char c) {
    skip_blanks();
    const bool is = at < text.size() && text[at] == c;
    at += is;
    return is;
  };
  if (!next_is('[')) return wrong("[");
  for (bool more = !next_is(']'); more;) {
    skip_blanks();
    if (at == text.size() || text[at] != '{') return wrong("{");
    // The object's end: where as many braces closed as opened, strings aside.
    const std::size_t first = at;
    const index first_line = line;
    int depth = 0;
    bool inside = false;
    do {
      if (at == text.size()) return wrong("}");
      const char c = text[at];
      if (inside && c == '\\' && at + 1 < text.size())
        ++at;
      else if (c == '"')
        inside = !inside;
      else if (!inside)
        depth += (c == '{') - (c == '}');
      line += text[at++] == '\n';
    } while (depth > 0);
    if (auto row =
            detail::append_object(made, text.substr(first, at - first), names, where, first_line);
        !row)
      return row.error();
    more = next_is(',');
    if (!more && !next_is(']')) return wrong(", or ]");
  }
  skip_blanks();
  if (at < text.size()) return wrong("nothing behind it");
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
/// @file
/// SQuAD (Rajpurkar et al. 2016): questions whose answers stand in a text, and the two figures that
/// judge answers. Opt-in, through linnet/json.hpp.

#include <optional>
#include <vector>

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
/// @file
/// Tests of language models whose files are JSON: BLiMP, ARC, WinoGrande, LAMBADA and GSM8K.
/// Opt-in, through linnet/json.hpp.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Items from the rows of a table: read(row, place) gives a result<eval_item>. All fields are
/// checked.
template <class Read>
result<std::vector<eval_item>> items_of(const result<table>& rows, const std::string& where,
                                        const std::vector<std::string>& names, Read&& read) {
  if (!rows) return rows.error();
  std::vector<eval_item> items;
  for (index row = 0; row < rows->rows(); ++row) {
    const std::string place = where + ":" + std::to_string(rows->line(row));
    for (std::size_t i = 0; i < names.size(); ++i)
      if (auto sound = check_text(place, names[i], rows->at(row, static_cast<index>(i))); !sound)
        return sound.error();
    result<eval_item> item = read(row, place);
    if (!item) return item.error();
    items.push_back(*std::move(item));
  }
  return some_items(std::move(items), where);
}

/// A question in the format of LLM-Adapters (Hu et al. 2023): `intro`, the question, an empty line,
/// "<Word>1: … <Word>2: …". Behind `gap` comes "Answer format: <word>1/<word>2". `answer` is
/// "<word>1". The options' texts must not hold the next option's "<Word>k: ".
inline result<eval_item> instructed_item(const table& rows, index row, std::string_view intro,
                                         std::string_view word, std::string_view gap) {
  const std::string_view text = rows.at(row, 0), answer = rows.at(row, 1);
  const auto wrong = [&](std::string expected, std::string_view got) {
    return rows.wrong(row, "instruction", std::move(expected), got);
  };
  std::string capital(word);
  capital[0] = static_cast<char>(capital[0] - 'a' + 'A');
  if (!text.starts_with(intro)) return wrong("\"" + std::string(intro) + "…\"", text);
  const std::string format = std::string(gap) + "Answer format: ";
  const std::size_t end = text.rfind(format), first = text.find("\n\n" + capital + "1: ");
  // Between them stands at least "\n<Word>1: ".
  if (end == text.npos || first == text.npos || first + capital.size() + 5 > end)
    return wrong("a question, \"" + capital + "1: …\" and \"Answer format: …\"",
                 text.substr(text.size() - (std::min)(text.size(), std::size_t{60})));
  eval_item item{.context =
                     std::string(without_blanks(text.substr(intro.size(), first - intro.size())))};
  std::string named;
  std::string_view rest = text.substr(first + 1, end - first - 1);
  for (int k = 1; !rest.empty(); ++k) {
    rest.remove_prefix(capital.size() + 4);  // the character before the word, the number, ": "
    const std::string next = " " + capital + std::to_string(k + 1) + ": ";
    const std::size_t stop = (std::min)(rest.find(next), rest.size());
    item.options.emplace_back(without_blanks(rest.substr(0, stop)));
    if (item.options.back().empty()) return wrong("a text of option " + std::to_string(k), "none");
    rest.remove_prefix(stop);
    named += (k == 1 ? "" : "/") + std::string(word) + std::to_string(k);
    if (k == 9 && !rest.empty()) return wrong("at most 9 options", "more");
  }
  if (text.substr(end + format.size()) != named)
    return wrong("\"Answer format: " + named + "\" for these options",
                 text.substr(end + format.size()));
  item.answer = answer.size() == word.size() + 1 && answer.starts_with(word) ? answer.back() - '1'
                                                                             : index{-1};
  if (item.answer < 0 || item.answer >= std::ssize(item.options))
    return rows.wrong(row, "answer", "one of " + named, answer);
  if (item.options.size() < 2) return wrong("at least two options", "one");
  return item;
}

}  // namespace detail

/// Reads BLiMP (Warstadt et al. 2020): JSON lines with sentence_good, sentence_bad and
/// linguistics_term. That term is the group: the paper's 12 phenomena and "s-selection". The good
/// sentence comes first in every other pair: ties go to the first option, and must not be worth
/// anything. Seven of the 67,000 published pairs are twice the same sentence; they stay, as
/// everywhere. Errors, of all readers here: errc::malformed, naming file, line and field.
inline result<std::vector<eval_item>> read_blimp(std::string_view text,
                                                 const std::string& where) LINNET_TRY {
  const std::vector<std::string> names{"sentence_good", "sentence_bad", "linguistics_term"};
  const auto rows = parse_json_lines(text, names, where);
  return detail::items_of(rows, where, names, [&](index row, const auto&) -> result<eval_item> {
    const std::string good(rows->at(row, 0)), bad(rows->at(row, 1));
    eval_item item{.answer = row % 2, .group = std::string(rows->at(row, 2))};
    item.options = item.answer == 0 ? std::vector{good, bad} : std::vector{bad, good};
    return item;
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads ARC (Clark et al. 2018) in the format of LLM-Adapters: an array of objects with
/// instruction and answer. An instruction is "Please choose the correct answer to the question: …
/// Answer1: … Answer format: …", an answer "answer1". The context is the question alone.
inline result<std::vector<eval_item>> read_arc(std::string_view text,
                                               const std::string& where) LINNET_TRY {
  const std::vector<std::string> names{"instruction", "answer"};
  const auto rows = parse_json_array(text, names, where);
  return detail::items_of(rows, where, names, [&](index row, const auto&) {
    return detail::instructed_item(
        *rows, row, "Please choose the correct answer to the question: ", "answer", "\n\n");
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads WinoGrande (Sakaguchi et al. 2020) in the format of LLM-Adapters. The context is what
/// stands before the blank "_", the ending what stands behind it. `choice_by::whole` compares the
/// filled-in sentences. `choice_by::continuation` compares how well each filler explains what
/// follows ("partial scoring", Trinh and Le 2018).
inline result<std::vector<eval_item>> read_winogrande(std::string_view text,
                                                      const std::string& where) LINNET_TRY {
  const std::vector<std::string> names{"instruction", "answer"};
  const auto rows = parse_json_array(text, names, where);
  return detail::items_of(rows, where, names, [&](index row, const auto&) -> result<eval_item> {
    auto item = detail::instructed_item(
        *rows, row,
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
        "option", " ");
    if (!item) return item;
    const std::string sentence = item->context;
    const std::size_t blank = sentence.find('_');
    if (blank == sentence.npos || sentence.find('_', blank + 1) != sentence.npos)
      return rows->wrong(row, "instruction", "one blank _ in the sentence", sentence);
    item->context = detail::without_blanks(std::string_view(sentence).substr(0, blank));
    item->ending = sentence.substr(blank + 1);
    if (detail::without_blanks(item->ending).empty()) item->ending.clear();
    return item;
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads LAMBADA (Paperno et al. 2016): JSON lines with text. The only option is the last word, the
/// context all before it.
inline result<std::vector<eval_item>> read_lambada(std::string_view text,
                                                   const std::string& where) LINNET_TRY {
  const std::vector<std::string> names{"text"};
  const auto rows = parse_json_lines(text, names, where);
  return detail::items_of(rows, where, names, [&](index row, const auto&) -> result<eval_item> {
    const std::string_view all = detail::without_blanks(rows->at(row, 0));
    const std::size_t space = all.find_last_of(" \n\t");
    if (space == all.npos) return rows->wrong(row, "text", "at least two words", all);
    return eval_item{.context = std::string(detail::without_blanks(all.substr(0, space))),
                     .options = {std::string(all.substr(space + 1))}};
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads GSM8K (Cobbe et al. 2021): JSON lines with question and answer. The only option is the
/// number that the answer states, in the spelling of parse_gsm8k_answer().
inline result<std::vector<eval_item>> read_gsm8k(std::string_view text,
                                                 const std::string& where) LINNET_TRY {
  const std::vector<std::string> names{"question", "answer"};
  const auto rows = parse_json_lines(text, names, where);
  return detail::items_of(rows, where, names, [&](index row, const auto&) -> result<eval_item> {
    const std::string number = parse_gsm8k_answer(rows->at(row, 1));
    if (number.empty())
      return rows->wrong(row, "answer", "a number behind \"####\"", rows->at(row, 1));
    return eval_item{.context = std::string(detail::without_blanks(rows->at(row, 0))),
                     .options = {number}};
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
/// @file
/// Directories saved by Hugging Face Transformers: config.json and model.safetensors, or its
/// shards.

/// @file
/// Hugging Face's config.json compared with a model type field by field, and written.

/// @file
/// Hugging Face's config.json as a table of fields.

#include <cstddef>
#include <limits>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// A field and its value as JSON text; numbers also as the nearest float.
struct hf_entry {
  std::string key, value, as_float{};
};
}  // namespace detail

/// The fields of a config.json: those of the outermost object, and of its objects "rope_parameters"
/// and "rope_scaling" as "rope_parameters.rope_theta". Other nested values only count as present.
class hf_config {
 public:
  /// The value of a field as JSON text (numbers in their shortest form), or null if it is absent or
  /// null.
  const std::string* find(std::string_view key) const {
    const detail::hf_entry* const field = entry(key);
    return field ? &field->value : nullptr;
  }
  /// The value of a field as JSON text, rounded to a float if it is a number; null as for find().
  const std::string* find_float(std::string_view key) const {
    const detail::hf_entry* const field = entry(key);
    return field ? &field->as_float : nullptr;
  }
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

 private:
  friend result<hf_config> parse_hf_config(std::span<const std::byte>, const std::string&);
  std::string where_;
  std::vector<detail::hf_entry> fields_;  ///< by key

  const detail::hf_entry* entry(std::string_view key) const {
    const auto at =
        std::lower_bound(fields_.begin(), fields_.end(), key,
                         [](const detail::hf_entry& a, std::string_view b) { return a.key < b; });
    return at != fields_.end() && at->key == key && at->value != "null" ? &*at : nullptr;
  }
};

namespace detail {

/// Longest config.json that is read, in bytes, and its deepest nesting.
inline constexpr std::size_t longest_config = 128 * 1024;
inline constexpr int deepest_config = 32;

/// A number as the text of the nearest float: equal for all spellings of what a float can hold.
inline std::string float_text(double x) {
  constexpr auto most = static_cast<double>((std::numeric_limits<float>::max)());
  return number_text(x > most || x < -most ? x : static_cast<double>(static_cast<float>(x)));
}

/// Collects the events of a config.json.
struct config_reader {
  explicit config_reader(const std::string& file) : where(file) {}

  std::string where;
  std::vector<hf_entry> fields{};
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == deepest_config)
      return fail("content", "at most " + std::to_string(deepest_config) + " levels", "more");
    if (depth == 1 || (depth == 2 && !inner.empty())) {
      const std::string nested = array ? "[...]" : "{...}";
      fields.push_back({name, nested, nested});
      if (depth == 1 && !array && (name == "rope_parameters" || name == "rope_scaling"))
        inner = name + ".";
    }
    ++depth;
    return true;
  }
  bool close() {
    if (--depth == 1) inner.clear();
    return true;
  }
  bool key(std::string_view text) {
    if (depth == 1) name = text;
    if (depth == 2 && !inner.empty()) name = inner + std::string(text);
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1 || (depth == 2 && !inner.empty()))
      fields.push_back(
          {name, value.text(),
           value.kind == json_scalar::kinds::number ? float_text(value.number) : value.text()});
    return true;
  }

 private:
  int depth = 0;
  std::string name{}, inner{};

  bool fail(const char* what, std::string expected, std::string got) {
    failure = {errc::malformed, where, what, std::move(expected), std::move(got)};
    return false;
  }
};

}  // namespace detail

/// Parses a config.json held in memory: at most 128 KiB, 32 levels, no field twice. `where` names
/// it in errors. Errors: errc::malformed, errc::unsupported.
inline result<hf_config> parse_hf_config(std::span<const std::byte> text,
                                         const std::string& where = "config.json") LINNET_TRY {
  detail::config_reader reader(where);
  if (auto read = detail::read_json(text, detail::longest_config, where, "content", reader); !read)
    return read.error();
  std::sort(reader.fields.begin(), reader.fields.end(),
            [](const auto& a, const auto& b) { return a.key < b.key; });
  for (std::size_t i = 1; i < reader.fields.size(); ++i)
    if (reader.fields[i].key == reader.fields[i - 1].key)
      return error{errc::malformed, where, detail::printable(reader.fields[i].key),
                   "each field once", "this one twice"};
  hf_config config;
  config.where_ = where;
  config.fields_ = std::move(reader.fields);
  return config;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a config.json. Errors: those of read_file() and parse_hf_config().
inline result<hf_config> read_hf_config(const std::string& path) LINNET_TRY {
  const auto bytes = read_file(path);
  return bytes ? parse_hf_config(*bytes, path) : result<hf_config>(bytes.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A field that a config.json must have for a model type. Values are JSON texts.
struct hf_field {
  std::vector<std::string> keys;    ///< the field, then other places for the same fact
  std::vector<std::string> values;  ///< the value, then other spellings of it
  std::string absent{};             ///< what Hugging Face assumes without the field
  std::string as_float{};           ///< of a real number, which is compared as a float
  bool written = true;              ///< make_hf_config() writes it

  /// Accepts the value also under another key.
  hf_field& or_at(const std::string& key) {
    keys.push_back(key);
    return *this;
  }
  /// Makes the field optional: compared where it is present, and never written.
  void only_read() { written = false; }
};

/// Hugging Face's names of an activation.
inline std::vector<std::string> hf_activation(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return {"relu"};
    case activation_kind::gelu:
      return {"gelu", "gelu_python"};
    case activation_kind::gelu_tanh:
      return {"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"};
    case activation_kind::tanh:
      return {"tanh"};
    case activation_kind::relu_squared:
      return {"relu2"};
    default:
      return {"silu", "swish"};
  }
}

/// Builder of a list of fields.
struct hf_fields {
  std::vector<hf_field> all{};

  hf_field& text(const std::string& key, const std::vector<std::string>& values,
                 std::string_view absent) {
    all.push_back({{key}, {}, json_quoted(absent)});
    for (const std::string& value : values) all.back().values.push_back(json_quoted(value));
    return all.back();
  }
  hf_field& number(const std::string& key, index value, index absent) {
    return add(key, std::to_string(value), std::to_string(absent));
  }
  hf_field& real(const std::string& key, double value, double absent) {
    hf_field& field = add(key, number_text(value), number_text(absent));
    field.as_float = float_text(value);
    return field;
  }
  hf_field& truth(const std::string& key, bool value, bool absent) {
    return add(key, value ? "true" : "false", absent ? "true" : "false");
  }
  /// A field that must not be there, unless it is null.
  void none(const std::string& key) { add(key, "null", "null").only_read(); }

 private:
  hf_field& add(const std::string& key, std::string value, std::string absent) {
    all.push_back({{key}, {std::move(value)}, std::move(absent)});
    return all.back();
  }
};

template <class M>
void t5_fields(hf_fields& to, bool untied_by_scale, bool mt5) {
  constexpr t5_shape s = M::shape;
  // mT5 of Transformers 5 never scales the input of its head, as no tied type here does.
  to.text("model_type", {"t5"}, "t5");
  if (!M::tied) to.all.back().values.push_back(json_quoted("mt5"));
  to.number("vocab_size", s.vocabulary, mt5 ? 250112 : 32128);
  to.number("d_model", s.d_model, 512).or_at("hidden_size");
  to.number("d_kv", s.d_kv, 64).or_at("head_dim");
  to.number("d_ff", s.d_ff, mt5 ? 1024 : 2048);
  to.number("num_layers", s.encoder_layers, mt5 ? 8 : 6).or_at("num_hidden_layers");
  to.number("num_decoder_layers", s.decoder_layers, s.encoder_layers);
  to.number("num_heads", s.heads, mt5 ? 6 : 8).or_at("num_attention_heads");
  to.number("relative_attention_num_buckets", s.buckets, 32);
  to.number("relative_attention_max_distance", s.max_distance, 128);
  to.real("layer_norm_epsilon", s.eps, 1e-6);
  using ffn = ffn_metadata<typename M::encoder_ffn>;
  const auto names = hf_activation(ffn::activation);
  const std::string gated = ffn::gated ? "gated-" : "";
  std::vector<std::string> forms;
  // There, "gated-gelu" is the tanh form.
  if (ffn::gated && ffn::activation == activation_kind::gelu_tanh) forms = {"gated-gelu"};
  for (const std::string& name : names)
    if (gated + name != "gated-gelu") forms.push_back(gated + name);
  // Transformers takes these two from the field below, but follows them if they differ.
  to.text("dense_act_fn", names, names[0]);
  to.truth("is_gated_act", ffn::gated, ffn::gated);
  to.text("feed_forward_proj", forms, mt5 ? "gated-gelu" : "relu");
  // Newer files say of an untied head only that its input is not scaled.
  if (!untied_by_scale) to.truth("tie_word_embeddings", M::tied, !mt5);
  to.truth("scale_decoder_outputs", M::tied, M::tied).only_read();
  to.truth("tie_encoder_decoder", false, false).only_read();
  to.number("decoder_start_token_id", M::start, 0);
  to.number("pad_token_id", M::start, 0);
}

template <class M>
void llama_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  constexpr bool mixtral = hf_kind_of<M>() == hf_kind::mixtral;
  const std::string name = mixtral ? "mixtral" : "llama";
  to.text("model_type", {name}, name);
  to.number("vocab_size", s.vocabulary, 32000);
  to.number("hidden_size", s.d_model, 4096);
  to.number("intermediate_size", s.d_ff, mixtral ? 14336 : 11008);
  to.number("num_hidden_layers", s.layers, 32);
  to.number("num_attention_heads", s.heads, 32);
  to.number("num_key_value_heads", s.kv_heads, mixtral ? 8 : s.heads);
  to.number("head_dim", s.head_width(), s.d_model / s.heads);
  to.number("max_position_embeddings", s.context, mixtral ? 131072 : 2048);
  to.real("rms_norm_eps", s.eps, mixtral ? 1e-5 : 1e-6);
  to.real("rope_theta", s.rope_theta, mixtral ? 1e6 : 10000)
      .or_at("rope_parameters.rope_theta")
      .or_at("rope_scaling.rope_theta");
  to.real("partial_rotary_factor", 1, 1)
      .or_at("rope_parameters.partial_rotary_factor")
      .or_at("rope_scaling.partial_rotary_factor")
      .only_read();
  for (const std::string scaling : {"rope_parameters", "rope_scaling"}) {
    to.all.push_back({{scaling}, {"{...}"}, "{...}"});
    to.all.back().only_read();
    to.text(scaling + ".rope_type", {"default"}, "default").or_at(scaling + ".type").only_read();
    to.real(scaling + ".factor", 1, 1).only_read();
    for (const char* const layers : {".full_attention", ".sliding_attention"})
      to.none(scaling + layers);
  }
  if constexpr (mixtral) {
    using ffn = typename M::ffn;
    to.number("num_local_experts", ffn::all_experts, 8).or_at("num_experts");
    to.number("num_experts_per_tok", ffn::active_experts, 2);
    to.none("sliding_window");
    to.text("hidden_act", hf_activation(ffn_metadata<typename ffn::expert>::activation), "silu");
  } else {
    to.text("hidden_act", hf_activation(ffn_metadata<typename M::ffn>::activation), "silu");
    to.truth("attention_bias", M::biased, false);
    to.truth("mlp_bias", M::biased, false);
  }
  to.truth("tie_word_embeddings", M::tied, false);
}

template <class M>
void gpt2_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  to.text("model_type", {"gpt2"}, "gpt2");
  to.number("vocab_size", s.vocabulary, 50257);
  to.number("n_positions", s.context, 1024).or_at("max_position_embeddings");
  to.number("n_embd", s.d_model, 768).or_at("hidden_size");
  to.number("n_layer", s.layers, 12).or_at("num_hidden_layers");
  to.number("n_head", s.heads, 12).or_at("num_attention_heads");
  to.number("n_inner", s.d_ff, 4 * s.d_model);
  to.real("layer_norm_epsilon", s.eps, 1e-5);
  to.text("activation_function", hf_activation(ffn_metadata<typename M::ffn>::activation),
          "gelu_new");
  to.truth("scale_attn_weights", true, true);
  to.truth("scale_attn_by_inverse_layer_idx", false, false);
  to.truth("add_cross_attention", false, false);
  to.truth("tie_word_embeddings", M::tied, true);
}

template <class M>
void mamba_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  using mixer = typename M::attention;
  to.text("model_type", {"mamba"}, "mamba");
  to.number("vocab_size", s.vocabulary, 50280);
  to.number("hidden_size", s.d_model, 768);
  to.number("state_size", mixer::state, 16);
  to.number("num_hidden_layers", s.layers, 32);
  to.number("conv_kernel", mixer::conv, 4);
  to.number("expand", mixer::expand, 2);
  to.number("intermediate_size", mixer::expand * s.d_model, mixer::expand * s.d_model).only_read();
  constexpr index rank = mixer::template layer<M::self>::rank;
  to.number("time_step_rank", rank, rank).values.push_back(json_quoted("auto"));
  to.real("layer_norm_epsilon", s.eps, 1e-5);
  to.text("hidden_act", {"silu", "swish"}, "silu");
  to.truth("use_bias", M::biased, false);
  to.truth("use_conv_bias", true, true);
  to.truth("tie_word_embeddings", M::tied, true);
}

template <class M>
void encoder_fields(hf_fields& to, hf_kind kind) {
  constexpr encoder_shape s = M::shape;
  const auto activation = hf_activation(ffn_metadata<typename M::ffn>::activation);
  if (kind == hf_kind::distilbert) {
    to.text("model_type", {"distilbert"}, "distilbert");
    to.number("vocab_size", s.vocabulary, 30522);
    to.number("dim", s.d_model, 768).or_at("hidden_size");
    to.number("hidden_dim", s.d_ff, 3072);
    to.number("n_layers", s.layers, 6).or_at("num_hidden_layers");
    to.number("n_heads", s.heads, 12).or_at("num_attention_heads");
    to.number("max_position_embeddings", s.context, 512);
    to.text("activation", activation, "gelu");
  } else {
    const bool albert = kind == hf_kind::albert;
    const bool roberta = kind == hf_kind::roberta;
    const std::string name = albert ? "albert" : roberta ? "roberta" : "bert";
    to.text("model_type", {name}, name);
    if (roberta)
      for (const char* const kin : {"xlm-roberta", "camembert"})
        to.all.back().values.push_back(json_quoted(kin));
    to.number("vocab_size", s.vocabulary, albert ? 30000 : roberta ? 50265 : 30522);
    if (albert) {
      to.number("embedding_size", M::width, 128);
      to.number("num_hidden_groups", 1, 1);
      to.number("inner_group_num", 1, 1);
    }
    to.number("hidden_size", s.d_model, albert ? 4096 : 768);
    to.number("intermediate_size", s.d_ff, albert ? 16384 : 3072);
    to.number("num_hidden_layers", s.layers, 12);
    to.number("num_attention_heads", s.heads, albert ? 64 : 12);
    to.number("max_position_embeddings", s.context + s.position_offset, 512);
    // The first token stands behind the padding's position.
    if (roberta) to.number("pad_token_id", s.position_offset - 1, 1);
    to.number("type_vocab_size", s.types, 2);
    to.real("layer_norm_eps", s.eps, 1e-12);
    to.text("hidden_act", activation, albert ? "gelu_new" : "gelu");
    to.text("position_embedding_type", {"absolute"}, "absolute").only_read();
    to.truth("is_decoder", false, false).only_read();
    to.truth("add_cross_attention", false, false).only_read();
  }
  if (M::masked) to.truth("tie_word_embeddings", true, true).or_at("tie_weights_").only_read();
}

/// Fields of the config.json of model type `M`. `file`: the one at hand, if any.
template <class M>
hf_fields fields_of(const hf_config* file) {
  constexpr hf_kind kind = hf_kind_of<M>();
  hf_fields fields;
  if constexpr (kind == hf_kind::t5) {
    const auto says = [&](const char* key, std::string_view value) {
      const std::string* const got = file ? file->find(key) : nullptr;
      return got && *got == value;
    };
    t5_fields<M>(fields, !M::tied && says("scale_decoder_outputs", "false"),
                 says("model_type", "\"mt5\""));
  } else if constexpr (kind == hf_kind::llama || kind == hf_kind::mixtral) {
    llama_fields<M>(fields);
  } else if constexpr (kind == hf_kind::mamba) {
    mamba_fields<M>(fields);
  } else if constexpr (kind == hf_kind::gpt2) {
    gpt2_fields<M>(fields);
  } else if constexpr (is_encoder_kind(kind)) {
    encoder_fields<M>(fields, kind);
  }
  fields.none("quantization_config");
  return fields;
}

inline result<void> check_fields(const hf_config& config, const hf_fields& fields) {
  for (const hf_field& field : fields.all) {
    const std::string expected = field.values[0] + " (the model type)";
    bool present = false;
    for (const std::string& key : field.keys) {
      const std::string* const got = config.find(key);
      if (!got) continue;
      present = true;
      if (std::find(field.values.begin(), field.values.end(), *got) != field.values.end()) continue;
      if (!field.as_float.empty() && *config.find_float(key) == field.as_float) continue;
      return error{errc::mismatch, config.where(), key, expected, *got};
    }
    if (present ||
        std::find(field.values.begin(), field.values.end(), field.absent) != field.values.end())
      continue;
    return error{errc::mismatch, config.where(), field.keys[0], expected,
                 "no such field, which means " + field.absent};
  }
  return {};
}

}  // namespace detail

/// Compares a config.json with model type `M`. The first field that differs is the error
/// (errc::mismatch), with the file's value and the type's; an absent one has Hugging Face's
/// default. Fields that do not change what the weights compute, such as dropout rates, are not
/// compared.
template <class M>
result<void> check_config(const hf_config& config) LINNET_TRY {
  if constexpr (detail::fits_hugging_face<true, M, storage::f32>())
    return detail::check_fields(config, detail::fields_of<M>(&config));
  else
    return {};
}
LINNET_OR_OUT_OF_MEMORY(config.where())

/// The config.json of model type `M` that Transformers reads.
template <class M>
std::string make_hf_config() {
  static_assert(detail::fits_hugging_face<true, M, storage::f32>());
  constexpr hf_kind kind = hf_kind_of<M>();
  constexpr std::string_view classes[] = {"",
                                          "T5ForConditionalGeneration",
                                          "LlamaForCausalLM",
                                          "MixtralForCausalLM",
                                          "GPT2LMHeadModel",
                                          "MambaForCausalLM",
                                          "Bert",
                                          "DistilBert",
                                          "Albert",
                                          "Roberta"};
  std::string name(classes[static_cast<int>(kind)]);
  if constexpr (detail::is_encoder<M>)
    name += M::masked               ? "ForMaskedLM"
            : M::head::classes == 0 ? "Model"
            : M::label_per_sequence ? "ForSequenceClassification"
                                    : "ForTokenClassification";
  std::string text = "{\n  \"architectures\": [\n    " + detail::json_quoted(name) + "\n  ]";
  for (const detail::hf_field& field : detail::fields_of<M>(nullptr).all)
    if (field.written)
      text += ",\n  " + detail::json_quoted(field.keys[0]) + ": " + field.values[0];
  if constexpr (kind == hf_kind::t5)
    text += ",\n  \"eos_token_id\": 1,\n  \"is_encoder_decoder\": true";
  if constexpr (detail::is_encoder<M>)
    if (M::head::classes > 0) {  // the number of labels, by their names
      std::string names, ids;
      for (index c = 0; c < M::head::classes; ++c) {
        const std::string id = std::to_string(c), label = "\"LABEL_" + id + "\"",
                          comma = c > 0 ? ", " : "";
        names += comma + "\"" + id + "\": " + label;
        ids += comma + label + ": " + id;
      }
      text += ",\n  \"id2label\": {" + names + "},\n  \"label2id\": {" + ids + "}";
    }
  return text + "\n}\n";
}

LINNET_NAMESPACE_END
/// @file
/// Safetensors in several files, as Hugging Face saves large models: shards, and an index of the
/// tensors in them.

/// @file
/// Safetensors files: a strict reader that trusts nothing in the file, and a deterministic writer.
/// Opt-in, through linnet/json.hpp (needs nlohmann/json).

#include <functional>
#include <map>

LINNET_NAMESPACE_BEGIN

/// One tensor of a safetensors file: its name, type and shape, and a view of its values in the
/// file's bytes.
struct tensor_record {
  static constexpr index most_dimensions = 8;

  std::string name;
  dtype type = dtype::f32;
  std::array<index, most_dimensions> call_shape{};
  index dimensions = 0;
  std::span<const std::byte> data{};  ///< row-major, little-endian, perhaps not aligned

  /// Extents of the tensor.
  std::span<const index> shape() const {
    return {call_shape.data(), static_cast<std::size_t>(dimensions)};
  }
  /// Number of values.
  index size() const { return std::ssize(data) / size_of(type); }
  /// Type and shape for messages, such as "F32 [4, 24]".
  std::string description() const {
    std::string text = std::string(name_of(type)) + " [";
    for (const index n : shape()) text += (text.back() == '[' ? "" : ", ") + std::to_string(n);
    return text + "]";
  }
};

/// A parsed safetensors file, or several with one index. It views the bytes it was parsed from, or
/// owns them if it was read from a path. Movable.
class safetensors {
 public:
  /// The tensors, sorted by name.
  std::span<const tensor_record> tensors() const { return tensors_; }
  /// The tensor of that name, or null.
  const tensor_record* find(std::string_view name) const {
    const auto at =
        std::lower_bound(tensors_.begin(), tensors_.end(), name,
                         [](const tensor_record& a, std::string_view b) { return a.name < b; });
    return at != tensors_.end() && at->name == name ? &*at : nullptr;
  }
  /// The texts under "__metadata__".
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

  /// All values of a tensor as `T`: float or double from F16, BF16, F32 or F64; 32- or 64-bit
  /// signed integers from I32. I64 is read where the values fit. Errors: errc::missing,
  /// errc::mismatch.
  template <class T>
  result<std::vector<T>> values(std::string_view name) const LINNET_TRY {
    constexpr bool real = std::is_floating_point_v<T>;
    const tensor_record* const from = find(name);
    if (!from)
      return detail::failure(errc::missing, where_, std::string(name), "a tensor of this name",
                             "none");
    std::vector<T> all(static_cast<std::size_t>(from->size()));
    if (real && is_real(from->type)) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        double x = 0;
        detail::decode_reals(from->type,
                             from->data.data() + i * static_cast<std::size_t>(size_of(from->type)),
                             1, 1, &x);
        all[i] = static_cast<T>(x);
      }
    } else if (!real && (from->type == dtype::i32 || from->type == dtype::i64)) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::int64_t x = from->type == dtype::i32
                                   ? detail::load_as<std::int32_t>(from->data.data() + i * 4)
                                   : detail::load_as<std::int64_t>(from->data.data() + i * 8);
        all[i] = static_cast<T>(x);
        if (static_cast<std::int64_t>(all[i]) != x)
          return detail::failure(errc::mismatch, where_, from->name,
                                 "values of " + std::to_string(8 * sizeof(T)) + " bits",
                                 std::to_string(x));
      }
    } else {
      return detail::failure(errc::mismatch, where_, from->name,
                             real ? "F16, BF16, F32 or F64" : "I32 or I64", from->description());
    }
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  friend result<safetensors> parse_safetensors(lasting_span<const std::byte>, const std::string&);
  friend result<safetensors> read_safetensors(const std::string&);
  friend result<safetensors> read_safetensors_shards(const std::string&);
  std::vector<file_bytes> owned_;  ///< one, of shards one for each
  std::string where_;
  std::vector<tensor_record> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

namespace detail {

/// Longest header that is read; a tensor takes about 130 bytes of it.
inline constexpr std::size_t longest_safetensors_header = 512 * 1024;

/// Collects the header's events into records, whose data are still empty.
struct safetensors_header {
  struct entry {
    tensor_record record{};
    std::array<std::uint64_t, 2> range{};  ///< data_offsets
  };
  explicit safetensors_header(const std::string& file) : where(file) {}

  std::string where;
  std::vector<entry> tensors{};
  std::map<std::string, std::string, std::less<>> metadata{};
  error failure{};

  bool open(bool array) {
    ++depth;
    if (depth == 1) return !array || fail("header", "a JSON object", "an array");
    if (depth == 2) return !array || fail(name, "a JSON object", "an array");
    elements = 0;
    if (depth == 3 && array && (field == "shape" || field == "data_offsets")) return true;
    return fail(subject(), expected(), array ? "an array" : "an object");
  }

  bool key(std::string_view text) {
    if (depth == 1) {
      name = text;
      in_metadata = text == "__metadata__";
      seen_type = seen_shape = seen_offsets = false;
      if (!in_metadata) {
        tensors.emplace_back().record.name = text;
        return true;
      }
      return !std::exchange(seen_metadata, true) ||
             fail("__metadata__", "each name once", "this one twice");
    }
    field = text;
    if (in_metadata)
      return metadata.emplace(field, "").second ||
             fail(subject(), "each key once", "this one twice");
    bool* const seen = text == "dtype"          ? &seen_type
                       : text == "shape"        ? &seen_shape
                       : text == "data_offsets" ? &seen_offsets
                                                : nullptr;
    if (!seen) return fail(name, "dtype, shape and data_offsets", printable(text));
    return !std::exchange(*seen, true) || fail(subject(), "each key once", "this one twice");
  }

  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("header", "a JSON object", value.text());
    if (depth == 1) return fail(name, "a JSON object", value.text());
    if (in_metadata) {
      if (value.kind != json_scalar::kinds::text) return fail(subject(), expected(), value.text());
      metadata.find(field)->second = value.string;
      return true;
    }
    if (depth == 2) {
      if (field != "dtype") return fail(subject(), expected(), value.text());
      for (std::size_t i = 0; i < dtype_table.size(); ++i)
        if (value.kind == json_scalar::kinds::text && dtype_table[i].name == value.string) {
          tensors.back().record.type = static_cast<dtype>(i);
          return true;
        }
      return fail(subject(), expected(), value.text());
    }
    // A number in an array.
    if (!value.whole || value.count > std::uint64_t{PTRDIFF_MAX})
      return fail(subject(), expected(), value.text());
    if (field == "data_offsets") {
      if (elements == 2) return fail(subject(), expected(), "more");
      tensors.back().range[elements++] = value.count;
    } else {
      if (elements == tensor_record::most_dimensions)
        return fail(subject(),
                    "at most " + std::to_string(tensor_record::most_dimensions) + " dimensions",
                    "more");
      tensors.back().record.call_shape[elements++] = static_cast<index>(value.count);
      tensors.back().record.dimensions = static_cast<index>(elements);
    }
    return true;
  }

  bool close() {
    --depth;
    if (depth == 2 && field == "data_offsets" && elements != 2)
      return fail(subject(), expected(), std::to_string(elements));
    if (depth != 1 || in_metadata) return true;
    const char* const absent = !seen_type      ? "dtype"
                               : !seen_shape   ? "shape"
                               : !seen_offsets ? "data_offsets"
                                               : nullptr;
    return !absent || fail(name + ": " + absent, "one in every tensor", "none");
  }

 private:
  int depth = 0;
  std::string name{}, field{};
  bool in_metadata = false, seen_metadata = false, seen_type = false, seen_shape = false,
       seen_offsets = false;
  std::size_t elements = 0;

  std::string subject() const { return name + ": " + field; }
  const char* expected() const {
    if (in_metadata) return "a text";
    if (field == "dtype")
      return "BOOL, U8, I8, F8_E4M3, F8_E5M2, U16, I16, F16, BF16, U32, I32, F32, U64, I64 or F64";
    return field == "shape" ? "whole numbers from 0 up" : "two whole numbers from 0 up";
  }
  bool fail(const std::string& what, std::string expects, std::string got) {
    failure = {errc::malformed, where, printable(what), std::move(expects), std::move(got)};
    return false;
  }
};

/// Sorts the tensors by name, and checks their ranges in `size` bytes of values.
inline result<void> check_ranges(std::vector<safetensors_header::entry>& tensors,
                                 std::uint64_t size, const std::string& where) {
  const auto wrong = [&](const tensor_record& at, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(errc::malformed, where, printable(at.name).append(what), expected, got);
  };
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.record.name < b.record.name; });
  for (std::size_t i = 1; i < tensors.size(); ++i)
    if (tensors[i].record.name == tensors[i - 1].record.name)
      return wrong(tensors[i].record, "", "each name once", "this one twice");

  std::vector<std::uint32_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
  std::sort(order.begin(), order.end(),
            [&](auto a, auto b) { return tensors[a].range < tensors[b].range; });
  std::uint64_t end = 0;
  for (const std::uint32_t i : order) {
    const tensor_record& tensor = tensors[i].record;
    const auto [first, last] = tensors[i].range;
    if (last < first)
      return wrong(tensor, ": data_offsets", "an end behind the beginning " + std::to_string(first),
                   std::to_string(last));
    if (first != end)
      return wrong(tensor, ": data_offsets",
                   "to begin at " + std::to_string(end) + ", the end of the tensor before",
                   std::to_string(first) + (first < end ? ", an overlap" : ", a gap"));
    if (last > size)
      return wrong(tensor, ": data_offsets",
                   "an end within the " + std::to_string(size) + " bytes of values",
                   std::to_string(last));
    std::uint64_t bytes = static_cast<std::uint64_t>(size_of(tensor.type));
    for (const index n : tensor.shape())
      if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(n), &bytes))
        return wrong(tensor, ": shape", "a size below 2^64 bytes", tensor.description());
    if (bytes != last - first)
      return wrong(tensor, ": data_offsets",
                   std::to_string(bytes) + " bytes for " + tensor.description(),
                   std::to_string(last - first));
    end = last;
  }
  if (end != size)
    return detail::failure(errc::malformed, where, "values",
                           std::to_string(end) + " bytes, the end of the last tensor",
                           std::to_string(size));
  return {};
}

/// Parses the header of a file with `size` bytes of values; writers check theirs with it too.
inline result<safetensors_header> read_safetensors_header(std::span<const std::byte> text,
                                                          std::uint64_t size,
                                                          const std::string& where) {
  while (!text.empty() && text.back() == std::byte{' '}) text = text.first(text.size() - 1);
  if (text.empty() || text.front() != std::byte{'{'})
    return detail::failure(errc::malformed, where, "header", "to begin with {",
                           text.empty() ? "nothing" : "another character");
  if (!has_memory_to_read(text.size())) return out_of_memory(where);
  safetensors_header header(where);
  if (auto read = read_json(text, longest_safetensors_header, where, "header", header); !read)
    return read.error();
  if (auto checked = check_ranges(header.tensors, size, where); !checked) return checked.error();
  return header;
}

}  // namespace detail

/// Parses a safetensors file held in memory, which must outlive the result. Checked: the length of
/// the header, its JSON and types, duplicate names and keys, and that the tensors fill the file
/// without gap or overlap. Header up to 512 KiB, 8 dimensions. `where` names the file in errors.
inline result<safetensors> parse_safetensors(lasting_span<const std::byte> file,
                                             const std::string& where = "safetensors") LINNET_TRY {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, where, what, expected, got);
  };
  if (file.size() < 8)
    return wrong(errc::malformed, "file size", "at least 8 bytes", std::to_string(file.size()));
  const auto length = detail::load_as<std::uint64_t>(file.data());
  if (length > file.size() - 8)
    return wrong(errc::malformed, "header length",
                 "at most the " + std::to_string(file.size() - 8) + " bytes that follow",
                 std::to_string(length));
  const auto values = file.subspan(8 + length);
  if (!detail::has_memory_to_read(length)) return detail::out_of_memory(where);
  auto header = detail::read_safetensors_header(file.subspan(8, length), values.size(), where);
  if (!header) return header.error();
  safetensors parsed;
  parsed.where_ = where;
  parsed.metadata_ = std::move(header->metadata);
  parsed.tensors_.reserve(header->tensors.size());
  for (auto& [record, range] : header->tensors) {
    parsed.tensors_.push_back(std::move(record));
    parsed.tensors_.back().data = values.subspan(range[0], range[1] - range[0]);
  }
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads and parses a safetensors file. Errors: those of read_file() and parse_safetensors().
inline result<safetensors> read_safetensors(const std::string& path) LINNET_TRY {
  auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  auto parsed = parse_safetensors(*bytes, path);
  if (parsed) parsed->owned_.push_back(std::move(*bytes));
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(path)

/// A tensor to be written: a name, a type, a shape and its values, row-major.
struct named_tensor {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index> shape;
  std::span<const std::byte> data{};
};

/// Texts stored beside the tensors.
using file_metadata = std::map<std::string, std::string, std::less<>>;

namespace detail {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// Order in which tensors are written: by element size, so that all are aligned, then by name.
/// Hugging Face's writer does so too. Sorts, and returns the length and text of the header, or why
/// readers would refuse it (errc::invalid).
template <class Tensor>
result<std::string> safetensors_prefix(std::vector<Tensor>& tensors, const file_metadata& metadata,
                                       const std::string& path) {
  const auto wrong = [&](const std::string& what, const char* expected, std::string_view got) {
    return detail::failure(errc::invalid, path, printable(what), expected, got);
  };
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return size_of(a.type) != size_of(b.type) ? size_of(a.type) > size_of(b.type) : a.name < b.name;
  });
  std::string text = "{";
  const auto begin = [&](std::string_view name) {
    text += (text.size() > 1 ? "," : "") + json_quoted(name) + ":{";
  };
  if (!metadata.empty()) {
    begin("__metadata__");
    for (const auto& [name, value] : metadata) {
      if (!is_utf8(name) || !is_utf8(value))
        return wrong("__metadata__: " + name, "texts in UTF-8", "other bytes");
      text += (text.back() == '{' ? "" : ",") + json_quoted(name) + ":" + json_quoted(value);
    }
    text += '}';
  }
  index at = 0;
  for (const Tensor& tensor : tensors) {
    if (!is_utf8(tensor.name)) return wrong(tensor.name, "a name in UTF-8", "other bytes");
    if (tensor.name == "__metadata__")
      return wrong(tensor.name, "another name for a tensor", "that of the notes");
    index size = size_of(tensor.type);
    begin(tensor.name);
    text += "\"dtype\":" + json_quoted(name_of(tensor.type)) + ",\"shape\":[";
    for (const index n : tensor.shape) {
      if (text.back() != '[') text += ',';
      text += std::to_string(n);
      size *= n;
    }
    text += "],\"data_offsets\":[";
    text += std::to_string(at) + ",";
    text += std::to_string(at += size) + "]}";
  }
  text += '}';
  text.resize(static_cast<std::size_t>(round_up(std::ssize(text), 8)), ' ');
  if (auto read = read_safetensors_header(bytes_of(text), static_cast<std::uint64_t>(at), path);
      !read) {
    error why = read.error();
    why.code = errc::invalid;
    return why;
  }
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace detail

/// Writes a safetensors file with these tensors, in a fixed order whatever order they are given in.
/// Nothing is written that parse_safetensors() refuses: names and notes are UTF-8. Errors:
/// errc::invalid (also a shape that does not fit its data), errc::io.
inline result<void> write_safetensors(const std::string& path, std::vector<named_tensor> tensors,
                                      const file_metadata& metadata = {}) LINNET_TRY {
  for (const named_tensor& tensor : tensors) {
    std::uint64_t size = static_cast<std::uint64_t>(size_of(tensor.type));
    bool fits = true;
    for (const index n : tensor.shape)
      fits = fits && n >= 0 && !__builtin_mul_overflow(size, static_cast<std::uint64_t>(n), &size);
    if (!fits || size != tensor.data.size())
      return detail::failure(errc::invalid, path, detail::printable(tensor.name),
                             "as many bytes as the shape says", std::to_string(tensor.data.size()));
  }
  const auto prefix = detail::safetensors_prefix(tensors, metadata, path);
  if (!prefix) return prefix.error();
  detail::file_writer file(path);
  file.write(detail::bytes_of(*prefix));
  for (const named_tensor& tensor : tensors) file.write(tensor.data);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Longest index that is read; a tensor takes about 100 bytes of it.
inline constexpr std::size_t longest_shard_index = 4 * 1024 * 1024;

/// Collects the "weight_map" of a model.safetensors.index.json; what else it says is not needed.
struct shard_index_reader {
  explicit shard_index_reader(const std::string& file) : where(file) {}

  std::string where;
  text_list tensors{}, files{};  ///< names of tensors, and the file of each
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == deepest)
      return fail("content", "at most " + std::to_string(deepest) + " levels", "more");
    if (in_map) return fail(tensor, "the name of a file", array ? "an array" : "an object");
    if (depth == 1 && name == "weight_map") {
      if (array) return fail(name, "an object", "an array");
      if (std::exchange(has_map, true)) return fail(name, "it once", "it twice");
      in_map = true;
    }
    ++depth;
    return true;
  }
  bool close() {
    if (--depth == 1) in_map = false;
    return true;
  }
  bool key(std::string_view text) {
    if (in_map)
      tensor = text;
    else if (depth == 1)
      name = text;
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1 && name == "weight_map") return fail(name, "an object", value.text());
    if (!in_map) return true;
    const auto barred = [](char c) {
      return static_cast<unsigned char>(c) < ' ' || c == '\x7f' || c == '/' || c == '\\' ||
             c == ':';
    };
    if (value.kind != json_scalar::kinds::text || value.string.empty() || value.string[0] == '.' ||
        std::any_of(value.string.begin(), value.string.end(), barred))
      return fail(tensor, "the name of a file beside the index", value.text());
    tensors.push_back(tensor);
    files.push_back(value.string);
    return true;
  }
  bool fail(const std::string& what, std::string expected, std::string got) {
    failure = {errc::malformed, where, printable(what), std::move(expected), std::move(got)};
    return false;
  }

  bool has_map = false;

 private:
  static constexpr int deepest = 32;
  int depth = 0;
  bool in_map = false;
  std::string name{}, tensor{};
};

}  // namespace detail

/// Reads the shards that a model.safetensors.index.json names, which stand beside it, as one file.
/// The index and the shards must name the same tensors. Errors: those of read_file() and of
/// read_safetensors(), errc::malformed, errc::mismatch.
inline result<safetensors> read_safetensors_shards(const std::string& path) LINNET_TRY {
  const auto text = read_file(path);
  if (!text) return text.error();
  detail::shard_index_reader reader(path);
  if (auto read = detail::read_json(*text, detail::longest_shard_index, path, "content", reader);
      !read)
    return read.error();
  const auto wrong = [&](errc code, const std::string& what, std::string expected,
                         std::string got) {
    return error{code, path, detail::printable(what), std::move(expected), std::move(got)};
  };
  if (!reader.has_map) return wrong(errc::malformed, "weight_map", "an object", "none");
  const detail::text_list &tensors = reader.tensors, &files = reader.files;
  const auto sorted = [](const detail::text_list& texts) {
    std::vector<std::uint32_t> order(texts.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return texts[a] < texts[b]; });
    return order;
  };
  const auto by_tensor = sorted(tensors), by_file = sorted(files);
  for (std::size_t i = 1; i < by_tensor.size(); ++i)
    if (tensors[by_tensor[i]] == tensors[by_tensor[i - 1]])
      return wrong(errc::malformed, std::string(tensors[by_tensor[i]]), "each name once",
                   "this one twice");

  safetensors all;
  all.where_ = path;
  const std::string folder = path.substr(0, path.find_last_of('/') + 1);
  for (std::size_t i = 0; i < by_file.size(); ++i) {
    const std::string name(files[by_file[i]]);
    if (i > 0 && name == files[by_file[i - 1]]) continue;
    auto shard = read_safetensors(folder + name);
    if (!shard) return shard.error();
    for (const tensor_record& tensor : shard->tensors_) {
      const auto at = std::lower_bound(
          by_tensor.begin(), by_tensor.end(), tensor.name,
          [&](std::uint32_t entry, const std::string& key) { return tensors[entry] < key; });
      const bool there = at != by_tensor.end() && tensors[*at] == tensor.name;
      if (!there || files[*at] != name)
        return wrong(errc::mismatch, tensor.name,
                     there ? "it in " + detail::printable(files[*at]) : "no such tensor",
                     "it in " + detail::printable(name));
    }
    for (tensor_record& tensor : shard->tensors_) all.tensors_.push_back(std::move(tensor));
    for (file_bytes& bytes : shard->owned_) all.owned_.push_back(std::move(bytes));
    all.metadata_.merge(shard->metadata_);
  }
  std::sort(all.tensors_.begin(), all.tensors_.end(),
            [](const tensor_record& a, const tensor_record& b) { return a.name < b.name; });
  for (const std::uint32_t i : by_tensor)
    if (const std::string tensor(tensors[i]); !all.find(tensor))
      return wrong(errc::missing, tensor, "it in " + detail::printable(files[i]), "no such tensor");
  return all;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Weights to and from safetensors files, under linnet's names or Hugging Face's.

#include <linnet/checkpoint.hpp>

LINNET_NAMESPACE_BEGIN

/// Whose names and layouts a file of weights follows.
namespace naming {
/// linnet's own names and layouts, for every model. Quantized tensors are their codes, with scales,
/// zero points and minima as `<name>.scales`, `<name>.zeros` and `<name>.minima`.
struct canonical {};
/// Names and layouts of Hugging Face Transformers, for T5, Llama, GPT-2, Mamba,
/// BERT, DistilBERT and ALBERT.
struct hugging_face {};
}  // namespace naming

namespace detail {

/// Whether names and layouts are Hugging Face's.
template <class Naming>
inline constexpr bool foreign = std::is_same_v<Naming, naming::hugging_face>;

/// The parts of a file of `M`, in canonical order.
template <class Naming, class M, class T>
std::vector<file_part> parts_of(const weights<M, T>& w) {
  static_assert(foreign<Naming> || std::is_same_v<Naming, naming::canonical>,
                "linnet: naming::canonical or naming::hugging_face");
  std::vector<file_part> parts;
  for (leaf& tensor : leaves_of(w)) {
    if constexpr (foreign<Naming>) {
      parts.push_back(hf_part(hf_layout_of<M>(), std::move(tensor)));
    } else {
      const auto add = [&](float* values, const char* suffix) {
        if (values == nullptr) return;
        leaf more{.name = tensor.name + suffix, .rows = tensor.rows, .columns = tensor.row_scales};
        more.vector = tensor.row_scales == 1;
        more.data = reinterpret_cast<std::byte*>(values);
        more.ggml = tensor.ggml;
        parts.push_back({more, {more.name, more.rows, more.columns, more.vector}});
      };
      add(tensor.scales, ".scales");
      add(tensor.zeros, tensor.ggml ? ".minima" : ".zeros");
      for (const leaf& more : tensor.more)
        parts.push_back({more, {more.name, more.rows, more.columns}});
      parts.push_back({tensor, {tensor.name, tensor.rows, tensor.columns, tensor.vector}});
    }
  }
  return parts;
}

/// The file's shape of a part, for comparison with a record's.
inline std::vector<index> shape_of(const placement& at) {
  if (at.vector) return {at.rows};
  if (at.depthwise) return {at.rows, 1, at.columns};
  return {at.rows, at.columns};
}

inline std::string shape_text(const placement& at) {
  std::string text;
  for (const index size : shape_of(at)) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text + "]";
}

/// Fault in codes, scales, zero points or minima that no storage has: what they should be, or null.
/// Asked before they are saved, and of what is loaded.
inline const char* unusable(const leaf& tensor, dtype type, const std::byte* data) {
  if (tensor.places)
    return tensor.places(tensor.rows, tensor.inputs, data)
               ? nullptr
               : "places of as many numbers as a row keeps";
  if (tensor.inputs > 0) {
    for (index i = 0; i < tensor.size(); ++i) {
      std::uint16_t input = 0;
      __builtin_memcpy(&input, data + i * index{sizeof input}, sizeof input);
      if (input >= tensor.inputs) return "numbers of the matrix's inputs";
    }
    return nullptr;
  }
  if (tensor.beside_codes && !all_finite(type, data, tensor.size())) return "finite numbers";
  if (tensor.ggml) {
    for (index i = 0; is_real(type) && i < tensor.size(); ++i) {
      double x = 0;
      decode_reals(type, data + i * size_of(type), 1, 1, &x);
      if (!is_finite(x) || storage::f16::decode(storage::f16::encode(x)) != x)
        return "finite numbers that half precision holds";
    }
    return nullptr;
  }
  if (tensor.type == dtype::i8)
    return std::find(data, data + tensor.size(), std::byte{0x80}) != data + tensor.size()
               ? "codes from -127 to 127"
               : nullptr;
  if ((type == dtype::f8_e4m3 || type == dtype::f8_e5m2) && !all_finite(type, data, tensor.size()))
    return "codes of finite numbers";
  const bool scales = tensor.name.ends_with(".scales");
  if (!scales && !tensor.name.ends_with(".zeros")) return nullptr;
  for (index i = 0; i < tensor.size(); ++i) {
    double x = 0;
    decode_reals(type, data + i * size_of(type), 1, 1, &x);
    if (!is_finite(x) || (scales ? !(x > 0) : !(x >= 0 && x <= 255)))
      return scales ? "positive, finite scales" : "zero points from 0 to 255";
  }
  return nullptr;
}

/// Whether two tensors of one shape hold equal values, of whatever real types they are.
inline bool same_values(const tensor_record& a, const tensor_record& b) {
  if (!std::ranges::equal(a.shape(), b.shape())) return false;
  if (a.type == b.type) return std::ranges::equal(a.data, b.data);
  if (!is_real(a.type) || !is_real(b.type)) return false;
  for (index i = 0; i < a.size(); ++i) {
    std::uint64_t x = 0, y = 0;  // bits: zeros have signs, and a NaN is equal to itself
    double value = 0;
    decode_reals(a.type, a.data.data() + i * size_of(a.type), 1, 1, &value);
    __builtin_memcpy(&x, &value, sizeof x);
    decode_reals(b.type, b.data.data() + i * size_of(b.type), 1, 1, &value);
    __builtin_memcpy(&y, &value, sizeof y);
    if (x != y) return false;
  }
  return true;
}

/// Finds every part in the file and checks its type and shape, then that nothing else is in it.
/// Only then it copies. Tensors whose names do not begin with `prefix` are not looked at.
template <class Ignores>
result<void> load_parts(const safetensors& file, const std::vector<file_part>& parts,
                        std::string_view prefix, nonfinite values, Ignores&& ignores) {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, file.where(), printable(what), expected, got);
  };
  std::vector<bool> used(file.tensors().size());
  std::vector<const tensor_record*> found(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const file_part& part = parts[i];
    const placement& at = part.at;
    const auto look_for = [&](std::string_view name) {
      const tensor_record* const record = file.find(std::string(prefix).append(name));
      if (!record) return record;
      used[static_cast<std::size_t>(record - file.tensors().data())] = true;
      return record;
    };
    found[i] = look_for(at.name);
    for (const std::string& alias : part.aliases) {
      const tensor_record* const other = look_for(alias);
      if (!found[i]) found[i] = other;
      if (other && !same_values(*other, *found[i]))
        return wrong(errc::mismatch, other->name,
                     "the same values as " + found[i]->name + " (one tensor in the model type)",
                     "others");
    }
    const bool code = !is_real(part.tensor.type);
    const std::string expected = (code ? std::string(name_of(part.tensor.type)) + " " : "real ") +
                                 shape_text(at) + " (the model type)";
    if (!found[i])
      return wrong(errc::missing, std::string(prefix) + at.name, expected, "no such tensor");
    const tensor_record& record = *found[i];
    if ((code ? record.type != part.tensor.type : !is_real(record.type)) ||
        !std::ranges::equal(record.shape(), shape_of(at)))
      return wrong(errc::mismatch, record.name, expected, record.description());
    if (const char* const wanted = unusable(part.tensor, record.type, record.data.data()))
      return wrong(errc::malformed, record.name, wanted, "another value");
    if (values == nonfinite::refuse && !all_finite(record.type, record.data.data(), record.size()))
      return wrong(errc::invalid, record.name, "finite numbers", "a NaN or an infinity");
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    const std::string& name = file.tensors()[i].name;
    if (!used[i] && name.starts_with(prefix) &&
        !ignores(std::string_view(name).substr(prefix.size())))
      return wrong(errc::mismatch, name, "only tensors of the model type",
                   file.tensors()[i].description());
  }
  for (std::size_t i = 0; i < parts.size(); ++i)
    copy_in(parts[i].tensor, parts[i].at, found[i]->type, found[i]->data.data());
  return {};
}

/// Writes parts to a file; parts that share a tensor of the file are joined.
inline result<void> save_parts(const std::string& path, const std::vector<file_part>& parts,
                               const file_metadata& metadata) {
  struct file_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<index> shape;
    std::vector<const file_part*> parts;
  };
  std::vector<file_tensor> tensors;
  for (const file_part& part : parts) {
    auto at = std::find_if(tensors.begin(), tensors.end(),
                           [&](const auto& t) { return t.name == part.at.name; });
    if (at == tensors.end())
      at = tensors.insert(at, {part.at.name, part.tensor.type, shape_of(part.at), {}});
    at->parts.push_back(&part);
  }
  for (const file_part& part : parts)
    if (const char* const wanted = unusable(part.tensor, part.tensor.type, part.tensor.data))
      return detail::failure(errc::invalid, path, part.at.name, wanted, "another value");
  const auto prefix = safetensors_prefix(tensors, metadata, path);
  if (!prefix) return prefix.error();
  file_writer file(path);
  file.write(bytes_of(*prefix));
  std::vector<std::byte> whole;
  for (const file_tensor& tensor : tensors) {
    const file_part& first = *tensor.parts.front();
    const auto size =
        static_cast<std::size_t>(first.at.rows * first.at.columns * size_of(tensor.type));
    if (tensor.parts.size() == 1 && !first.at.reordered()) {
      file.write({first.tensor.data, size});
      continue;
    }
    whole.resize(size);
    for (const file_part* part : tensor.parts) copy_out(part->tensor, part->at, whole.data());
    file.write(whole);
  }
  return file.commit();
}

/// Refuses a file of quantized weights for a type that stores them otherwise; the error names both
/// types.
template <class S>
result<void> check_storage(const safetensors& file) {
  const auto said = file.metadata().find("storage");
  if (said == file.metadata().end()) return {};
  const auto differs = [&](std::string_view what, const std::string& expected,
                           const std::string& got) {
    return detail::failure(errc::mismatch, file.where(), what, expected + " (the model type)",
                           printable(got));
  };
  const auto is_plain = [](std::string_view name) {
    return name == "f32" || name == "f64" || name == "bf16" || name == "f16";
  };
  if (const std::string own = storage::name_of<S>();
      said->second != own && !(is_plain(said->second) && is_plain(own)))
    return differs("storage", own, said->second);
  const auto group = file.metadata().find("storage_group");
  if (const std::string own = std::to_string(S::group);
      S::group > 0 && group != file.metadata().end() && group->second != own)
    return differs("storage_group", own, group->second);
  return {};
}

}  // namespace detail

/// Loads all weights from a parsed safetensors file, converting between F16, BF16, F32, F64 and the
/// model's storage. Every tensor of the model must be there exactly once and in its shape, and no
/// other; `w` is untouched unless all of it fits. Files that linnet wrote also say what model they
/// are of, which is compared first. Those of an adapter say its lora_options but for dropout, and a
/// hash of its base, which `base` may let be any. With `prefix` (such as "grad."), only tensors
/// whose names begin with it count. Errors: errc::missing, errc::mismatch, errc::malformed,
/// errc::out_of_memory, and errc::invalid where `values` are to be finite.
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, const safetensors& file, Naming = {},
                              std::string_view prefix = {}, nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!w.valid()) return w.error();
  if constexpr (!detail::foreign<Naming>) {
    for (const detail::key_value& one : detail::metadata_of<M>())
      if (const auto said = file.metadata().find(one.key);
          said != file.metadata().end() && said->second != one.value)
        return detail::failure(errc::mismatch, file.where(), one.key,
                               one.value + " (the model type)", detail::printable(said->second));
    if (auto fits = detail::check_adapter_file(w.tree(), file, base, false); !fits) return fits;
    if (auto fits = detail::check_storage<typename weights<M, T>::storage>(file);
        !fits && prefix.empty())
      return fits;
  }
  if constexpr (detail::fits_metadata<!detail::foreign<Naming>, M>() &&
                detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()) {
    auto done = detail::load_parts(
        file, detail::parts_of<Naming>(w), prefix, values, [](std::string_view name) {
          return detail::foreign<Naming> && hugging_face_ignores(hf_kind_of<M>(), name);
        });
    if (!done) return done;
    w.visit([](const parameter_path&, const tensor_info& info, const auto& leaf) {
      if constexpr (requires { leaf.levels; }) leaf.open(info.rows, info.columns);
    });
  }
  return {};
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Loads all weights from the bytes of a safetensors file, such as an array in the program. `where`
/// names it in errors. Errors: as above, and those of parse_safetensors().
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, std::span<const std::byte> bytes, Naming names = {},
                              const std::string& where = "safetensors",
                              nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!(detail::fits_metadata<!detail::foreign<Naming>, M>() &&
        detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()))
    return {};
  const auto file = parse_safetensors(bytes, where);
  return file ? load_safetensors(w, *file, names, {}, values, base) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Loads weights from a safetensors file. Errors: those of the overload above and of
/// read_safetensors().
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, const std::string& path, Naming names = {},
                              nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!(detail::fits_metadata<!detail::foreign<Naming>, M>() &&
        detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()))
    return {};
  const auto file = read_safetensors(path);
  return file ? load_safetensors(w, *file, names, {}, values, base) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Saves all weights as a safetensors file in their storage type. The metadata are a description of
/// the model (linnet's names) or the mark that Transformers asks for (Hugging Face's), and `notes`
/// of your own. That of an adapter has its lora_options and a hash of its base. The same weights
/// always give the same bytes. Nothing is written that load_safetensors() refuses. Errors:
/// errc::invalid (notes that are not UTF-8 or too long, scales that are not finite), errc::io.
template <class M, class T, class Naming = naming::canonical>
result<void> save_safetensors(const weights<M, T>& w, const std::string& path, Naming = {},
                              file_metadata notes = {}) LINNET_TRY {
  if (!w.valid()) return w.error();
  if (weights<M, T>::storage::per_word > 1)  // compressed; masters may be saved to be looked at
    if (auto fit = check_finite(w, path); !fit) return fit;
  if constexpr (detail::foreign<Naming>) {
    notes["format"] = "pt";
  } else {
    notes["format"] = "linnet";
    using S = typename weights<M, T>::storage;
    notes["storage"] = storage::name_of<S>();
    if (S::group > 0) notes["storage_group"] = std::to_string(S::group);
    for (const detail::key_value& one : detail::metadata_of<M>()) notes[one.key] = one.value;
    for (const detail::key_value& one : detail::notes_of_adapter(w.tree()))
      notes[one.key] = one.value;
  }
  if constexpr (detail::fits_metadata<!detail::foreign<Naming>, M>() &&
                detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>())
    return detail::save_parts(path, detail::parts_of<Naming>(w), notes);
  else
    return {};
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Loads the weights of a T5, Llama, GPT-2, Mamba, BERT, DistilBERT, ALBERT or RoBERTa directory
/// into a model of a matching type. First config.json is compared (check_config()), then every
/// tensor, and only then is `w` written. Without a model.safetensors, model.safetensors.index.json
/// and its shards are read. Llama's rotary pairs are reordered where the type uses position::rope.
/// Errors: those of read_hf_config(), check_config(), read_safetensors_shards() and
/// load_safetensors().
template <class M, class T>
result<void> load_hugging_face(weights<M, T>& w, const std::string& directory,
                               nonfinite values = nonfinite::keep) LINNET_TRY {
  if constexpr (!detail::fits_hugging_face<true, M, storage_of<M, T>>()) {
    return {};
  } else {
    const auto config = read_hf_config(directory + "/config.json");
    if (!config) return config.error();
    if (auto fits = check_config<M>(*config); !fits) return fits;
    const std::string path = directory + "/model.safetensors", shards = path + ".index.json";
    auto file = read_safetensors(path);
    if (!file && file.error().code == errc::io && read_file(shards))
      file = read_safetensors_shards(shards);
    return file ? load_safetensors(w, *file, naming::hugging_face{}, {}, values)
                : result<void>(file.error());
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Saves config.json and model.safetensors into a directory that exists, for load_hugging_face()
/// and for Transformers. Errors: errc::io, and those of save_safetensors().
template <class M, class T>
result<void> save_hugging_face(const weights<M, T>& w, const std::string& directory) LINNET_TRY {
  if constexpr (!detail::fits_hugging_face<true, M, storage_of<M, T>>()) {
    return {};
  } else {
    const std::string config = make_hf_config<M>();
    if (auto saved = save_safetensors(w, directory + "/model.safetensors", naming::hugging_face{});
        !saved)
      return saved;
    return write_file(directory + "/config.json", detail::bytes_of(config));
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
/// @file
/// Directories of adapters as Hugging Face's PEFT has them: adapter_config.json and
/// adapter_model.safetensors. Opt-in, through linnet/json.hpp.

/// @file
/// PEFT's adapter_config.json: read, with a refusal of what linnet does not compute, and written.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Longest adapter_config.json that is read, in bytes.
inline constexpr std::size_t longest_peft_config = 1024 * 1024;

/// Fields of the outermost object as JSON texts. Of arrays and objects only whether they are empty
/// is kept, as "[]" or "[...]".
struct peft_reader {
  struct field {
    std::string key, value;
    double number = 0;
    bool is_number = false;
  };
  explicit peft_reader(const std::string& file) : where(file) {}

  std::string where;
  std::vector<field> fields{};
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == 32) return fail("content", "at most 32 levels", "more");
    if (depth == 1) fields.push_back({name, array ? "[]" : "{}"});
    if (depth > 1) fill();
    ++depth;
    return true;
  }
  bool close() {
    --depth;
    return true;
  }
  bool key(std::string_view text) {
    if (depth == 1) {
      name = printable(text);
      if (find(name)) return fail(name, "each field once", "this one twice");
    } else {
      fill();
    }
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1)
      fields.push_back(
          {name, value.text(), value.number, value.kind == json_scalar::kinds::number});
    else
      fill();
    return true;
  }
  const field* find(std::string_view key) const {
    const auto at = std::ranges::find(fields, key, &field::key);
    return at == fields.end() ? nullptr : &*at;
  }

 private:
  int depth = 0;
  std::string name{};

  /// The array or object at hand is not empty.
  void fill() {
    std::string& value = fields.back().value;
    if (value.size() == 2) value.insert(1, "...");
  }
  bool fail(std::string what, std::string expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }
};

/// A field of adapter_config.json beside its numbers: the values under which an adapter computes
/// what linnet computes. Without any, it may be anything.
struct peft_rule {
  std::string_view key;
  std::vector<std::string_view> values{};
};

/// Fields that say where an adapter comes from, in configurations of all kinds.
inline std::vector<peft_rule> usual_peft_rules() {
  return {{"task_type"},      {"base_model_name_or_path"},
          {"inference_mode"}, {"revision"},
          {"auto_mapping"},   {"peft_version"}};
}
/// Reads a configuration whose fields keep `rules`; others must be null, false or empty.
inline result<peft_reader> read_peft_config(std::span<const std::byte> text,
                                            const std::string& where,
                                            const std::vector<peft_rule>& rules) {
  peft_reader config(where);
  if (auto read = read_json(text, longest_peft_config, where, "content", config); !read)
    return read.error();
  const std::vector<std::string_view> usual = {"null", "false", "[]", "{}"};
  for (const peft_reader::field& one : config.fields) {
    const auto rule = std::ranges::find(rules, one.key, &peft_rule::key);
    const auto& values = rule == rules.end() ? usual : rule->values;
    if (!values.empty() && std::ranges::find(values, one.value) == values.end()) {
      std::string expected;
      for (const std::string_view value : values)
        expected += (expected.empty() ? "" : ", ") + std::string(value);
      return failure(errc::unsupported, where, one.key,
                     expected + ": another value changes what the adapter computes", one.value);
    }
  }
  if (!config.find("peft_type"))
    return failure(errc::missing, where, "peft_type", rules.front().values.front(), "nothing");
  return config;
}
/// Refuses a number of a configuration that is not the one of the adapter's type.
inline result<void> check_peft_number(const peft_reader& config, std::string_view key, index own,
                                      double absent) {
  const auto* const field = config.find(key);
  const double said = field && field->is_number ? field->number : absent;
  if (said == static_cast<double>(own)) return {};
  return failure(errc::mismatch, config.where, key, std::to_string(own) + " (the adapter's type)",
                 number_text(said));
}

/// The options of a configuration of an adapter of rank `rank`. Of a base that keeps matrices as
/// [in, out], PEFT `transposes` deltas when it merges them, and says so.
inline result<lora_options> parse_peft_config(std::span<const std::byte> text,
                                              const std::string& where, index rank,
                                              bool transposes = false) {
  std::vector<peft_rule> rules = {
      {"peft_type", {"\"LORA\""}},
      {"bias", {"\"none\""}},
      {"init_lora_weights", {"true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "null"}},
      {"target_modules"},
      {"exclude_modules"},
      {"layers_to_transform"},
      {"layers_pattern"},
      {"megatron_core"},
      {"runtime_config"},
      {"qalora_group_size"},
      {"lora_ga_config"},
      {"r"},
      {"lora_alpha"},
      {"lora_dropout"},
      {"use_rslora", {"true", "false"}},
  };
  for (const peft_rule& one : usual_peft_rules()) rules.push_back(one);
  if (transposes) rules.push_back({"fan_in_fan_out", {"true", "false", "null"}});
  const auto config = read_peft_config(text, where, rules);
  if (!config) return config.error();
  lora_options how;
  for (const auto& [key, to] :
       {std::pair("lora_alpha", &how.alpha), std::pair("lora_dropout", &how.dropout)})
    if (const auto* const field = config->find(key)) {
      if (!field->is_number) return failure(errc::malformed, where, key, "a number", field->value);
      *to = field->number;
    }
  if (const auto* const field = config->find("use_rslora")) how.rslora = field->value == "true";
  if (auto fit = check_peft_number(*config, "r", rank, 8); !fit) return fit.error();
  if (auto fit = acceptable(where.c_str(), "lora_options", how); !fit) return fit.error();
  return how;
}

/// The configuration of an adapter.
inline std::string make_peft_config(index rank, const lora_options& how,
                                    const std::string& base_name,
                                    const std::vector<std::string>& targets, const char* task) {
  std::string names;
  for (const std::string& one : targets) names += (names.empty() ? "" : ", ") + json_quoted(one);
  const auto truth = [](bool x) { return x ? "true" : "false"; };
  return std::string("{\n") +
         "  \"base_model_name_or_path\": " + (base_name.empty() ? "null" : json_quoted(base_name)) +
         ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
         "  \"init_lora_weights\": true,\n  \"lora_alpha\": " +
         number_text(how.alpha) + ",\n  \"lora_dropout\": " + number_text(how.dropout) +
         ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": " +
         std::to_string(rank) + ",\n  \"target_modules\": [" + names + "],\n  \"task_type\": \"" +
         task + "\",\n  \"use_dora\": false,\n  \"use_rslora\": " + truth(how.rslora) + "\n}\n";
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// PEFT's word for what a model does. Of an encoder that classifies it is not PEFT's own: PEFT then
/// trains a classifier, too, and refuses files without one.
template <class M>
constexpr const char* peft_task() {
  return is_t5<M> ? "SEQ_2_SEQ_LM" : is_encoder<M> ? "FEATURE_EXTRACTION" : "CAUSAL_LM";
}

/// Where a matrix of a model is in Hugging Face's files, by its name without the end:
/// model.layers.0.self_attn.q_proj.
template <class M>
file_part peft_map(leaf whole) {
  file_part part = hf_kind_of<M>() == hf_kind::none
                       ? file_part{whole, {whole.name, whole.rows, whole.columns}}
                       : hf_part(hf_layout_of<M>(), whole);
  part.at.name = std::string(stem(part.at.name));
  return part;
}
/// End of the name of GPT-2's queries, keys and values, which are one matrix there.
inline constexpr std::string_view fused_map = ".c_attn";

/// Checks that the maps of one matrix of PEFT's files are all there. With `alike` they must share
/// their A, too: one product of rank r gives all of them.
inline result<void> check_fused(const std::vector<file_part>& parts, const char* where,
                                bool alike) {
  const auto other = [&](const char* expected, std::string got) {
    return error{errc::unsupported, where, "target_modules", expected, std::move(got)};
  };
  for (const file_part& one : parts) {
    if (one.at.name.find(std::string(fused_map) + ".lora_") == std::string::npos) continue;
    const auto is_same = [&](const file_part& two) { return two.at.name == one.at.name; };
    const auto count = std::ranges::count_if(parts, is_same);
    if (count != 3)
      return other(
          "q, k and v together or none of them, as PEFT has one adapter for all three of "
          "GPT-2",
          std::to_string(count) + " of them");
    const file_part& first = *std::ranges::find_if(parts, is_same);
    if (alike && one.at.name.find(".lora_A.") != std::string::npos &&
        __builtin_memcmp(first.tensor.data, one.tensor.data,
                         static_cast<std::size_t>(one.tensor.size() * size_of(one.tensor.type))) !=
            0)
      return other(
          "one lora_A for q, k and v, as PEFT has of GPT-2 (save_safetensors() keeps "
          "others)",
          "unlike ones");
  }
  return {};
}

/// The parts of a file of an adapter. GPT-2's queries, keys and values have one place for their A,
/// and rows of one B.
template <class A, class T>
std::vector<file_part> peft_parts(const weights<A, T>& w) {
  std::vector<file_part> parts;
  for (leaf& tensor : leaves_of(w)) {
    const bool first = tensor.name.ends_with(".lora_A.weight");
    leaf whole = tensor;
    whole.name.replace(whole.name.rfind(".lora_"), std::string::npos, ".weight");
    const file_part part = peft_map<typename A::base_model>(std::move(whole));
    placement at{"base_model.model." + part.at.name + (first ? ".lora_A.weight" : ".lora_B.weight"),
                 tensor.rows, tensor.columns};
    if (!first) at.half_heads = part.at.half_heads;
    if (!first && part.at.name.ends_with(fused_map)) {
      at.rows *= 3;
      at.offset = part.at.offset;
    }
    parts.push_back({std::move(tensor), std::move(at), {}});
  }
  return parts;
}
/// The names by which PEFT finds the matrices of an adapter: their last parts where no other matrix
/// ends so, else whole names.
template <class A>
std::vector<std::string> peft_targets() {
  using M = typename A::base_model;
  std::vector<std::string> whole, last, others;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    if (info.kind != role::matrix && info.kind != role::table) return;
    const std::string name = peft_map<M>({.name = at.str(), .rows = 1, .columns = 1}).at.name;
    const std::string end = name.substr(name.rfind('.') + 1);
    if (is_target<M, typename A::method::targets>(at, info)) {
      if (std::ranges::find(whole, name) == whole.end()) whole.push_back(name);
      if (std::ranges::find(last, end) == last.end()) last.push_back(end);
    } else {
      others.push_back(end);
    }
  });
  const bool unlike = std::ranges::any_of(
      last, [&](const std::string& end) { return std::ranges::find(others, end) != others.end(); });
  return unlike ? whole : last;
}

}  // namespace detail

/// Saves an adapter of low-rank deltas for PEFT and load_peft() into a directory that exists.
/// `base_name` is what PEFT loads its base by, such as "HuggingFaceTB/SmolLM2-135M". The tensors'
/// file also says a hash of the base. Errors: errc::io; errc::invalid for an adapter without a
/// base; that of `a` if it is not valid(). Also errc::unsupported for GPT-2 unless all or none of
/// q, k and v have a delta, and share their A.
template <class A, class T>
requires requires { A::rank; }
result<void> save_peft(const weights<A, T>& a, const std::string& directory,
                       const std::string& base_name = {}) LINNET_TRY {
  using M = typename A::base_model;
  if (!a.valid()) return a.error();
  const auto& base = a.tree().base;
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  const auto parts = detail::peft_parts(a);
  if (auto fit = detail::check_fused(parts, "save_peft", true); !fit) return fit;
  std::string config = detail::make_peft_config(A::rank, base.how, base_name,
                                                detail::peft_targets<A>(), detail::peft_task<M>());
  // PEFT's word for Conv1D, which keeps a matrix as [in, out].
  if (constexpr std::string_view said = "\"fan_in_fan_out\": "; hf_kind_of<M>() == hf_kind::gpt2)
    config.replace(config.find(said) + said.size(), 5, "true");
  if (auto saved = detail::save_parts(
          directory + "/adapter_model.safetensors", parts,
          {{"format", "pt"}, {std::string(detail::base_note), std::to_string(base.hash())}});
      !saved)
    return saved;
  return write_file(directory + "/adapter_config.json", detail::bytes_of(config));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads an adapter that PEFT or save_peft() saved into one that adapt() made for a base. Its
/// options become those of the file. Options that would change what it computes are refused, such
/// as DoRA, biases, modules_to_save and ranks that differ. GPT-2's one A of queries, keys and
/// values becomes that of each, which must all have a delta. `a` is untouched unless all of it
/// fits. Errors: errc::io, errc::malformed, errc::missing; errc::unsupported for such options. Also
/// errc::mismatch for another rank, other matrices or shapes, and another base by its hash;
/// errc::invalid for an adapter without a base.
template <class A, class T>
requires requires { A::rank; }
result<void> load_peft(weights<A, T>& a, const std::string& directory,
                       peft_base base = peft_base::same) LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const auto parts = detail::peft_parts(a);
  if (auto fit = detail::check_fused(parts, "load_peft", false); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  const bool transposes = hf_kind_of<typename A::base_model>() == hf_kind::gpt2;
  const auto how = detail::parse_peft_config(*text, path, A::rank, transposes);
  if (!how) return how.error();
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  auto loaded =
      detail::load_parts(*file, parts, {}, nonfinite::keep, [](std::string_view) { return false; });
  if (loaded) a.tree().base.how = *how;
  return loaded;
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
/// @file
/// Gated prompts in directories as Hugging Face's PEFT has them (ADAPTION_PROMPT). Opt-in, through
/// linnet/json.hpp.

#include <cmath>
#include <type_traits>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The beginning of the names of a layer's tensors in PEFT's files:
/// base_model.model.model.layers.1.self_attn.adaption_
template <class M>
std::string gated_name(index layer) {
  const std::string query = "blocks." + std::to_string(layer) + ".attention.q.weight";
  const std::string map = peft_map<M>({.name = query, .rows = 1, .columns = 1}).at.name;
  return "base_model.model." + map.substr(0, map.rfind('.')) + ".adaption_";
}
/// PEFT's one gate of a layer, which is no tanh: what `heads` gates have in common.
template <class T>
result<T> peft_gate(const T* gates, index heads) {
  const auto other = [](const char* expected, std::string got) {
    return error{errc::unsupported, "save_peft", "adaption_gates", expected, std::move(got)};
  };
  for (index h = 1; h < heads; ++h)
    if (gates[h] != gates[0])
      return other(
          "one gate for all heads of a layer, as PEFT has it; save_safetensors() keeps others",
          "unlike ones");
  const T open = std::tanh(gates[0]);
  if (!is_finite(open) || open <= -1 || open >= 1)
    return other("a gate whose tanh is between -1 and 1",
                 number_text(static_cast<double>(gates[0])));
  return open;
}
/// The numbers of a layer's tensor in a file of PEFT's, which has this shape.
template <class T>
result<std::vector<T>> gated_values(const safetensors& file, const std::string& name,
                                    const std::vector<index>& shape) {
  const tensor_record* const found = file.find(name);
  if (found && std::ranges::equal(found->shape(), shape)) return file.values<T>(name);
  std::string expected = "real [";
  for (const index n : shape) expected += (expected.back() == '[' ? "" : ", ") + std::to_string(n);
  return failure(found ? errc::mismatch : errc::missing, file.where(), name,
                 expected + "] (the adapter's type)",
                 found ? found->description() : std::string("no such tensor"));
}

}  // namespace detail

/// Saves gated prompts for PEFT and load_peft() into a directory that exists. `base_name` is what
/// PEFT loads its base by. The tensors' file also says a hash of the base. Errors: errc::io;
/// errc::invalid for an adapter without a base; that of `a` if it is not valid(). Of PEFT's layers
/// each has one gate for all heads: unlike ones are errc::unsupported.
template <class M, index Count, index Layers, class T>
result<void> save_peft(const weights<adapted<M, llama_adapter<Count, Layers>>, T>& a,
                       const std::string& directory, const std::string& base_name = {}) LINNET_TRY {
  using A = adapted<M, llama_adapter<Count, Layers>>;
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  constexpr dtype type = std::is_same_v<T, double> ? dtype::f64 : dtype::f32;
  std::vector<T> gates(static_cast<std::size_t>(Layers));
  std::vector<named_tensor> tensors;
  for (index l = 0; l < Layers; ++l) {
    const auto gate = detail::peft_gate(a.tree().gates + l * A::heads, A::heads);
    if (!gate) return gate.error();
    T& open = gates[static_cast<std::size_t>(l)];
    open = *gate;
    const std::span rows(a.tree().prompts + l * Count * M::d,
                         static_cast<std::size_t>(Count * M::d));
    const std::string name = detail::gated_name<M>(A::first + l);
    tensors.push_back({name + "prompt", type, {1, Count, M::d}, std::as_bytes(rows)});
    tensors.push_back({name + "gate", type, {1}, std::as_bytes(std::span(&open, 1))});
  }
  const file_metadata notes{{"format", "pt"},
                            {std::string(detail::base_note), std::to_string(a.tree().base.hash())}};
  if (auto saved = write_safetensors(directory + "/adapter_model.safetensors", tensors, notes);
      !saved)
    return saved;
  const std::string config = "{\n  \"adapter_layers\": " + std::to_string(Layers) +
                             ",\n  \"adapter_len\": " + std::to_string(Count) +
                             ",\n  \"base_model_name_or_path\": " +
                             (base_name.empty() ? "null" : detail::json_quoted(base_name)) +
                             ",\n  \"inference_mode\": true,\n"
                             "  \"peft_type\": \"ADAPTION_PROMPT\",\n"
                             "  \"target_modules\": \"self_attn\",\n"
                             "  \"task_type\": \"CAUSAL_LM\"\n}\n";
  return write_file(directory + "/adapter_config.json", detail::bytes_of(config));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads gated prompts that PEFT or save_peft() saved into those that adapt() made for a base. Each
/// head's gate becomes the inverse tanh of its layer's. `a` is untouched unless all of it fits.
/// Errors: errc::io, errc::malformed, errc::missing; errc::unsupported for another kind of adapter
/// and for a gate that is no tanh. Also errc::mismatch for another number of prompts or layers,
/// another width, and another base by its hash; errc::invalid for an adapter without a base.
template <class M, index Count, index Layers, class T>
result<void> load_peft(weights<adapted<M, llama_adapter<Count, Layers>>, T>& a,
                       const std::string& directory, peft_base base = peft_base::same) LINNET_TRY {
  using A = adapted<M, llama_adapter<Count, Layers>>;
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  std::vector<detail::peft_rule> rules = {{"peft_type", {"\"ADAPTION_PROMPT\""}},
                                          {"target_modules"},
                                          {"adapter_len"},
                                          {"adapter_layers"}};
  for (const detail::peft_rule& one : detail::usual_peft_rules()) rules.push_back(one);
  const auto config = detail::read_peft_config(*text, path, rules);
  if (!config) return config.error();
  if (auto fit = detail::check_peft_number(*config, "adapter_len", Count, 0); !fit) return fit;
  if (auto fit = detail::check_peft_number(*config, "adapter_layers", Layers, 0); !fit) return fit;
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  std::vector<T> prompts, gates;
  for (index l = 0; l < Layers; ++l) {
    const std::string name = detail::gated_name<M>(A::first + l);
    const auto rows = detail::gated_values<T>(*file, name + "prompt", {1, Count, M::d});
    if (!rows) return rows.error();
    const auto gate = detail::gated_values<T>(*file, name + "gate", {1});
    if (!gate) return gate.error();
    const T open = gate->front();
    if (!is_finite(open) || open <= -1 || open >= 1)
      return detail::failure(errc::unsupported, file->where(), name + "gate",
                             "a gate between -1 and 1, as linnet's are tanh of a number",
                             detail::number_text(static_cast<double>(open)));
    prompts.insert(prompts.end(), rows->begin(), rows->end());
    gates.insert(gates.end(), static_cast<std::size_t>(A::heads), std::atanh(open));
  }
  if (std::ssize(file->tensors()) != 2 * Layers)
    return detail::failure(errc::mismatch, file->where(), "tensors",
                           std::to_string(2 * Layers) + " (the adapter's type)",
                           std::to_string(file->tensors().size()));
  std::ranges::copy(prompts, a.tree().prompts);
  std::ranges::copy(gates, a.tree().gates);
  return {};
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
/// @file
/// Soft tokens and prefixes in directories as Hugging Face's PEFT has them. Opt-in, through
/// linnet/json.hpp.

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class A>
inline constexpr bool is_prefix = requires {
  A::key_width;
};
/// An adapter whose numbers are the virtual tokens themselves.
template <class A>
concept has_virtual_rows = requires {
  A::virtual_count;
}
&&!requires { A::row_width; };
/// An adapter's token_dim, as PEFT calls it.
template <class A>
consteval index token_width() {
  if constexpr (is_prefix<A>)
    return A::key_width;
  else
    return A::width;
}
/// The configuration of an adapter that puts virtual tokens before texts.
template <class A>
std::string make_virtual_config(const std::string& base_name) {
  using M = typename A::base_model;
  const auto number = [](const char* key, index value) {
    return std::string("  \"") + key + "\": " + std::to_string(value) + ",\n";
  };
  const bool prefix = is_prefix<A>;
  constexpr attention_shape self = virtual_self<M>;
  const index heads = prefix ? self.kv_heads : self.heads;
  return "{\n  \"base_model_name_or_path\": " +
         (base_name.empty() ? "null" : json_quoted(base_name)) + ",\n" +
         (prefix ? number("encoder_hidden_size", token_width<A>()) : "") +
         "  \"inference_mode\": true,\n" + number("num_attention_heads", heads) +
         number("num_layers", virtual_stack<M>::layers) +
         number("num_transformer_submodules", prefix && is_t5<M> ? 2 : 1) +
         number("num_virtual_tokens", A::virtual_count) + "  \"peft_type\": " +
         (prefix ? "\"PREFIX_TUNING\",\n  \"prefix_projection\": false,\n"
                 : "\"PROMPT_TUNING\",\n  \"prompt_tuning_init\": \"RANDOM\",\n") +
         "  \"task_type\": \"" + peft_task<M>() +
         "\",\n  \"token_dim\": " + std::to_string(token_width<A>()) + "\n}\n";
}
/// Checks that a configuration is one of an adapter of type `A`; gives the rows of its tensor. PEFT
/// gives an encoder-decoder's soft tokens as many rows again, which it does not read.
template <class A>
result<index> check_virtual_config(std::span<const std::byte> text, const std::string& where) {
  using M = typename A::base_model;
  std::vector<peft_rule> rules;
  if (is_prefix<A>)
    rules = {{"peft_type", {"\"PREFIX_TUNING\""}},
             {"prefix_projection", {"false", "true"}},
             {"encoder_hidden_size"},
             {"init_weights"}};
  else
    rules = {{"peft_type", {"\"PROMPT_TUNING\""}}, {"prompt_tuning_init"},
             {"prompt_tuning_init_text"},          {"prompt_tuning_init_state_dict_path"},
             {"tokenizer_name_or_path"},           {"tokenizer_kwargs"}};
  for (const char* const one :
       {"num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers"})
    rules.push_back({one});
  if (is_t5<M>)
    rules.push_back({"num_transformer_submodules", {"1", "2"}});
  else
    rules.push_back({"num_transformer_submodules", {"1", "null"}});
  for (const peft_rule& one : usual_peft_rules()) rules.push_back(one);
  const auto config = read_peft_config(text, where, rules);
  if (!config) return config.error();
  if (auto fit = check_peft_number(*config, "num_virtual_tokens", A::virtual_count, 0); !fit)
    return fit.error();
  constexpr index width = token_width<A>();
  if (auto fit = check_peft_number(*config, "token_dim", width, static_cast<double>(width)); !fit)
    return fit.error();
  const auto* const stacks = config->find("num_transformer_submodules");
  const bool twice = !is_prefix<A> && stacks && stacks->value == "2";
  return (twice ? 2 : 1) * A::virtual_count;
}
/// The place of a layer's keys and values in PEFT's files. An encoder-decoder's layers take every
/// second place there and begin anew at the end. Of an even number, two have one in common.
template <class M>
constexpr index virtual_place(index layer) {
  return is_t5<M> ? 2 * layer % virtual_stack<M>::layers : layer;
}
/// Calls f(place in memory, place in the file) for each number of an adapter. Keys of a model that
/// rotates neighbours have their channels in another order there.
template <class A, class F>
void each_virtual_number(F&& f) {
  using M = typename A::base_model;
  index all = 0;
  A::visit([&](const parameter_path&, const tensor_info& info) { all = info.size(); },
           parameter_path{});
  if constexpr (is_prefix<A> && is_t5<M>) {
    constexpr index both = 2 * A::key_width, layers = virtual_stack<M>::layers;
    for (index i = 0; i < all; ++i) {
      const index layer = i / both % layers;
      f(i, i + (virtual_place<M>(layer) - layer) * both);
    }
  } else if constexpr (is_prefix<A> && hf_kind_of<M>() == hf_kind::llama) {
    constexpr index kv = A::key_width;
    placement heads;
    heads.half_heads = hf_layout_of<M>().rope_heads;
    for (index i = 0; i < all; ++i) f(i, i / kv % 2 == 0 ? i - i % kv + heads.feature(i % kv) : i);
  } else {
    for (index i = 0; i < all; ++i) f(i, i);
  }
}

}  // namespace detail

/// Saves soft tokens or a prefix for PEFT and load_peft() into a directory that exists. `base_name`
/// is what PEFT loads its base by. The tensors' file also says a hash of the base. Errors:
/// errc::io; errc::invalid for an adapter without a base; that of `a` if it is not valid().
/// Of an even number of decoder layers L, PEFT's layers l and l + L/2 of a T5 have one prefix:
/// other ones are errc::unsupported.
template <class A, class T>
requires detail::has_virtual_rows<A> result<void> save_peft(const weights<A, T>& a,
                                                            const std::string& directory,
                                                            const std::string& base_name = {})
LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  auto parts = detail::leaves_of(a);
  auto reordered = a.clone();
  if (!reordered.valid()) return reordered.error();
  const T* const from = static_cast<const T*>(a.data());
  T* const to = static_cast<T*>(reordered.data());
  std::fill_n(to, A::parameters(), T(0));
  detail::each_virtual_number<A>([&](index i, index at) { to[at] = from[i]; });
  bool kept = true;
  detail::each_virtual_number<A>([&](index i, index at) { kept = kept && to[at] == from[i]; });
  if (!kept)
    return error{errc::unsupported, "save_peft", "prompt_embeddings",
                 "one prefix for two decoder layers, as PEFT has it of an even number; "
                 "save_safetensors() keeps others",
                 "two"};
  parts[0].data = reinterpret_cast<std::byte*>(to);
  const detail::placement at{"prompt_embeddings", parts[0].rows, parts[0].columns};
  if (auto saved = detail::save_parts(
          directory + "/adapter_model.safetensors", {{parts[0], at, {}}},
          {{"format", "pt"},
           {std::string(detail::base_note), std::to_string(a.tree().base.hash())}});
      !saved)
    return saved;
  return write_file(directory + "/adapter_config.json",
                    detail::bytes_of(detail::make_virtual_config<A>(base_name)));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads soft tokens or a prefix that PEFT or save_peft() saved into those that adapt() made for a
/// base. `a` is untouched unless all of it fits. Errors: errc::io, errc::malformed, errc::missing;
/// errc::unsupported for another kind of adapter. Also errc::mismatch for another number of virtual
/// tokens, another width, and another base by its hash; errc::invalid for an adapter without a
/// base.
template <class A, class T>
requires detail::has_virtual_rows<A> result<void> load_peft(weights<A, T>& a,
                                                            const std::string& directory,
                                                            peft_base base = peft_base::same)
LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  const auto rows = detail::check_virtual_config<A>(*text, path);
  if (!rows) return rows.error();
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  auto parts = detail::leaves_of(a);
  std::vector<T> read(static_cast<std::size_t>(*rows * parts[0].columns));
  parts[0].rows = *rows;
  parts[0].data = reinterpret_cast<std::byte*>(read.data());
  const detail::placement at{"prompt_embeddings", parts[0].rows, parts[0].columns};
  if (auto loaded = detail::load_parts(*file, {{parts[0], at, {}}}, {}, nonfinite::keep,
                                       [](std::string_view) { return false; });
      !loaded)
    return loaded;
  T* const to = static_cast<T*>(a.data());
  const T* const from = read.data();
  detail::each_virtual_number<A>([&](index i, index place) { to[i] = from[place]; });
  return {};
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Saves the prefix that a projection makes, as PEFT does. The projection is not in the file, so
/// nothing can be loaded into one. Errors: those of fold() and of saving the prefix.
template <class M, index Count, index Hidden, class T>
result<void> save_peft(const weights<adapted<M, prefix_projection<Count, Hidden>>, T>& a,
                       const std::string& directory, const std::string& base_name = {}) {
  const auto prefix = fold(a);
  return prefix ? save_peft(*prefix, directory, base_name) : result<void>(prefix.error());
}

LINNET_NAMESPACE_END
/// @file
/// GPT-2's encoder.json, which repeats the ids that follow from vocab.bpe.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Compares the events of an encoder.json with a tokenizer.
template <class Tokenizer>
struct encoder_reader {
  const Tokenizer& tokenizer;
  std::string where;
  std::vector<bool> seen{};
  error failure{};
  std::string name{}, bytes{};
  bool inside = false;

  bool open(bool array) {
    if (inside || array) return fail("content", "an object of ids", array ? "an array" : "more");
    return inside = true;
  }
  bool close() { return true; }
  bool key(std::string_view text) {
    name = text;
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (!inside) return fail("content", "an object of ids", value.text());
    token id = tokenizer.find_added(name);
    bytes.clear();
    if (id < 0 && append_bytes_of(name, bytes)) id = tokenizer.find(bytes);
    const std::string what = json_quoted(printable(name));
    if (id < 0) return fail(what, "a piece of the tokenizer", "another", errc::mismatch);
    if (!value.whole || value.count != static_cast<std::uint64_t>(id))
      return fail(what, std::to_string(id) + " (the tokenizer)", value.text(), errc::mismatch);
    if (seen[static_cast<std::size_t>(id)]) return fail(what, "it once", "it twice");
    return seen[static_cast<std::size_t>(id)] = true;
  }
  bool fail(std::string what, std::string expected, std::string got, errc code = errc::malformed) {
    failure = {code, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }
};

}  // namespace detail

/// Checks that an encoder.json (vocab.json at Hugging Face) gives every piece of a tokenizer the id
/// that it has, and no other pieces. The tokenizer is of byte pairs. Errors: errc::mismatch,
/// errc::malformed, errc::unsupported.
template <class Tokenizer>
result<void> check_encoder_json(const Tokenizer& tokenizer, std::span<const std::byte> text,
                                const std::string& where = "encoder.json") LINNET_TRY {
  detail::encoder_reader<Tokenizer> reader{tokenizer, where};
  reader.seen.resize(static_cast<std::size_t>(tokenizer.vocabulary()));
  if (auto read = detail::read_json(text, bpe_tokenizer::longest_file, where, "content", reader);
      !read)
    return read.error();
  const auto lacking = std::find(reader.seen.begin(), reader.seen.end(), false);
  if (lacking == reader.seen.end()) return {};
  const auto id = static_cast<token>(lacking - reader.seen.begin());
  return error{errc::mismatch, where, "content", "an entry with the id " + std::to_string(id),
               "none"};
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
/// @file
/// Hugging Face's tokenizer.json.

/// @file
/// The lists and settings of a tokenizer.json as they stand there.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Collects the events of a tokenizer.json. Its three long lists are kept in about their bytes,
/// settings under names such as "pre_tokenizer.pretokenizers[1].type", texts between quotes as they
/// are.
struct hf_tokenizer_reader {
  explicit hf_tokenizer_reader(const std::string& file) : where(file) {}

  struct added_token {
    std::uint64_t id = 0;
    bool special = false, normalized = false, single_word = false, lstrip = false, rstrip = false,
         has_text = false, has_id = false;
  };

  std::string where;
  text_list vocabulary{};
  std::vector<std::uint64_t> ids{};  ///< of the vocabulary
  std::vector<double> scores{};      ///< of the vocabulary, if it is a list
  text_list merges{};                ///< two pieces for each
  text_list added_texts{};
  std::vector<added_token> added{};
  std::vector<key_value> facts{};
  bool has_vocabulary = false, has_merges = false, has_added = false;
  error failure{};

  bool open(bool array) {
    if (stack.empty()) return array ? fail("content", "a JSON object", "an array") : enter(top);
    if (stack.size() == deepest)
      return fail("content", "at most " + std::to_string(deepest) + " levels", "more");
    const places at = stack.back().place;
    name_element();
    if (at == top && name == "model" && !array) return enter(other);
    if (name == "model.vocab" && at == other)
      return once(has_vocabulary) && enter(array ? vocab_list : vocab);
    if (name == "model.merges" && at == other)
      return array ? once(has_merges) && enter(merge_list) : fail(name, "an array", "an object");
    if (at == top && name == "added_tokens")
      return array ? once(has_added) && enter(added_list) : fail(name, "an array", "an object");
    if (at == vocab) return fail(name, "an id", array ? "an array" : "an object");
    if (at == merge_list || at == vocab_list) {
      const char* const expected =
          at == merge_list ? "a pair of pieces" : "a pair of a piece and its score";
      if (!array) return fail(name, expected, "an object");
      pair = 0;
      return enter(at == merge_list ? merge_pair : vocab_pair);
    }
    if (at == vocab_pair) return fail(name, "a piece or a score", array ? "an array" : "an object");
    if (at == merge_pair) return fail(name, "a piece", array ? "an array" : "an object");
    if (at == added_list) {
      if (array) return fail(name, "an object", "an array");
      if (added.size() == static_cast<std::size_t>(bpe_tokenizer::most_pieces))
        return too_many("added_tokens", bpe_tokenizer::most_pieces);
      added.emplace_back();
      content.clear();
      return enter(added_entry);
    }
    if (at == added_entry) return fail(name, "a value", array ? "an array" : "an object");
    return enter(other, array);
  }
  bool close() {
    const frame done = stack.back();
    stack.pop_back();
    name = done.name;
    if (done.place == merge_pair)
      return pair == 2 || fail(name, "two pieces", std::to_string(pair));
    if (done.place == vocab_pair)
      return pair == 2 || fail(name, "a piece and its score", std::to_string(pair));
    if (done.place != added_entry) return true;
    if (!(added.back().has_text && added.back().has_id))
      return fail(name, "an id and a content", "an object without");
    added_texts.push_back(content);
    return true;
  }
  bool key(std::string_view text) {
    const frame& in = stack.back();
    if (in.place == vocab)
      piece = text;
    else
      name = in.name.empty() ? printable(text) : in.name + "." + printable(text);
    return true;
  }
  bool scalar(const json_scalar& value) {
    using kinds = json_scalar::kinds;
    if (stack.empty()) return fail("content", "a JSON object", value.text());
    name_element();
    switch (stack.back().place) {
      case vocab:
        if (!value.whole)
          return fail("model.vocab: " + json_quoted(printable(piece)), "an id", value.text());
        return add_piece(piece, value.count);
      case vocab_list:
        return fail(name, "a pair of a piece and its score", value.text());
      case vocab_pair:
        if (pair == 2) return fail(name, "a piece and its score", "more");
        if (pair++ == 0)
          return value.kind == kinds::text ? add_piece(value.string, vocabulary.size())
                                           : fail(name, "a piece", value.text());
        if (value.kind != kinds::number) return fail(name, "a score", value.text());
        scores.push_back(value.number);
        return true;
      case merge_list: {
        const std::size_t space =
            value.kind == kinds::text ? value.string.find(' ') : std::string_view::npos;
        if (space == std::string_view::npos)
          return fail(name, "two pieces with a space between", value.text());
        return add_to_merge(value.string.substr(0, space)) &&
               add_to_merge(value.string.substr(space + 1));
      }
      case merge_pair:
        if (value.kind != kinds::text || pair == 2)
          return fail(name, "two pieces", value.kind == kinds::text ? "more" : value.text());
        ++pair;
        return add_to_merge(value.string);
      case added_list:
        return fail(name, "an object", value.text());
      case added_entry:
        return add_field(value);
      default:
        if (!is_setting()) return true;
        if (facts.size() == most_facts) return too_many("settings", most_facts);
        facts.push_back({name, value.kind == kinds::text ? '"' + std::string(value.string) + '"'
                                                         : value.text()});
        return true;
    }
  }
  bool fail(std::string what, std::string expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }

 private:
  enum places {
    top,
    other,
    vocab,
    vocab_list,
    vocab_pair,
    merge_list,
    merge_pair,
    added_list,
    added_entry
  };
  struct frame {
    places place;
    bool array;
    index elements;
    std::string name;
  };
  static constexpr std::size_t deepest = 16, most_facts = 4096;

  std::vector<frame> stack{};
  std::string name{}, piece{};  ///< of the value that is next; a key of the vocabulary
  std::string content{};        ///< of an added token
  index pair = 0;               ///< pieces of a merge so far

  bool enter(places place, bool array = false) {
    const bool list = place == vocab_list || place == vocab_pair || place == merge_list ||
                      place == merge_pair || place == added_list;
    stack.push_back({place, array || list, 0, place == top ? std::string() : name});
    return true;
  }
  /// Names the next element of an array.
  void name_element() {
    frame& in = stack.back();
    if (in.array) name = in.name + "[" + std::to_string(in.elements++) + "]";
  }
  /// Whether what is next has a meaning for linnet.
  bool is_setting() const {
    for (const char* part : {"model", "normalizer", "pre_tokenizer", "decoder"})
      if (name.starts_with(part)) return true;
    return false;
  }
  bool once(bool& there) {
    return std::exchange(there, true) ? fail(name, "it once", "it twice") : true;
  }
  bool too_many(const char* what, auto most) {
    failure = {errc::unsupported, where, what, "at most " + std::to_string(most), "more"};
    return false;
  }
  bool add_piece(std::string_view text, std::uint64_t id) {
    if (vocabulary.size() == static_cast<std::size_t>(bpe_tokenizer::most_pieces))
      return too_many("model.vocab", bpe_tokenizer::most_pieces);
    ids.push_back(id);
    vocabulary.push_back(text);
    return true;
  }
  bool add_to_merge(std::string_view text) {
    if (merges.size() == 2 * static_cast<std::size_t>(bpe_tokenizer::most_pieces))
      return too_many("model.merges", bpe_tokenizer::most_pieces);
    merges.push_back(text);
    return true;
  }
  bool add_field(const json_scalar& value) {
    using kinds = json_scalar::kinds;
    added_token& token = added.back();
    const std::string field = name.substr(name.rfind('.') + 1);
    if (field == "id") {
      if (!value.whole) return fail(name, "an id", value.text());
      token.id = value.count;
      return once(token.has_id);
    }
    if (field == "content") {
      if (value.kind != kinds::text || value.string.empty())
        return fail(name, "a text", value.text());
      content = value.string;
      return once(token.has_text);
    }
    if (value.kind != kinds::boolean) return fail(name, "true or false", value.text());
    for (const auto& [known, to] :
         {std::pair("special", &token.special), std::pair("normalized", &token.normalized),
          std::pair("single_word", &token.single_word), std::pair("lstrip", &token.lstrip),
          std::pair("rstrip", &token.rstrip)})
      if (field == known) {
        *to = value.truth;
        return true;
      }
    if (!value.truth) return true;
    failure = {errc::unsupported, where, name, "false", "true"};
    return false;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The settings of a tokenizer.json: model, normalizer, pre-tokenizer and decoder.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The bytes of a text in base 64, or none if it is another text.
inline std::string from_base64(std::string_view text) {
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (digit < 0) return {};
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(static_cast<unsigned char>(bits >> count));
  }
  return bytes;
}

/// Turns the settings into parts. The failure names the first one that linnet does not follow.
class hf_tokenizer_settings {
 public:
  explicit hf_tokenizer_settings(const hf_tokenizer_reader& file) : file_(file) {
    for (const key_value& f : file.facts) facts_.push_back({&f, false});
    std::sort(facts_.begin(), facts_.end(),
              [](const fact& a, const fact& b) { return a.is->key < b.is->key; });
  }

  /// Applies all settings. Errors: errc::unsupported, errc::malformed (one that is there twice).
  result<void> apply(tokenizer_parts& parts) {
    const auto twice =
        std::adjacent_find(facts_.begin(), facts_.end(),
                           [](const fact& a, const fact& b) { return a.is->key == b.is->key; });
    if (twice != facts_.end())
      return error{errc::malformed, file_.where, twice->is->key, "it once", "it twice"};
    const auto with = [&](auto member) {
      return [this, &parts, member](const std::string& name, const std::string& type) {
        return (this->*member)(name, type, parts);
      };
    };
    const bool done =
        model(parts) &&
        each_step("normalizer", "normalizers", with(&hf_tokenizer_settings::normalizer)) &&
        each_step("pre_tokenizer", "pretokenizers", with(&hf_tokenizer_settings::pre_tokenizer)) &&
        each_step("decoder", "decoders", with(&hf_tokenizer_settings::decoder)) &&
        fit_together(parts) && all_used();
    return done ? result<void>() : failure_;
  }
  /// The id of the unknown token.
  result<void> find_unknown(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    const char* const key = parts.model == models::unigram ? "model.unk_id" : "model.unk_token";
    const std::string* const value = get(key);
    if (!value) return {};
    if (parts.model == models::unigram) {
      const index id = whole(*value);
      if (id < 0 || id >= std::ssize(file_.ids))
        return error{errc::malformed, file_.where, key, "an id of model.vocab", printable(*value)};
      parts.unknown = static_cast<token>(id);
      return {};
    }
    for (std::size_t i = 0; i < file_.vocabulary.size(); ++i)
      if (file_.vocabulary[i] == unquoted(*value) && file_.ids[i] < INT32_MAX) {
        parts.unknown = static_cast<token>(file_.ids[i]);
        return {};
      }
    if (parts.model == models::byte_bpe) return {};
    return error{errc::malformed, file_.where, key, "a piece of model.vocab", printable(*value)};
  }

 private:
  struct fact {
    const key_value* is;
    bool used;
  };
  const hf_tokenizer_reader& file_;
  std::vector<fact> facts_;  ///< by key
  error failure_{};
  // The decoder's work.
  bool bytes_ = false, byte_decoder_ = false, wordpiece_ = false, spaces_ = false,
       byte_fallback_ = false;
  std::string decoder_prefix_{};

  /// The value of a setting, or null for none and for null.
  const std::string* get(const std::string& key) {
    const auto at =
        std::lower_bound(facts_.begin(), facts_.end(), key,
                         [](const fact& f, const std::string& k) { return f.is->key < k; });
    if (at == facts_.end() || at->is->key != key) return nullptr;
    at->used = true;
    return at->is->value == "null" ? nullptr : &at->is->value;
  }
  bool has_within(const std::string& prefix) const {
    const auto at =
        std::lower_bound(facts_.begin(), facts_.end(), prefix,
                         [](const fact& f, const std::string& k) { return f.is->key < k; });
    return at != facts_.end() && at->is->key.starts_with(prefix);
  }
  static std::string unquoted(const std::string& value) {
    return value.size() >= 2 && value[0] == '"' ? value.substr(1, value.size() - 2) : value;
  }
  static index whole(const std::string& value) {
    if (value.empty() || value.size() > 9) return -1;
    index number = 0;
    for (const char c : value) {
      if (c < '0' || c > '9') return -1;
      number = 10 * number + (c - '0');
    }
    return number;
  }
  bool refuse(std::string key, std::string expected, const std::string& got) {
    failure_ = {errc::unsupported, file_.where, std::move(key), std::move(expected),
                printable(got)};
    return false;
  }
  /// Reads a truth value.
  bool read(const std::string& key, bool& to) {
    const std::string* const value = get(key);
    if (!value) return true;
    if (*value != "true" && *value != "false") return refuse(key, "true or false", *value);
    to = *value == "true";
    return true;
  }
  /// Reads a text.
  bool read(const std::string& key, std::string& to) {
    const std::string* const value = get(key);
    if (!value) return true;
    if ((*value)[0] != '"') return refuse(key, "a text", *value);
    to = unquoted(*value);
    return true;
  }
  /// Refuses all values but one, and none at all if `needed`.
  bool only(const std::string& key, const std::string& expected, bool needed = false) {
    const std::string* const value = get(key);
    if (value ? *value == expected : !needed) return true;
    return refuse(key, expected, value ? *value : "none");
  }

  /// Calls handle(name, type) for a step, or for those of a sequence.
  template <class F>
  bool each_step(const std::string& name, const char* list, F&& handle) {
    if (const std::string* const value = get(name)) return refuse(name, "an object", *value);
    if (!has_within(name + ".")) return true;
    std::string type;
    if (!read(name + ".type", type)) return false;
    if (type != "Sequence") return handle(name, type);
    for (std::size_t i = 0;; ++i) {
      const std::string inner = name + "." + list + "[" + std::to_string(i) + "]";
      if (!has_within(inner + ".")) return true;
      if (!each_step(inner, list, handle)) return false;
    }
  }

  bool model(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    std::string type = "BPE", prefix;
    if (!read("model.type", type) || !read("model.continuing_subword_prefix", prefix) ||
        !read("model.byte_fallback", parts.byte_fallback))
      return false;
    if (type == "WordPiece") {
      parts.model = models::wordpiece;
      parts.spelling = tokenizer_parts::spellings::wordpiece;
      parts.prefix = prefix;
      if (const std::string* const value = get("model.max_input_chars_per_word")) {
        parts.longest_word = whole(*value);
        if (parts.longest_word < 1)
          return refuse("model.max_input_chars_per_word", "a number of characters", *value);
      }
      return !prefix.empty() || refuse("model.continuing_subword_prefix", "a text", "none");
    }
    if (type == "Unigram") {
      parts.model = models::unigram;
      parts.scores = file_.scores;
      return !file_.has_vocabulary || file_.scores.size() == file_.vocabulary.size() ||
             refuse("model.vocab", "an array of pieces and their scores", "an object");
    }
    if (type != "BPE") return refuse("model.type", "BPE, WordPiece or Unigram", type);
    if (!file_.scores.empty()) return refuse("model.vocab", "an object of ids", "an array");
    if (const std::string* const value = get("model.dropout"); value && *value != "0")
      return refuse("model.dropout", "null", *value);
    for (const char* const key : {"model.continuing_subword_prefix", "model.end_of_word_suffix"})
      if (const std::string* const value = get(key); value && *value != "\"\"")
        return refuse(key, "null", *value);
    parts.model = models::bpe;
    return read("model.ignore_merges", parts.whole_words_first) &&
           read("model.fuse_unk", parts.fuse_unknown);
  }

  bool normalizer(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    using kinds = normalization::kinds;
    const auto add = [&](kinds kind, std::string pattern = {}, std::string content = {}) {
      parts.changes.push_back({kind, std::move(pattern), std::move(content)});
      return true;
    };
    for (const auto& [known, kind] :
         {std::pair("NFC", kinds::nfc), std::pair("NFD", kinds::nfd),
          std::pair("NFKC", kinds::nfkc), std::pair("NFKD", kinds::nfkd),
          std::pair("Lowercase", kinds::lowercase), std::pair("StripAccents", kinds::strip_marks)})
      if (type == known) return add(kind);
    if (type == "BertNormalizer") {
      bool clean = true, chinese = true, lower = true;
      if (!read(name + ".clean_text", clean) || !read(name + ".handle_chinese_chars", chinese) ||
          !read(name + ".lowercase", lower))
        return false;
      bool accents = lower;
      if (!read(name + ".strip_accents", accents)) return false;
      if (clean) add(kinds::clean);
      if (chinese) add(kinds::space_chinese);
      if (accents) add(kinds::nfd), add(kinds::strip_accents);
      return !lower || add(kinds::lowercase);
    }
    std::string text, regex, content;
    if (type == "Prepend") return read(name + ".prepend", text) && add(kinds::prepend, {}, text);
    if (type == "Replace") {
      if (!read(name + ".pattern.String", text) || !read(name + ".pattern.Regex", regex) ||
          !read(name + ".content", content))
        return false;
      if (regex.empty()) return add(kinds::replace, text, content);
      return regex == " {2,}" ? add(kinds::squeeze, " ", content)
                              : refuse(name + ".pattern.Regex", "\" {2,}\"", regex);
    }
    if (type == "Strip") {
      bool left = true, right = true;
      if (!read(name + ".strip_left", left) || !read(name + ".strip_right", right)) return false;
      if (left) add(kinds::strip_left);
      return !right || add(kinds::strip_right);
    }
    if (type == "Precompiled") {
      if (!read(name + ".precompiled_charsmap", text)) return false;
      content = from_base64(text);
      return text.empty() || (content.empty() ? refuse(name + ".precompiled_charsmap",
                                                       "bytes in base 64", "another text")
                                              : add(kinds::charsmap, {}, content));
    }
    return refuse(name + ".type",
                  "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Prepend, "
                  "Replace, Strip or Precompiled",
                  type);
  }

  bool pre_tokenizer(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    using kinds = word_split::kinds;
    const auto add = [&](kinds kind) {
      parts.splits.push_back({kind});
      return true;
    };
    if (bytes_) return refuse(name + ".type", "\"ByteLevel\" as the last step", type);
    if (type == "ByteLevel") {
      bool regex = true, prefixed = true;
      bytes_ = true;
      const std::string prefix = name + ".add_prefix_space";
      if (!get(prefix)) return refuse(prefix, "true or false", "none");
      if (!read(prefix, prefixed) || !read(name + ".use_regex", regex)) return false;
      get(name + ".trim_offsets");
      if (prefixed) add(kinds::prefix_space);
      return !regex || add(kinds::gpt2);
    }
    if (type == "Digits") {
      bool single = false;
      return read(name + ".individual_digits", single) &&
             add(single ? kinds::digits : kinds::digit_runs);
    }
    if (type == "Split") return split(name, parts);
    if (type == "BertPreTokenizer") return add(kinds::white_space) && add(kinds::punctuation);
    if (type == "Whitespace") return add(kinds::words);
    if (type == "WhitespaceSplit") return add(kinds::white_space);
    if (type == "Punctuation")
      return only(name + ".behavior", "\"Isolated\"") && add(kinds::punctuation);
    if (type == "Metaspace") {
      word_split s{kinds::metaspace};
      std::string scheme;
      if (!metaspace_fields(name, scheme) || !read(name + ".split", s.cut)) return false;
      s.prefix = scheme == "never"   ? word_split::prefixes::never
                 : scheme == "first" ? word_split::prefixes::first
                                     : word_split::prefixes::always;
      parts.splits.push_back(s);
      return true;
    }
    return refuse(name + ".type",
                  "ByteLevel, Digits, Split, BertPreTokenizer, Whitespace, WhitespaceSplit, "
                  "Punctuation or Metaspace",
                  type);
  }
  /// A split by a pattern that is known.
  bool split(const std::string& name, tokenizer_parts& parts) {
    using kinds = word_split::kinds;
    static constexpr std::string_view newer =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}@| ?[^\\s\\p{L}\\p{N}]+"
        "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    static constexpr std::string_view older =
        "@| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const auto with = [](std::string_view pattern, std::string_view part) {
      const std::size_t at = pattern.find('@');
      return (std::string(pattern.substr(0, at)) += part) += pattern.substr(at + 1);
    };
    std::string regex, behavior;
    bool invert = false;
    if (!read(name + ".pattern.Regex", regex) || !read(name + ".behavior", behavior) ||
        !read(name + ".invert", invert))
      return false;
    if (const std::string* const text = get(name + ".pattern.String"))
      return refuse(name + ".pattern", "a regular expression that linnet knows", *text);
    if (behavior != (invert ? "Removed" : "Isolated"))
      return refuse(name + ".behavior", invert ? "\"Removed\"" : "\"Isolated\"", behavior);
    for (const auto& [known, kind] :
         {std::pair(with(newer, "{1,3}"), kinds::llama3), std::pair(with(newer, ""), kinds::qwen2),
          std::pair(with(older, "'s|'t|'re|'ve|'m|'ll|'d"), kinds::gpt2),
          std::pair(with(older, "'(?:[sdmt]|ll|ve|re)"), kinds::gpt2)})
      if (regex == known) {
        parts.splits.push_back({kind});
        return true;
      }
    return refuse(name + ".pattern.Regex", "the pattern of GPT-2, Llama 3 or Qwen2",
                  '"' + regex + '"');
  }
  /// The fields that Metaspace has as a pre-tokenizer and as a decoder.
  bool metaspace_fields(const std::string& name, std::string& scheme) {
    bool prefixed = true;  // older files
    if (!only(name + ".replacement", '"' + std::string(metaspace) + '"') ||
        !only(name + ".str_rep", '"' + std::string(metaspace) + '"') ||
        !read(name + ".add_prefix_space", prefixed))
      return false;
    scheme = prefixed ? "always" : "never";
    if (!read(name + ".prepend_scheme", scheme)) return false;
    return scheme == "always" || scheme == "first" || scheme == "never" ||
           refuse(name + ".prepend_scheme", "always, first or never", scheme);
  }

  bool decoder(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    if (type == "ByteLevel") {
      byte_decoder_ = true;
      for (const char* const field : {".add_prefix_space", ".trim_offsets", ".use_regex"})
        get(name + field);
      return true;
    }
    if (type == "WordPiece") {
      wordpiece_ = parts.clean_up = true;
      decoder_prefix_ = "##";
      return read(name + ".prefix", decoder_prefix_) && read(name + ".cleanup", parts.clean_up);
    }
    if (type == "Metaspace") {
      std::string scheme;
      bool cut = true;
      spaces_ = true;
      if (!metaspace_fields(name, scheme) || !read(name + ".split", cut)) return false;
      parts.keep_first_space = scheme == "never";
      return true;
    }
    if (type == "Replace") {
      spaces_ = parts.keep_first_space = true;
      return only(name + ".pattern.String", '"' + std::string(metaspace) + '"', true) &&
             only(name + ".content", "\" \"", true);
    }
    if (type == "ByteFallback") return byte_fallback_ = true;
    if (type == "Fuse") return true;
    if (type == "Strip") {
      const std::string* const start = get(name + ".start");
      if (start && *start != "0" && *start != "1") return refuse(name + ".start", "0 or 1", *start);
      parts.keep_first_space = !start || *start == "0";
      return only(name + ".content", "\" \"") && only(name + ".stop", "0");
    }
    return refuse(name + ".type",
                  "ByteLevel, WordPiece, Metaspace, Replace, ByteFallback, Fuse or Strip", type);
  }

  /// Whether model, pre-tokenizer and decoder are of one kind.
  bool fit_together(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    if (bytes_ || byte_decoder_) {
      if (!bytes_) return refuse("pre_tokenizer", "\"ByteLevel\"", "none");
      if (!byte_decoder_) return refuse("decoder", "\"ByteLevel\"", "none");
      if (parts.model != models::bpe)
        return refuse("model.type", "\"BPE\" with \"ByteLevel\"", "another");
      if (parts.byte_fallback)
        return refuse("model.byte_fallback", "false with \"ByteLevel\"", "true");
      parts.model = models::byte_bpe;
      return true;
    }
    if (parts.model == models::wordpiece) {
      if (!wordpiece_) return refuse("decoder", "\"WordPiece\"", "none");
      return decoder_prefix_ == parts.prefix ||
             refuse("decoder.prefix", '"' + parts.prefix + "\" as in the model", decoder_prefix_);
    }
    if (!spaces_ || wordpiece_)
      return refuse("decoder", "\"ByteLevel\", or \"Metaspace\" or \"Replace\" for spaces",
                    wordpiece_ ? "\"WordPiece\"" : "none");
    if (parts.byte_fallback && !byte_fallback_)
      return refuse("decoder", "\"ByteFallback\" as in the model", "none");
    parts.spelling = tokenizer_parts::spellings::metaspace;
    return true;
  }
  /// Refuses settings that nothing has asked for.
  bool all_used() {
    for (const fact& f : facts_)
      if (!f.used && f.is->value != "null" && !f.is->key.starts_with("model"))
        return refuse(f.is->key, "no such setting", f.is->value);
    return true;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The pieces of a tokenizer.json in the order of their ids. What is taken from `file` is gone.
inline result<void> take_hf_pieces(hf_tokenizer_reader& file, tokenizer_parts& parts) {
  const auto wrong = [&](std::string what, std::string expected, std::string got) {
    return error{errc::malformed, file.where, std::move(what), std::move(expected), std::move(got)};
  };
  const auto name_of = [&](std::size_t i) {
    return "model.vocab: " + json_quoted(printable(file.vocabulary[i]));
  };
  const auto name_of_added = [](std::size_t i) {
    return "added_tokens[" + std::to_string(i) + "]";
  };
  // Added texts may stand in the vocabulary too, as they are and not in letters.
  std::vector<std::uint32_t> by_text(file.added.size());
  for (std::size_t i = 0; i < by_text.size(); ++i) by_text[i] = static_cast<std::uint32_t>(i);
  std::sort(by_text.begin(), by_text.end(), [&](std::uint32_t a, std::uint32_t b) {
    const int order = file.added_texts[a].compare(file.added_texts[b]);
    return order != 0 ? order < 0 : a < b;
  });
  std::size_t twice = by_text.size();
  for (std::size_t i = 1; i < by_text.size(); ++i)
    if (file.added_texts[by_text[i]] == file.added_texts[by_text[i - 1]])
      twice = (std::min)(twice, std::size_t{by_text[i]});
  if (twice < by_text.size())
    return wrong(name_of_added(twice) + ".content", "a text that is new",
                 printable(file.added_texts[twice]));
  std::vector<bool> known(file.added.size());
  std::size_t extra = file.added.size();
  for (std::size_t i = 0; i < file.vocabulary.size(); ++i) {
    const std::string_view text = file.vocabulary[i];
    const auto at = std::lower_bound(
        by_text.begin(), by_text.end(), text,
        [&](std::uint32_t a, std::string_view b) { return file.added_texts[a] < b; });
    if (at == by_text.end() || file.added_texts[*at] != text) continue;
    if (known[*at]) return wrong(name_of(i), "it once", "it twice");
    known[*at] = true;
    --extra;
    if (const auto id = file.added[*at].id; id != file.ids[i])
      return wrong(name_of_added(*at) + ".id", std::to_string(file.ids[i]) + " as in model.vocab",
                   std::to_string(id));
  }
  (void)std::exchange(by_text, {});

  constexpr std::uint32_t none = UINT32_MAX;
  const std::size_t total = file.vocabulary.size() + extra;
  std::vector<std::uint32_t> by_id(total, none);  // below total: an entry; above: an added text
  const auto put = [&](std::uint64_t id, std::size_t entry, auto&& name) -> result<void> {
    if (id >= total)
      return wrong(name(), "an id below " + std::to_string(total) + ", the number of pieces",
                   std::to_string(id));
    if (by_id[id] != none)
      return wrong(name(), "an id of its own", std::to_string(id) + ", which another piece has");
    by_id[id] = static_cast<std::uint32_t>(entry);
    return {};
  };
  for (std::size_t i = 0; i < file.vocabulary.size(); ++i)
    if (auto done = put(file.ids[i], i, [&] { return name_of(i); }); !done) return done;
  std::size_t next = file.vocabulary.size();  // Hugging Face gives ids in the order of the list
  for (std::size_t i = 0; i < file.added.size(); ++i) {
    const std::uint64_t id = file.added[i].id;
    const auto name = [&] { return name_of_added(i) + ".id"; };
    if (known[i]) {
      by_id[id] = static_cast<std::uint32_t>(total + i);
      continue;
    }
    if (auto done = put(id, total + i, name); !done) return done;
    if (id != next)
      return error{errc::unsupported, file.where, name(),
                   std::to_string(next) + ", the next id in the order of the list",
                   std::to_string(id)};
    ++next;
  }
  (void)std::exchange(file.ids, {});

  parts.tokens.reserve(file.vocabulary.bytes() + file.added_texts.bytes());
  for (const std::uint32_t entry : by_id)  // every id has one: there are as many
    parts.tokens.push_back(entry < total ? file.vocabulary[entry]
                                         : file.added_texts[entry - total]);
  for (std::size_t i = 0; i < file.added.size(); ++i)
    parts.added.push_back({static_cast<token>(file.added[i].id), file.added[i].special,
                           file.added[i].normalized, known[i], file.added[i].single_word,
                           file.added[i].lstrip, file.added[i].rstrip});
  (void)std::exchange(file.vocabulary, {});
  (void)std::exchange(file.added_texts, {});
  (void)std::exchange(file.added, {});
  return {};
}

}  // namespace detail

/// Parses a tokenizer.json held in memory, of at most 64 MiB, with the ids 0 to n - 1. Its model is
/// of byte pairs, character pairs, WordPiece or unigram; docs/tokenizers.md lists the settings.
/// Added tokens become added texts. Truncation, padding and post-processing (begin and end tokens)
/// are left to the caller. `where` names the file in errors. Errors, with the field:
/// errc::unsupported (another model, or a setting that linnet does not follow), errc::malformed.
inline result<tokenizer> parse_hf_tokenizer(
    std::span<const std::byte> text, const std::string& where = "tokenizer.json") LINNET_TRY {
  if (!detail::has_memory_to_read(text.size())) return detail::out_of_memory(where);
  detail::hf_tokenizer_reader file(where);
  if (auto read = detail::read_json(text, bpe_tokenizer::longest_file, where, "content", file);
      !read)
    return read.error();
  tokenizer_parts parts;
  parts.tokens_name = "model.vocab";
  parts.merges_name = "model.merges";
  parts.named_by_text = true;
  detail::hf_tokenizer_settings settings(file);
  if (auto done = settings.apply(parts); !done) return done.error();
  const bool pairs = parts.model == tokenizer_parts::models::byte_bpe ||
                     parts.model == tokenizer_parts::models::bpe;
  for (const auto& [there, name] : {std::pair(file.has_vocabulary, "model.vocab"),
                                    std::pair(file.has_merges || !pairs, "model.merges")})
    if (!there) return error{errc::malformed, where, name, "a list", "none"};
  if (auto done = settings.find_unknown(parts); !done) return done.error();
  if (auto done = detail::take_hf_pieces(file, parts); !done) return done.error();
  parts.merges = std::exchange(file.merges, {});
  return tokenizer::assemble(std::move(parts), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a tokenizer.json. Errors: those of read_file() and parse_hf_tokenizer().
inline result<tokenizer> read_hf_tokenizer(const std::string& path) LINNET_TRY {
  const auto file = read_file(path);
  return file ? parse_hf_tokenizer(*file, path) : result<tokenizer>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Figures of a run (loss, rate, tokens, seconds, ...) as JSON lines or CSV, one line per step.
/// Opt-in, through linnet/json.hpp.

LINNET_NAMESPACE_BEGIN

/// A log that a resumed run continues: lines after the step of its checkpoint are dropped, so no
/// step is logged twice. Movable. CSV if the path ends in .csv, else JSON lines.
class metrics_log {
 public:
  /// Opens the log, with these columns after "step". Of what is there, the lines up to step `last`
  /// stay; 0 begins anew. Lines that are lost or damaged stop no run: note() says so, and a damaged
  /// file is kept as `path`.damaged. Errors: errc::io; errc::mismatch (the file has other columns);
  /// errc::out_of_memory.
  static result<metrics_log> open(const std::string& path, std::vector<std::string> columns,
                                  index last = 0) LINNET_TRY {
    metrics_log log;
    log.path_ = path;
    log.csv_ = path.ends_with(".csv");
    log.columns_ = std::move(columns);
    std::string kept;
    if (log.csv_) {
      kept = "step";
      for (const std::string& name : log.columns_) kept += ',' + csv_quoted(name);
      kept += '\n';
    }
    if (last > 0)
      if (auto read = log.keep_lines(kept, last); !read) return read.error();
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    log.file_.emplace(*std::move(file));
    return log;
  }
  LINNET_OR_OUT_OF_MEMORY(path)
  /// Description of a fault in the lines up to the step that open() was given; empty if there is
  /// none.
  const std::string& note() const { return note_; }

  /// Adds a line: the figures of step `step` in the order of the columns. Numbers that are not
  /// finite are null in JSON, empty in CSV. Errors: errc::io, errc::invalid (another number of
  /// figures).
  result<void> write(index step, std::span<const double> figures) LINNET_TRY {
    if (figures.size() != columns_.size())
      return error{errc::invalid, path_, "figures", std::to_string(columns_.size()),
                   std::to_string(figures.size())};
    std::string line = csv_ ? "" : std::string(before_step);
    line += std::to_string(step);
    for (std::size_t i = 0; i < figures.size(); ++i) {
      line += ',';
      if (!csv_) line += detail::json_quoted(columns_[i]) + ':';
      if (is_finite(figures[i]))
        line += detail::number_text(figures[i]);
      else if (!csv_)
        line += "null";
    }
    line += csv_ ? "\n" : "}\n";
    return file_->write(line);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// Waits until all lines are on the disk. Call it before each save_checkpoint(), so that the log
  /// of a run that is resumed there has lost none. Errors: errc::io.
  result<void> sync() { return file_->sync(); }

 private:
  static constexpr std::string_view before_step = "{\"step\":";

  /// A field of CSV, quoted as RFC 4180 says where it must be.
  static std::string csv_quoted(const std::string& field) {
    if (field.find_first_of(",\"\r\n") == field.npos) return field;
    std::string quoted = "\"";
    for (const char c : field) quoted.append(c == '"' ? 2 : 1, c);
    return quoted + '"';
  }
  /// Adds to the header the lines of the file up to step `last`. A line that was not ended is of no
  /// checkpoint.
  result<void> keep_lines(std::string& kept, index last) {
    const auto file = read_file(path_);
    if (!file && file.error().code == errc::out_of_memory) return file.error();
    const std::string header = kept;
    std::string_view text;
    if (file) text = {reinterpret_cast<const char*>(file->data()), file->size()};
    if (const auto first = text.substr(0, text.find('\n')); text.starts_with(header))
      text.remove_prefix(header.size());
    else if (first.size() < text.size() && first.find('\0') == first.npos)
      return error{errc::mismatch, path_, "columns",
                   detail::printable(std::string_view(header).substr(0, header.size() - 1)),
                   detail::printable(first)};
    index damaged = 0, step = 0;
    for (std::size_t end = 0; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1)) {
      const index next = step_of(text.substr(0, end));
      damaged += next < step;
      if (next < step || next > last) continue;
      kept += text.substr(0, end + 1);
      step = next;
    }
    damaged += text.find('\0') != text.npos;  // a block that never came to the disk
    if (!file)
      note_ = file.error().message();
    else if (damaged > 0)
      note_ = path_ + ": expected lines of steps, got " + std::to_string(damaged) + " damaged";
    else if (step == 0)
      note_ = path_ + ": expected lines up to step " + std::to_string(last) + ", got none";
    if (!file || damaged > 0) detail::set_aside(path_);
    return {};
  }
  /// The step of a line; -1 for one that write() did not write.
  index step_of(std::string_view line) const {
    if (!csv_) {
      if (!line.starts_with(before_step) || !line.ends_with('}')) return -1;
      line.remove_prefix(before_step.size());
    }
    if (csv_ && std::ranges::count(line, ',') != std::ssize(columns_)) return -1;
    index step = -1;
    const auto end = std::from_chars(line.data(), line.data() + line.size(), step);
    return end.ec == std::errc() ? step : -1;
  }
  std::string path_, note_;
  bool csv_ = false;
  std::vector<std::string> columns_;
  std::optional<line_file> file_;
};

LINNET_NAMESPACE_END
