// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The contents of a GGUF file: typed metadata, and tensors. Opt-in, through linnet/gguf.hpp.

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include <linnet/core/options.hpp>
#include <linnet/core/view.hpp>
#include <linnet/file/corpus.hpp>
#include <linnet/formats/ggml_blocks.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
struct gguf_parser;
}  // namespace detail

/// Types of metadata in GGUF files, with the format's numbers for them.
enum class gguf_kind : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

namespace detail {
struct gguf_kind_metadata {
  std::string_view name;
  std::size_t size;  ///< bytes of a value, at least
};
inline constexpr gguf_kind_metadata gguf_kinds[] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},    {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 8}, {"array", 12}, {"u64", 8}, {"i64", 8}, {"f64", 8}};
inline constexpr std::uint32_t gguf_kind_count = std::size(gguf_kinds);
constexpr const gguf_kind_metadata& metadata_of(gguf_kind kind) {
  return gguf_kinds[static_cast<std::size_t>(kind)];
}
/// A float as its shortest decimal text.
inline std::string float_as_text(float x) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}
/// The text behind its length at `at`, which the parser has found to be whole.
inline std::string_view gguf_text(const std::byte* at) {
  return {reinterpret_cast<const char*>(at) + 8,
          static_cast<std::size_t>(load_as<std::uint64_t>(at))};
}
}  // namespace detail

/// The name of a type of metadata, such as "u32".
constexpr std::string_view name_of(gguf_kind kind) { return detail::metadata_of(kind).name; }

/// The texts of an array in a GGUF file, read where they stand: a range without copies.
class gguf_strings {
 public:
  /// Goes from text to text.
  class iterator {
   public:
    using value_type = std::string_view;
    using difference_type = index;
    iterator() = default;
    explicit iterator(const std::byte* at) : at_(at) {}
    std::string_view operator*() const { return detail::gguf_text(at_); }
    iterator& operator++() {
      at_ += 8 + detail::gguf_text(at_).size();
      return *this;
    }
    iterator operator++(int) { return std::exchange(*this, ++iterator(*this)); }
    bool operator==(const iterator&) const = default;

   private:
    const std::byte* at_ = nullptr;
  };
  gguf_strings() = default;
  gguf_strings(std::span<const std::byte> data, index size) : data_(data), size_(size) {}

  iterator begin() const { return iterator(data_.data()); }
  iterator end() const { return iterator(data_.data() + data_.size()); }
  /// Number of texts.
  index size() const { return size_; }

 private:
  std::span<const std::byte> data_;
  index size_ = 0;
};

/// One value of a GGUF file's metadata, or an array of values of one type. It views the file.
struct gguf_value {
  std::string_view key;
  gguf_kind kind = gguf_kind::u8;  ///< of the value, or of an array's elements
  bool array = false;
  index count = 1;                    ///< of an array
  std::span<const std::byte> data{};  ///< little-endian, not aligned; texts behind their lengths

  /// Whether there is a number `i`.
  bool has(index i) const { return i >= 0 && i < count; }
  /// Number `i` as a whole number, if it is one of 64 bits with a sign.
  std::optional<std::int64_t> whole(index i = 0) const {
    if (!has(i)) return {};
    const std::byte* const at =
        data.data() + i * static_cast<index>(detail::metadata_of(kind).size);
    switch (kind) {
      case gguf_kind::u8:
        return detail::load_as<std::uint8_t>(at);
      case gguf_kind::i8:
        return detail::load_as<std::int8_t>(at);
      case gguf_kind::u16:
        return detail::load_as<std::uint16_t>(at);
      case gguf_kind::i16:
        return detail::load_as<std::int16_t>(at);
      case gguf_kind::u32:
        return detail::load_as<std::uint32_t>(at);
      case gguf_kind::i32:
        return detail::load_as<std::int32_t>(at);
      case gguf_kind::i64:
        return detail::load_as<std::int64_t>(at);
      case gguf_kind::u64:
        if (const auto x = detail::load_as<std::uint64_t>(at); x <= std::uint64_t{INT64_MAX})
          return static_cast<std::int64_t>(x);
        return {};
      default:
        return {};
    }
  }
  /// Number `i` as a real number, if it is f32 or f64.
  std::optional<double> real(index i = 0) const {
    if (!has(i)) return {};
    if (kind == gguf_kind::f32)
      return static_cast<double>(detail::load_as<float>(data.data() + i * 4));
    if (kind == gguf_kind::f64) return detail::load_as<double>(data.data() + i * 8);
    return {};
  }
  /// Truth value `i`, if it is one.
  std::optional<bool> truth(index i = 0) const {
    if (has(i) && kind == gguf_kind::boolean)
      return data[static_cast<std::size_t>(i)] != std::byte{0};
    return {};
  }
  /// The text, if it is one.
  std::optional<std::string_view> text() const {
    if (kind == gguf_kind::string && !array) return detail::gguf_text(data.data());
    return {};
  }
  /// Type and value for messages, such as "u32 30" or "an array of 3 f32".
  std::string description() const {
    const std::string name(name_of(kind));
    if (array) return "an array of " + std::to_string(count) + " " + name;
    if (const auto x = text()) return name + " " + detail::printable(*x);
    if (const auto x = truth()) return name + (*x ? " true" : " false");
    if (kind == gguf_kind::f32)
      return name + " " + detail::float_as_text(detail::load_as<float>(data.data()));
    if (const auto x = real()) return name + " " + detail::number_text(*x);
    if (const auto x = whole()) return name + " " + std::to_string(*x);
    return name + " " + std::to_string(detail::load_as<std::uint64_t>(data.data()));
  }
};

/// One tensor of a GGUF file: its name, type and shape, and its blocks in the file's bytes.
struct gguf_tensor {
  static constexpr index most_dimensions = 4;

  std::string_view name;
  ggml_type type = ggml_type::f32;
  std::array<index, most_dimensions> sizes{};  ///< the slowest first, as in PyTorch
  index dimensions = 0;
  std::uint64_t offset = 0;           ///< of the data in the file, bytes
  std::span<const std::byte> data{};  ///< row-major, in whole blocks, not aligned

  /// Extents of the tensor: the reverse of the file's.
  std::span<const index> shape() const {
    return {sizes.data(), static_cast<std::size_t>(dimensions)};
  }
  /// Number of values.
  index size() const {
    index product = 1;
    for (const index n : shape()) product *= n;
    return product;
  }
  /// Bytes of its data.
  index bytes() const { return size() / values_per_block(type) * bytes_per_block(type); }
  /// Type and shape for messages, such as "Q4_1 [576, 1536]".
  std::string description() const {
    std::string text = std::string(name_of(type)) + " [";
    for (const index n : shape()) text += (text.back() == '[' ? "" : ", ") + std::to_string(n);
    return text + "]";
  }
};

/// A parsed GGUF file. It views the bytes it was parsed from, or owns the mapping if it was read
/// from a path. Movable.
class gguf {
 public:
  /// Most metadata, and most tensors, in a file that is read.
  static constexpr std::uint64_t most_entries = 65536;

  /// The format's version: 2 or 3.
  std::uint32_t version() const { return version_; }
  /// The metadata, sorted by key.
  std::span<const gguf_value> metadata() const { return metadata_; }
  /// The tensors, sorted by name.
  std::span<const gguf_tensor> tensors() const { return tensors_; }
  /// The metadata of that key, or null.
  const gguf_value* value(std::string_view key) const {
    return find_in(metadata_, &gguf_value::key, key);
  }
  /// The tensor of that name, or null.
  const gguf_tensor* find(std::string_view name) const {
    return find_in(tensors_, &gguf_tensor::name, name);
  }
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

  /// The value of `key` as `T`: bool, a type of integers that holds it, float or double, or
  /// std::string_view. Errors: errc::missing, errc::mismatch.
  template <class T>
  result<T> get(std::string_view key) const LINNET_TRY {
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    if (!at->array)
      if (const auto x = element<T>(*at, 0)) return *x;
    return error{errc::mismatch, where_, detail::printable(key), std::string(wanted<T>()),
                 at->description()};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// The array at `key` as numbers of type `T`, as in get(). Errors: errc::missing, errc::mismatch.
  template <class T>
  result<std::vector<T>> array(std::string_view key) const LINNET_TRY {
    static_assert(!std::is_same_v<T, std::string_view>, "linnet: strings() reads arrays of texts");
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    const error other{errc::mismatch, where_, detail::printable(key),
                      "an array, each element " + std::string(wanted<T>()), at->description()};
    if (!at->array) return other;
    if (!detail::has_memory(detail::array_bytes(at->count, 1, sizeof(T))))
      return detail::out_of_memory(where_);
    std::vector<T> all(static_cast<std::size_t>(at->count));
    for (index i = 0; i < at->count; ++i) {
      const auto x = element<T>(*at, i);
      if (!x) return other;
      all[static_cast<std::size_t>(i)] = *x;
    }
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// The texts of the array at `key`. Errors: errc::missing, errc::mismatch.
  result<gguf_strings> strings(std::string_view key) const LINNET_TRY {
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    if (at->array && at->kind == gguf_kind::string) return gguf_strings(at->data, at->count);
    return error{errc::mismatch, where_, detail::printable(key), "an array of string",
                 at->description()};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

  /// All values of a tensor as floats: the numbers that llama.cpp computes with. Errors:
  /// errc::missing.
  result<std::vector<float>> values(std::string_view name) const LINNET_TRY {
    const gguf_tensor* const from = find(name);
    if (!from)
      return error{errc::missing, where_, detail::printable(name), "a tensor of this name", "none"};
    if (!detail::has_memory(detail::array_bytes(from->size(), 1, sizeof(float))))
      return detail::out_of_memory(where_);
    std::vector<float> all(static_cast<std::size_t>(from->size()));
    decode_ggml(from->type, from->data.data(), all);
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  friend struct detail::gguf_parser;
  friend result<gguf> parse_gguf(lasting_span<const std::byte>, const std::string&);
  friend result<gguf> read_gguf(const std::string&);
  std::optional<mapped_file> owned_;
  std::string where_;
  std::uint32_t version_ = 0;
  std::vector<gguf_value> metadata_;
  std::vector<gguf_tensor> tensors_;

  template <class Entry>
  static const Entry* find_in(const std::vector<Entry>& all, std::string_view Entry::*name,
                              std::string_view wanted) {
    const auto at =
        std::lower_bound(all.begin(), all.end(), wanted,
                         [&](const Entry& a, std::string_view b) { return a.*name < b; });
    return at != all.end() && (*at).*name == wanted ? &*at : nullptr;
  }
  error absent(std::string_view key) const {
    return {errc::missing, where_, detail::printable(key), "metadata of this key", "none"};
  }
  template <class T>
  static constexpr std::string_view wanted() {
    if constexpr (std::is_same_v<T, bool>) return "a bool";
    if constexpr (std::is_same_v<T, std::string_view>) return "a string";
    if constexpr (std::is_floating_point_v<T>) return "f32 or f64";
    return sizeof(T) == 8   ? "a whole number of 64 bits"
           : sizeof(T) == 4 ? "a whole number of 32 bits"
           : sizeof(T) == 2 ? "a whole number of 16 bits"
                            : "a whole number of 8 bits";
  }
  template <class T>
  static std::optional<T> element(const gguf_value& from, index i) {
    if constexpr (std::is_same_v<T, bool>) {
      return from.truth(i);
    } else if constexpr (std::is_same_v<T, std::string_view>) {
      return from.text();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (const auto x = from.real(i)) return static_cast<T>(*x);
      return {};
    } else {
      if (const auto x = from.whole(i); x && std::in_range<T>(*x)) return static_cast<T>(*x);
      if (from.kind == gguf_kind::u64 && std::in_range<T>(UINT64_MAX))
        return static_cast<T>(detail::load_as<std::uint64_t>(from.data.data() + i * 8));
      return {};
    }
  }
};

LINNET_NAMESPACE_END
