// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hugging Face's config.json as a table of fields.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/file/file.hpp>
#include <linnet/file/json.hpp>

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
