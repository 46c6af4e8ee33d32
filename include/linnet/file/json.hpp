// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// JSON as a stream of events, with nlohmann/json (opt-in, through linnet/json.hpp). Nothing is
/// kept but what the reader of the events keeps, so memory stays bounded and duplicate keys can be
/// seen.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>

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
