// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Headers of NumPy's .npy files, versions 1 to 3, little-endian. Opt-in, through linnet/numpy.hpp.
///
///     6 bytes  \x93 and "NUMPY"
///     2        version: 1, 2 or 3, and 0
///     2 or 4   length of the header: 2 bytes in version 1, else 4
///     header   a Python dictionary of descr, fortran_order and shape, filled up with spaces
///     ...      the values, to the end of the file
///
/// The format is that of NumPy's numpy.lib.format. Nothing of a file is run: object arrays, which
/// are pickles, are refused.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/formats/tensor.hpp>

LINNET_NAMESPACE_BEGIN

/// One array of a .npy or .npz file, or one to be written: its type, shape and values, which are
/// viewed.
struct npy_array {
  static constexpr index most_dimensions = 8;

  std::string name{};  ///< in an .npz file; empty in a .npy file
  dtype type = dtype::f32;
  std::array<index, most_dimensions> extents{};
  index dimensions = 0;               ///< 0 is a single value
  bool fortran = false;               ///< the first index is the fastest, not the last
  std::span<const std::byte> data{};  ///< little-endian, perhaps not aligned

  /// Extents of the array.
  std::span<const index> shape() const {
    return {extents.data(), static_cast<std::size_t>((std::min)(dimensions, most_dimensions))};
  }
  /// Number of values.
  index size() const { return std::ssize(data) / size_of(type); }
  /// Where value `i`, counted with the last index fastest, stands in `data`.
  index place(index i) const {
    if (!fortran) return i;
    index at = 0, stride = size();
    for (index d = std::ssize(shape()); d-- > 0; i /= shape()[static_cast<std::size_t>(d)]) {
      const index n = shape()[static_cast<std::size_t>(d)];
      stride /= n;
      at += i % n * stride;
    }
    return at;
  }
  /// Type and shape for messages, such as "F32 [4, 24]".
  LINNET_COLD std::string description() const {
    std::string text = std::string(name_of(type)) + " [";
    for (const index n : shape()) text += (text.back() == '[' ? "" : ", ") + std::to_string(n);
    return text + (fortran ? "], Fortran order" : "]");
  }
};

namespace detail {

inline constexpr std::string_view npy_magic = "\x93NUMPY";
inline constexpr std::size_t longest_npy_header = 65535;  ///< bytes; an array's has about 120

/// NumPy's names of element types, without the byte order.
inline constexpr std::array<std::pair<std::string_view, dtype>, 12> npy_types{
    {{"b1", dtype::boolean},
     {"u1", dtype::u8},
     {"i1", dtype::i8},
     {"u2", dtype::u16},
     {"i2", dtype::i16},
     {"f2", dtype::f16},
     {"u4", dtype::u32},
     {"i4", dtype::i32},
     {"f4", dtype::f32},
     {"u8", dtype::u64},
     {"i8", dtype::i64},
     {"f8", dtype::f64}}};

/// "name: field" of an array for errors.
LINNET_COLD inline std::string npy_field(const npy_array& at, const char* field) {
  return at.name.empty() ? field : printable(at.name) + ": " + field;
}

/// Bytes of an array of this shape and type, or a refusal of one that no memory holds.
LINNET_COLD inline result<std::uint64_t> npy_bytes(const npy_array& at, const std::string& where) {
  std::uint64_t bytes = static_cast<std::uint64_t>(size_of(at.type));
  bool empty = false, fits = at.dimensions <= npy_array::most_dimensions;
  for (const index n : at.shape()) {
    fits =
        fits && n >= 0 &&
        !__builtin_mul_overflow(bytes, static_cast<std::uint64_t>((std::max)(n, index{1})), &bytes);
    empty = empty || n == 0;
  }
  if (!fits || bytes > std::uint64_t{PTRDIFF_MAX})
    return failure(errc::malformed, where, npy_field(at, "shape"),
                   "at most 8 extents from 0 up, below 2^63 bytes in all", at.description());
  return empty ? 0 : bytes;
}

/// Reads the dictionary of a header: Python's literals, and of these only what NumPy writes.
class npy_header_reader {
 public:
  npy_header_reader(std::string_view text, npy_array& to, const std::string& where)
      : text_(text), to_(to), where_(where) {}

  LINNET_COLD result<void> read() {
    if (!take('{')) return fail("header", "a dictionary, which begins with {", rest());
    bool seen[3] = {};
    while (!take('}')) {
      std::string_view key;
      if (!quoted(key)) return fail("header", "a key in quotes, or }", rest());
      static constexpr std::string_view keys[] = {"descr", "fortran_order", "shape"};
      const auto at = static_cast<std::size_t>(std::find(keys, keys + 3, key) - keys);
      if (at == 3) return fail("header", "descr, fortran_order and shape alone", printable(key));
      if (std::exchange(seen[at], true))
        return fail(keys[at].data(), "each key once", "this one twice");
      if (!take(':')) return fail(keys[at].data(), "a colon behind the key", rest());
      if (auto done = at == 0 ? type() : at == 1 ? order() : shape(); !done) return done;
      if (!take(',') && !next_is('}'))
        return fail(keys[at].data(), "a comma or } behind it", rest());
    }
    for (std::size_t i = 0; i < 3; ++i)
      if (static constexpr const char* absent[] = {"descr", "fortran_order", "shape"}; !seen[i])
        return fail(absent[i], "one in every header", "none");
    for (; at_ < text_.size(); ++at_)
      if (text_[at_] != ' ' && text_[at_] != '\n')
        return fail("header", "only spaces behind the dictionary", rest());
    return {};
  }

 private:
  std::string_view text_;
  npy_array& to_;
  const std::string& where_;
  std::size_t at_ = 0;

  result<void> fail(const char* field, std::string_view expected, std::string_view got,
                    errc code = errc::malformed) const {
    return failure(code, where_, npy_field(to_, field), expected, got);
  }
  /// The words that stand here, for errors.
  std::string rest() const {
    return at_ < text_.size() ? printable(text_.substr(at_, 20)) : std::string("the end");
  }
  bool next_is(char c) {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() && text_[at_] == c;
  }
  bool take(char c) { return next_is(c) && ++at_; }
  bool take(std::string_view word) {
    if (!next_is(word[0]) || !text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  /// A text in quotes, without escapes.
  bool quoted(std::string_view& to) {
    const char quote = next_is('\'') ? '\'' : '"';
    if (!next_is(quote)) return false;
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) return false;
    to = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return to.find('\\') == to.npos;
  }

  result<void> type() {
    constexpr const char* expected =
        "a bool, integer or real of little-endian order such as '<f4': give numpy.save "
        "array.astype('<f4')";
    std::string_view name;
    if (next_is('[')) return fail("descr", expected, "named fields", errc::unsupported);
    if (!quoted(name)) return fail("descr", expected, rest());
    for (const auto& [known, is] : npy_types)
      if (name.size() == 3 && name.substr(1) == known &&
          (name[0] == '<' || (name[0] == '|' && size_of(is) == 1))) {
        to_.type = is;
        return {};
      }
    return fail("descr", expected, "'" + printable(name) + "'", errc::unsupported);
  }
  result<void> order() {
    to_.fortran = take("True");
    if (!to_.fortran && !take("False")) return fail("fortran_order", "True or False", rest());
    return {};
  }
  result<void> shape() {
    if (!take('(')) return fail("shape", "a tuple such as (3, 4)", rest());
    for (bool comma = true; !take(')');) {
      if (!comma) return fail("shape", "a comma between extents", rest());
      if (to_.dimensions == npy_array::most_dimensions)
        return fail("shape", "at most 8 dimensions", "more", errc::unsupported);
      index n = 0;
      bool digits = false, fits = true;
      (void)next_is('0');  // goes behind spaces
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_, digits = true)
        fits = fits && !__builtin_mul_overflow(n, index{10}, &n) &&
               !__builtin_add_overflow(n, index{text_[at_] - '0'}, &n);
      if (!digits || !fits)
        return fail("shape", "whole numbers from 0 to 2^63 - 1", digits ? "a larger one" : rest());
      to_.extents[static_cast<std::size_t>(to_.dimensions++)] = n;
      comma = take(',');
      if (!comma && to_.dimensions == 1) return fail("shape", "a comma behind one extent", rest());
    }
    return {};
  }
};

/// Parses a .npy file into `to`, whose name is for errors.
LINNET_COLD inline result<void> parse_npy_array(std::span<const std::byte> file, npy_array& to,
                                                const std::string& where) {
  const auto wrong = [&](const char* field, std::string_view expected, std::string_view got,
                         errc code = errc::malformed) {
    return failure(code, where, npy_field(to, field), expected, got);
  };
  if (file.size() < 10) return wrong("file size", "at least 10 bytes", std::to_string(file.size()));
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (!text.starts_with(npy_magic))
    return wrong("magic", "\\x93NUMPY, the beginning of a .npy file", printable(text.substr(0, 6)));
  const unsigned version = static_cast<unsigned char>(text[6]),
                 revision = static_cast<unsigned char>(text[7]);
  if (version < 1 || version > 3 || revision != 0)
    return wrong("version", "1.0, 2.0 or 3.0",
                 std::to_string(version) + "." + std::to_string(revision), errc::unsupported);
  const std::size_t begin = version == 1 ? 10 : 12;
  if (file.size() < begin)
    return wrong("file size", "at least 12 bytes", std::to_string(file.size()));
  const std::size_t length = version == 1 ? load_as<std::uint16_t>(file.data() + 8)
                                          : load_as<std::uint32_t>(file.data() + 8);
  if (const std::size_t most = (std::min)(longest_npy_header, file.size() - begin); length > most)
    return wrong("header length", "at most " + std::to_string(most) + " bytes",
                 std::to_string(length));
  if (auto done = npy_header_reader(text.substr(begin, length), to, where).read(); !done)
    return done;
  const auto bytes = npy_bytes(to, where);
  if (!bytes) return bytes.error();
  to.data = file.subspan(begin + length);
  if (*bytes != to.data.size())
    return wrong("values", std::to_string(*bytes) + " bytes for " + to.description(),
                 std::to_string(to.data.size()));
  return {};
}

/// The bytes before the values of a .npy file of version 1: those that NumPy writes, which leaves
/// room for the extent that may grow.
LINNET_COLD inline std::string npy_prefix(const npy_array& of) {
  std::string text = "{'descr': '";
  text += size_of(of.type) == 1 ? '|' : '<';
  for (const auto& [name, type] : npy_types)
    if (type == of.type) text += name;
  const bool fortran = of.fortran && of.dimensions > 1;
  text += std::string("', 'fortran_order': ") + (fortran ? "True" : "False") + ", 'shape': (";
  for (index d = 0; d < of.dimensions; ++d) {
    text += std::to_string(of.shape()[static_cast<std::size_t>(d)]);
    text += d + 1 < of.dimensions ? ", " : of.dimensions == 1 ? "," : "";
  }
  text += "), }";
  if (of.dimensions > 0)
    text.append(21 - std::to_string(fortran ? of.shape().back() : of.shape()[0]).size(), ' ');
  text.append(64 - (11 + text.size()) % 64, ' ');  // where none are missing, NumPy has 64, too
  text += '\n';
  std::string all(npy_magic);
  all += {'\1', '\0', static_cast<char>(text.size() & 255), static_cast<char>(text.size() >> 8)};
  return all + text;
}

/// Whether an array can be written: its type is NumPy's, and its shape that of its bytes.
LINNET_COLD inline result<void> check_npy(const npy_array& of, const std::string& where) {
  if (std::ranges::none_of(npy_types, [&](const auto& t) { return t.second == of.type; }))
    return failure(errc::invalid, where, npy_field(of, "type"),
                   "a type that NumPy has: convert it to F32", name_of(of.type));
  if (of.dimensions < 0 || of.dimensions > npy_array::most_dimensions)
    return failure(errc::invalid, where, npy_field(of, "dimensions"), "0 to 8",
                   std::to_string(of.dimensions));
  const auto bytes = npy_bytes(of, where);
  if (!bytes) return bytes.error();
  if (*bytes != of.data.size())
    return failure(errc::invalid, where, npy_field(of, "data"),
                   std::to_string(*bytes) + " bytes for " + of.description(),
                   std::to_string(of.data.size()));
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
