// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Multiple-choice tests from text files: MMLU and HellaSwag. Those in JSON are read by
/// linnet/json.hpp.

#include <linnet/core/utf8.hpp>
#include <linnet/data/table.hpp>
#include <linnet/eval/multiple_choice.hpp>
#include <linnet/text/stream.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Why a text cannot be read, or "".
inline std::string text_problem(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '\0') return "a zero byte";
    const std::size_t n = utf8_sequence(text.substr(i));
    if (n == 0 || (n == 1 && static_cast<unsigned char>(text[i]) >= 0x80))
      return "a byte that begins no UTF-8 sequence";
    i += n;
  }
  return "";
}

/// Refuses a text with nothing to read in it; `where` is its file and line.
inline result<void> check_text(const std::string& where, std::string_view what,
                               std::string_view text) {
  if (const std::string problem = text_problem(text); !problem.empty())
    return error{errc::malformed, where, std::string(what), "UTF-8 text", problem};
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    return error{errc::malformed, where, std::string(what), "a text", "none"};
  return {};
}

/// The items, or an error if there are none.
inline result<std::vector<eval_item>> some_items(std::vector<eval_item> items,
                                                 const std::string& where) {
  if (items.empty()) return error{errc::malformed, where, "items", "at least one", "none"};
  return items;
}

inline std::string_view without_blanks(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t first = (std::min)(text.find_first_not_of(blanks), text.size());
  return text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

/// A text with each `from` in it, from left to right, replaced.
inline std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string replaced;
  replaced.reserve(text.size());
  for (std::size_t at = 0; (at = text.find(from)) != text.npos;) {
    (replaced += text.substr(0, at)) += to;
    text.remove_prefix(at + from.size());
  }
  return replaced += text;
}

}  // namespace detail

/// Reads MMLU (Hendrycks et al. 2021): CSV with the columns question, choice0 to choice3 and answer
/// (0 to 3). `subject` becomes the group. The item is the question and the texts of the choices,
/// not the usual prompt with letters and five examples. Errors: errc::malformed, errc::missing,
/// naming file, line and field.
inline result<std::vector<eval_item>> read_mmlu(std::string_view text, std::string_view subject,
                                                const std::string& where) LINNET_TRY {
  const auto rows = table::parse(text, table_format::csv(), where);
  if (!rows) return rows.error();
  constexpr std::string_view names[] = {"question", "choice0", "choice1",
                                        "choice2",  "choice3", "answer"};
  index columns[6];
  for (std::size_t i = 0; i < 6; ++i) {
    const auto column = rows->column(names[i]);
    if (!column) return column.error();
    columns[i] = *column;
  }
  std::vector<eval_item> items;
  for (index row = 0; row < rows->rows(); ++row) {
    const std::string place = where + ":" + std::to_string(rows->line(row));
    eval_item item{.group = std::string(subject)};
    for (std::size_t i = 0; i < 5; ++i) {
      const std::string_view field = detail::without_blanks(rows->at(row, columns[i]));
      if (auto sound = detail::check_text(place, names[i], field); !sound) return sound.error();
      if (i == 0)
        item.context = field;
      else
        item.options.emplace_back(field);
    }
    const std::string_view answer = rows->at(row, columns[5]);
    if (answer.size() != 1 || answer[0] < '0' || answer[0] > '3')
      return rows->wrong(row, "answer", "0, 1, 2 or 3", answer);
    item.answer = answer[0] - '0';
    items.push_back(std::move(item));
  }
  return detail::some_items(std::move(items), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

namespace detail {
/// clean_hellaswag() for functions that report a lack of memory themselves.
inline std::string cleaned_hellaswag(std::string_view text) {
  const std::string titled = replace_all(without_blanks(text), " [title]", ". ");
  std::string clean;
  clean.reserve(titled.size());
  std::size_t close = 0, newline = 0;  // the first ones behind `open`
  for (std::size_t at = 0, open = 0; at < titled.size();) {
    open = (std::min)(titled.find('[', at), titled.size());
    if (close <= open) close = titled.find(']', open);
    if (newline <= open) newline = titled.find('\n', open);
    const bool pair = open < titled.size() && close != titled.npos && newline > close;
    clean.append(titled, at, open + !pair - at);
    at = pair ? close + 1 : open + 1;
  }
  return replace_all(clean, "  ", " ");
}
}  // namespace detail

/// HellaSwag's texts as the usual harness (EleutherAI's) cleans them: white space at both ends
/// goes, " [title]" becomes ". ", what stands in brackets goes ("[header]", "[step]"), and of two
/// spaces that are left one. "" where memory lacks.
inline std::string clean_hellaswag(std::string_view text) LINNET_TRY {
  return detail::cleaned_hellaswag(text);
}
LINNET_WITHOUT_MEMORY(return {})

/// Reads HellaSwag (Zellers et al. 2019) as text with six lines per item. They are "activity:
/// context", the number of the right ending (0 to 3) and four endings. The group is the activity.
/// Texts are cleaned; an ending of which nothing is left stays as it was. Errors: errc::malformed,
/// naming file and line.
inline result<std::vector<eval_item>> read_hellaswag(std::string_view text,
                                                     const std::string& where) LINNET_TRY {
  std::vector<eval_item> items;
  index line = 0;
  while (!text.empty()) {
    eval_item item;
    for (int part = 0; part < 6; ++part) {
      const std::string place = where + ":" + std::to_string(++line);
      const std::string what = part == 0   ? "context"
                               : part == 1 ? "answer"
                                           : "ending " + std::to_string(part - 2);
      if (text.empty())
        return error{errc::malformed, place, what, "six lines for each item",
                     "the end of the file"};
      const std::size_t end = (std::min)(text.find('\n'), text.size());
      std::string_view field = text.substr(0, end);
      if (field.ends_with('\r')) field.remove_suffix(1);
      text.remove_prefix((std::min)(end + 1, text.size()));
      if (auto sound = detail::check_text(place, what, field); !sound) return sound.error();
      if (part == 0) {
        item.context = detail::cleaned_hellaswag(field);
        item.group = field.substr(0, (std::min)(field.find(": "), field.size()));
      } else if (part == 1) {
        if (field.size() != 1 || field[0] < '0' || field[0] > '3')
          return error{errc::malformed, place, what, "0, 1, 2 or 3", detail::printable(field)};
        item.answer = field[0] - '0';
      } else {
        std::string option = detail::cleaned_hellaswag(field);
        if (option.empty()) option = field;
        item.options.push_back(std::move(option));
      }
    }
    items.push_back(std::move(item));
  }
  return detail::some_items(std::move(items), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
