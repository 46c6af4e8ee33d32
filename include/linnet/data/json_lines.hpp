// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tables of JSON: one object per line, or an array of objects.

#include <algorithm>
#include <utility>

#include <linnet/data/table.hpp>
#include <linnet/file/json.hpp>

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
