// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tables in text files: tab-separated values, and comma-separated ones with quotes (RFC 4180).

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/core/text_list.hpp>

LINNET_NAMESPACE_BEGIN

/// How a table is written. Lines end with LF or CR LF, the last one with nothing too.
struct table_format {
  char delimiter = '\t';
  bool quoted = false;       ///< fields may stand in double quotes and then hold anything
  bool header = true;        ///< the first row names the columns
  bool skips_short = false;  ///< lines with fewer fields than the first are left out, unless quoted

  /// Tab-separated values as GLUE has them: quotes mean nothing.
  static constexpr table_format tsv(bool header = true) { return {'\t', false, header}; }
  /// Comma-separated values.
  static constexpr table_format csv(bool header = true) { return {',', true, header}; }
};

/// Rows of equally many text fields, each row with the line of the file where it begins.
class table {
 public:
  /// A table without rows. `where` names the file in errors.
  explicit table(std::string where, const std::vector<std::string>& names = {})
      : where_(std::move(where)), columns_(std::ssize(names)), header_(!names.empty()) {
    for (const std::string& name : names) append(name);
    if (header_) lines_.push_back(0);
  }

  /// Parses a file held in memory; a UTF-8 byte order mark is left out. Errors: errc::malformed,
  /// naming file and line, for rows of different lengths and misplaced quotes.
  static result<table> parse(std::string_view text, const table_format& format,
                             const std::string& where = "table");

  /// Number of rows, without a header.
  index rows() const { return (std::max)(static_cast<index>(lines_.size()) - header_, index{0}); }
  /// Number of columns.
  index columns() const { return columns_; }
  /// Lines that were left out, as table_format::skips_short asks.
  index left_out() const { return left_out_; }
  /// The field of a row and a column.
  std::string_view at(index row, index column) const {
    return fields_[static_cast<std::size_t>((row + header_) * columns_ + column)];
  }
  /// The line of the file where a row begins, from 1.
  index line(index row) const {
    return static_cast<index>(lines_[static_cast<std::size_t>(row + header_)]);
  }
  /// The number of the column of that name. Errors: errc::missing.
  result<index> column(std::string_view name) const LINNET_TRY {
    std::string all;
    for (index i = 0; header_ && i < columns_; ++i) {
      const std::string_view one = fields_[static_cast<std::size_t>(i)];
      if (one == name) return i;
      if (all.size() <= 60) (all += i == 0 ? "" : ", ") += one;
    }
    return error{errc::missing, where_, "column " + std::string(name), "one of that name",
                 all.empty() ? "no header" : detail::printable(all)};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// The error of a field.
  error wrong(index row, std::string what, std::string expected, std::string_view got) const {
    return wrong_at(line(row), std::move(what), std::move(expected), detail::printable(got));
  }

  /// Adds a field to the last, unfinished row.
  void append(std::string_view field) { fields_.push_back(field); }
  /// Finishes a row that began at this line. Errors: errc::malformed, for a row that is not as long
  /// as the others.
  result<void> end_row(index line) LINNET_TRY {
    const index fields = unfinished();
    if (columns_ == 0) columns_ = fields;
    if (fields != columns_)
      return wrong_at(line, "fields", std::to_string(columns_), std::to_string(fields));
    lines_.push_back(static_cast<std::uint64_t>(line));
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  error wrong_at(index line, std::string what, std::string expected, std::string got) const {
    return {errc::malformed, where_ + ":" + std::to_string(line), std::move(what),
            std::move(expected), std::move(got)};
  }
  /// Fields of the last row, which has no end yet.
  index unfinished() const {
    return static_cast<index>(fields_.size()) - static_cast<index>(lines_.size()) * columns_;
  }

  std::string where_;
  detail::text_list fields_;      ///< row by row
  detail::rising_numbers lines_;  ///< of each row
  index columns_;                 ///< 0 before the first row
  index left_out_ = 0;            ///< lines
  bool header_;                   ///< whether the first row is one
};

inline result<table> table::parse(std::string_view text, const table_format& format,
                                  const std::string& where) LINNET_TRY {
  if (!detail::has_memory(2 * text.size())) return detail::out_of_memory(where);
  table made(where);
  made.header_ = format.header;
  made.fields_.reserve(text.size() + 1);  // a field's delimiter takes a byte
  index line = 1;
  const char stops[] = {format.delimiter, '\n'};
  const auto drop = [&](std::size_t n) { text.remove_prefix((std::min)(n, text.size())); };
  if (text.starts_with("\xef\xbb\xbf")) drop(3);
  while (!text.empty()) {
    const index row_line = line;
    if (format.skips_short && !format.quoted && made.columns_ > 0) {
      const std::string_view whole = text.substr(0, text.find('\n'));
      if (std::count(whole.begin(), whole.end(), format.delimiter) + 1 < made.columns_) {
        drop(whole.size() + 1);
        ++line, ++made.left_out_;
        continue;
      }
    }
    for (bool more = true; more;) {
      const auto field = [&] { return "field " + std::to_string(made.unfinished() + 1); };
      if (format.quoted && text.starts_with('"')) {
        const index opened = line;
        drop(1);
        for (;;) {
          const std::size_t end = text.find('"');
          if (end == text.npos)
            return made.wrong_at(opened, field(), "a closing quote", "the end of the file");
          line += std::count(text.begin(), text.begin() + static_cast<index>(end), '\n');
          made.fields_.extend(text.substr(0, end));
          drop(end + 1);
          if (!text.starts_with('"')) break;
          made.fields_.extend("\"");  // a doubled one
          drop(1);
        }
        if (!text.empty() && text[0] != format.delimiter && text[0] != '\n' &&
            !text.starts_with("\r\n"))
          return made.wrong_at(line, field(), "a delimiter or a line's end behind the quote",
                               detail::printable(text.substr(0, 1)));
        made.append("");
      } else {
        const std::size_t end = (std::min)(text.find_first_of({stops, 2}), text.size());
        std::string_view plain = text.substr(0, end);
        if (text.substr(end).starts_with('\n') && plain.ends_with('\r')) plain.remove_suffix(1);
        if (format.quoted && plain.find('"') != plain.npos)
          return made.wrong_at(line, field(), "no quote inside a field without quotes",
                               detail::printable(plain));
        made.append(plain);
        drop(plain.size());
      }
      more = text.starts_with(format.delimiter);
      if (more) drop(1);
    }
    drop(text.starts_with('\r') ? 2 : 1);
    ++line;
    if (auto row = made.end_row(row_line); !row) return row.error();
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
