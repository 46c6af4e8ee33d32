// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tests of language models whose files are JSON: BLiMP, ARC, WinoGrande, LAMBADA and GSM8K.
/// Opt-in, through linnet/json.hpp.

#include <linnet/data/json_lines.hpp>
#include <linnet/eval/answers.hpp>
#include <linnet/eval/tasks.hpp>

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
