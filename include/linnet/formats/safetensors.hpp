// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Safetensors files: a strict reader that trusts nothing in the file, and a deterministic writer.
/// Opt-in, through linnet/json.hpp (needs nlohmann/json).

#include <functional>
#include <map>
#include <optional>

#include <linnet/core/utf8.hpp>
#include <linnet/core/view.hpp>
#include <linnet/file/file.hpp>
#include <linnet/file/json.hpp>
#include <linnet/formats/tensor.hpp>

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
