// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Reads GGUF files, versions 2 and 3, little-endian. Nothing in the file is trusted.
///
/// A header has magic, version, number of tensors and number of metadata. Then come the metadata,
/// the descriptions of the tensors, and their data, each at a multiple of general.alignment.

#include <linnet/formats/gguf.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t gguf_default_alignment = 32, gguf_most_alignment = 1 << 20;
inline constexpr std::uint64_t longest_gguf_name = 65535;  ///< bytes of a key or a tensor's name

/// Goes through a file's metadata and descriptions of tensors. Every count is compared with the
/// bytes that are left before anything is allocated or multiplied.
struct gguf_parser {
  gguf_parser(std::span<const std::byte> head, std::uint64_t bytes, gguf& into,
              const std::string& where)
      : file(head), size(bytes), to(into) {
    to.where_ = where;
  }

  std::span<const std::byte> file;  ///< at least all before the tensors' data
  std::uint64_t size;               ///< bytes of the whole file
  gguf& to;
  error failure{};
  std::uint64_t data_begin = 0;  ///< where the tensors' offsets count from

  bool parse() {
    std::uint64_t tensors = 0, metadata = 0;
    return header(tensors, metadata) && all_metadata(metadata) &&
           once(to.metadata_, &gguf_value::key, "each key once") && alignment() &&
           all_tensors(tensors) && once(to.tensors_, &gguf_tensor::name, "each name once") &&
           ranges();
  }

 private:
  std::size_t at = 0;
  std::uint64_t aligned_to = gguf_default_alignment;

  std::size_t left() const { return file.size() - at; }
  bool fail(errc code, std::string what, std::string expected, std::string got) {
    failure = {code, to.where_, std::move(what), std::move(expected), std::move(got)};
    return false;
  }
  bool malformed(std::string what, std::string expected, std::string got) {
    return fail(errc::malformed, std::move(what), std::move(expected), std::move(got));
  }

  /// The next number, if the file has one.
  template <class T>
  bool take(T& number, const std::string& what) {
    if (left() < sizeof number)
      return malformed(what, std::to_string(sizeof number) + " bytes",
                       std::to_string(left()) + ", the end of the file");
    number = load_as<T>(file.data() + at);
    at += sizeof number;
    return true;
  }
  /// The next count, of things of at least `each` bytes that follow.
  bool take_count(std::uint64_t& count, std::size_t each, const std::string& what) {
    if (!take(count, what)) return false;
    return count <= left() / each ||
           malformed(what,
                     "at most " + std::to_string(left() / each) + ", what fits in the " +
                         std::to_string(left()) + " bytes that follow",
                     std::to_string(count));
  }
  /// The next text, behind its length.
  bool take_name(std::string_view& text, const std::string& what) {
    std::uint64_t length = 0;
    if (!take_count(length, 1, what + ": length")) return false;
    if (length < 1 || length > longest_gguf_name)
      return malformed(what + ": length", "1 to " + std::to_string(longest_gguf_name),
                       std::to_string(length));
    text = gguf_text(file.data() + at - 8);
    at += length;
    return true;
  }

  bool header(std::uint64_t& tensors, std::uint64_t& metadata) {
    if (size < 24) return malformed("file size", "at least 24 bytes", std::to_string(size));
    const std::string_view magic(reinterpret_cast<const char*>(file.data()), 4);
    if (magic != "GGUF") return malformed("magic", "GGUF", printable(magic));
    at = 4;
    if (!take(to.version_, "version")) return false;
    const std::uint32_t swapped = __builtin_bswap32(to.version_);
    if (swapped >= 1 && swapped <= 3)
      return fail(errc::unsupported, "version", "2 or 3, little-endian",
                  std::to_string(swapped) + ", big-endian");
    if (to.version_ != 2 && to.version_ != 3)
      return fail(errc::unsupported, "version", "2 or 3", std::to_string(to.version_));
    // Behind both counts, a tensor has a name, dimensions, type and offset; a metadatum has a key,
    // type and value.
    return take(tensors, "number of tensors") && take(metadata, "number of metadata") &&
           counted(tensors, 25, "number of tensors") && counted(metadata, 14, "number of metadata");
  }
  bool counted(std::uint64_t count, std::size_t each, const char* what) {
    if (count > gguf::most_entries)
      return malformed(what, "at most " + std::to_string(gguf::most_entries),
                       std::to_string(count));
    return count <= left() / each ||
           malformed(what,
                     "at most " + std::to_string(left() / each) + ", what fits in the " +
                         std::to_string(left()) + " bytes that follow",
                     std::to_string(count));
  }

  bool all_metadata(std::uint64_t count) {
    const auto room = static_cast<std::size_t>(count);
    if (!has_memory(room * sizeof(gguf_value))) return no_memory();
    to.metadata_.reserve(room);
    for (std::uint64_t i = 0; i < count; ++i) {
      gguf_value& value = to.metadata_.emplace_back();
      std::uint32_t type = 0;
      if (!take_name(value.key, "key " + std::to_string(i))) return false;
      const std::string what = printable(value.key);
      if (!take_kind(type, what + ": type")) return false;
      value.kind = static_cast<gguf_kind>(type);
      value.array = value.kind == gguf_kind::array;
      std::uint64_t elements = 1;
      if (value.array) {
        if (!take_kind(type, what + ": type of elements")) return false;
        value.kind = static_cast<gguf_kind>(type);
        if (value.kind == gguf_kind::array)
          return fail(errc::unsupported, what + ": type of elements", "no array in an array",
                      "9, an array");
        if (!take_count(elements, metadata_of(value.kind).size, what + ": number of elements"))
          return false;
      }
      value.count = static_cast<index>(elements);
      if (!take_elements(value, what)) return false;
    }
    return true;
  }
  bool take_kind(std::uint32_t& type, const std::string& what) {
    if (!take(type, what)) return false;
    return type < gguf_kind_count || malformed(what, "0 to 12", std::to_string(type));
  }
  bool take_elements(gguf_value& value, const std::string& what) {
    const std::size_t begin = at, each = metadata_of(value.kind).size;
    const auto count = static_cast<std::uint64_t>(value.count);
    if (value.kind == gguf_kind::string) {
      for (std::uint64_t i = 0, length = 0; i < count; ++i, at += length)
        if (left() < 8 || (length = load_as<std::uint64_t>(file.data() + at)) > left() - 8) {
          const std::string text = what + (value.array ? ", text " + std::to_string(i) : "");
          return take_count(length, 1, text + ": length");
        } else {
          at += 8;
        }
    } else {
      if (count > left() / each)
        return malformed(what + ": value", std::to_string(each) + " bytes",
                         std::to_string(left()) + ", the end of the file");
      at += count * each;
    }
    value.data = file.subspan(begin, at - begin);
    if (value.kind == gguf_kind::boolean)
      for (const std::byte one : value.data)
        if (one > std::byte{1})
          return malformed(what, "a bool, 0 or 1", std::to_string(std::to_integer<int>(one)));
    return true;
  }

  bool alignment() {
    const gguf_value* const said = to.value("general.alignment");
    if (!said) return true;
    const auto x = said->kind == gguf_kind::u32 && !said->array ? said->whole() : std::nullopt;
    if (!x || *x < 8 || (*x & (*x - 1)) != 0 || *x > std::int64_t{gguf_most_alignment})
      return malformed("general.alignment",
                       "u32, a power of two from 8 to " + std::to_string(gguf_most_alignment),
                       said->description());
    aligned_to = static_cast<std::uint64_t>(*x);
    return true;
  }

  bool all_tensors(std::uint64_t count) {
    const auto room = static_cast<std::size_t>(count);
    if (!has_memory(room * sizeof(gguf_tensor))) return no_memory();
    to.tensors_.reserve(room);
    for (std::uint64_t i = 0; i < count; ++i) {
      gguf_tensor& tensor = to.tensors_.emplace_back();
      if (!take_name(tensor.name, "tensor " + std::to_string(i) + ": name") ||
          !take_tensor(tensor, printable(tensor.name)))
        return false;
    }
    data_begin = (at + aligned_to - 1) / aligned_to * aligned_to;
    return true;
  }
  bool take_tensor(gguf_tensor& tensor, const std::string& what) {
    std::uint32_t dimensions = 0, type = 0;
    if (!take(dimensions, what + ": dimensions")) return false;
    if (dimensions > gguf_tensor::most_dimensions)
      return malformed(what + ": dimensions",
                       "at most " + std::to_string(gguf_tensor::most_dimensions),
                       std::to_string(dimensions));
    tensor.dimensions = dimensions;
    std::uint64_t values = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const std::string here = what + ": dimension " + std::to_string(i);
      std::uint64_t n = 0;
      if (!take(n, here)) return false;
      // Blocks have at most seven bytes for a value, so bytes are fewer than 2^63, too.
      if (n < 1 || n > std::uint64_t{PTRDIFF_MAX} / 8 / values)
        return malformed(here, n < 1 ? "at least 1" : "a product of dimensions below 2^60",
                         std::to_string(n));
      values *= n;
      tensor.sizes[dimensions - 1 - i] = static_cast<index>(n);
    }
    if (!take(type, what + ": type")) return false;
    const ggml_layout* const layout = ggml_layout_of(type);
    if (!layout)
      return fail(errc::unsupported, what + ": type", known_types(), std::to_string(type));
    tensor.type = layout->type;
    if (const index row = dimensions > 0 ? tensor.shape().back() : 1; row % layout->block != 0)
      return malformed(what + ": dimension 0",
                       "a multiple of " + std::to_string(layout->block) + ", the block of " +
                           std::string(layout->name),
                       std::to_string(row));
    if (!take(tensor.offset, what + ": offset")) return false;
    return tensor.offset % aligned_to == 0 ||
           malformed(what + ": offset", "a multiple of " + std::to_string(aligned_to),
                     std::to_string(tensor.offset));
  }
  static std::string known_types() {
    std::string text;
    for (const ggml_layout& one : ggml_layouts)
      text += (text.empty() ? "" : ", ") + std::to_string(static_cast<std::uint32_t>(one.type)) +
              " " + std::string(one.name);
    return text;
  }

  /// Sorts by name, and refuses a name that stands twice.
  template <class Entry>
  bool once(std::vector<Entry>& all, std::string_view Entry::*name, const char* expected) {
    std::sort(all.begin(), all.end(),
              [&](const Entry& a, const Entry& b) { return a.*name < b.*name; });
    for (std::size_t i = 1; i < all.size(); ++i)
      if (all[i].*name == all[i - 1].*name)
        return malformed(printable(all[i].*name), expected, "this one twice");
    return true;
  }
  /// Tensors lie behind each other within the file; there may be gaps.
  bool ranges() {
    if (!has_memory(to.tensors_.size() * sizeof(std::uint32_t))) return no_memory();
    std::vector<std::uint32_t> order(to.tensors_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(),
              [&](auto a, auto b) { return to.tensors_[a].offset < to.tensors_[b].offset; });
    const std::uint64_t room = size > data_begin ? size - data_begin : 0;
    std::uint64_t end = 0;
    for (const std::uint32_t i : order) {
      gguf_tensor& tensor = to.tensors_[i];
      const std::string what = printable(tensor.name) + ": offset";
      const auto bytes = static_cast<std::uint64_t>(tensor.bytes());
      if (tensor.offset > room || bytes > room - tensor.offset)
        return malformed(what,
                         std::to_string(bytes) + " bytes for " + tensor.description() +
                             " within the " + std::to_string(room) + " bytes of data",
                         std::to_string(tensor.offset));
      if (tensor.offset < end)
        return malformed(what, "at least " + std::to_string(end) + ", the end of the tensor before",
                         std::to_string(tensor.offset) + ", an overlap");
      end = tensor.offset + bytes;
      tensor.offset += data_begin;
    }
    return true;
  }
  bool no_memory() {
    failure = out_of_memory(to.where_);
    return false;
  }
};

}  // namespace detail

/// Parses a GGUF file held in memory, which must outlive the result. Everything is checked before
/// it is used. Counts and lengths are compared with the bytes that follow, and each name comes
/// once. Tensors lie in the file, aligned and without overlap. At most 65,536 metadata and as many
/// tensors. `where` names the file in errors. Errors: errc::malformed; errc::unsupported (other
/// versions, big-endian, arrays in arrays, other types of tensors); errc::out_of_memory.
inline result<gguf> parse_gguf(lasting_span<const std::byte> file,
                               const std::string& where = "GGUF file") LINNET_TRY {
  gguf parsed;
  detail::gguf_parser parser(file, file.size(), parsed, where);
  if (!parser.parse()) return parser.failure;
  for (gguf_tensor& tensor : parsed.tensors_)
    tensor.data = file.subspan(static_cast<std::size_t>(tensor.offset),
                               static_cast<std::size_t>(tensor.bytes()));
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps and parses a GGUF file, which must not shrink meanwhile. Errors: those of mapped_file::open
/// and parse_gguf().
inline result<gguf> read_gguf(const std::string& path) LINNET_TRY {
  auto file = mapped_file::open(path);
  if (!file) return file.error();
  auto parsed = parse_gguf(file->bytes(), path);
  if (parsed) parsed->owned_.emplace(*std::move(file));
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
