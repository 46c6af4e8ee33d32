// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/numpy.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: NumPy's .npy and .npz files, for arrays and weights. Needs nothing but linnet.

/// @file
/// Weights as .npz files: each tensor is an array under its dotted name. Opt-in, through
/// linnet/numpy.hpp.

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// @file
/// NumPy's .npz files: several named arrays, each a .npy file in a zip archive, stored as it is.
/// Opt-in, through linnet/numpy.hpp.
///
/// The archive is that of PKWARE's APPNOTE.TXT. A header stands before each member. Behind all of
/// them is a directory, and behind that a record that says where the directory begins.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include <linnet/linnet.hpp>
/// @file
/// NumPy's .npy files: one array each, read where it lies and written byte for byte as NumPy does.
/// Opt-in, through linnet/numpy.hpp.

#include <initializer_list>

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

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Calls f with the value at `from` of a bool or an integer type.
template <class F>
bool with_whole_number(dtype type, const std::byte* from, F&& f) {
  switch (type) {
    case dtype::boolean:
    case dtype::u8:
      return f(load_as<std::uint8_t>(from));
    case dtype::i8:
      return f(load_as<std::int8_t>(from));
    case dtype::u16:
      return f(load_as<std::uint16_t>(from));
    case dtype::i16:
      return f(load_as<std::int16_t>(from));
    case dtype::u32:
      return f(load_as<std::uint32_t>(from));
    case dtype::i32:
      return f(load_as<std::int32_t>(from));
    case dtype::u64:
      return f(load_as<std::uint64_t>(from));
    default:
      return f(load_as<std::int64_t>(from));
  }
}

/// All values of an array, the last index fastest.
template <class T>
result<std::vector<T>> npy_values(const npy_array& from, const std::string& where) LINNET_TRY {
  constexpr bool real = std::is_floating_point_v<T>;
  static_assert(real || (std::is_integral_v<T> && !std::is_same_v<T, bool>),
                "linnet: values of arrays are float, double or integers");
  if (real != is_real(from.type))
    return failure(errc::mismatch, where, npy_field(from, "type"),
                   real ? "F16, F32 or F64" : "integers or BOOL", from.description());
  std::vector<T> all(static_cast<std::size_t>(from.size()));
  for (index i = 0; i < std::ssize(all); ++i) {
    const std::byte* const at = from.data.data() + from.place(i) * size_of(from.type);
    T& to = all[static_cast<std::size_t>(i)];
    if constexpr (real) {
      double x = 0;
      decode_reals(from.type, at, 1, 1, &x);
      to = static_cast<T>(x);
    } else if (!with_whole_number(from.type, at, [&](auto x) {
                 to = static_cast<T>(x);
                 return std::in_range<T>(x) && (from.type != dtype::boolean || x <= 1);
               })) {
      return failure(errc::mismatch, where, npy_field(from, "values"),
                     from.type == dtype::boolean
                         ? std::string("0 or 1, as bools are")
                         : "numbers that fit into " + std::to_string(8 * sizeof(T)) + " bits",
                     "another at place " + std::to_string(i));
    }
  }
  return all;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// The element type of values of type `T`.
template <class T>
constexpr dtype npy_dtype() {
  if constexpr (std::is_same_v<T, bool>)
    return dtype::boolean;
  else if constexpr (std::is_floating_point_v<T>)
    return sizeof(T) == 4 ? dtype::f32 : dtype::f64;
  else if constexpr (sizeof(T) == 1)
    return std::is_signed_v<T> ? dtype::i8 : dtype::u8;
  else if constexpr (sizeof(T) == 2)
    return std::is_signed_v<T> ? dtype::i16 : dtype::u16;
  else if constexpr (sizeof(T) == 4)
    return std::is_signed_v<T> ? dtype::i32 : dtype::u32;
  else
    return std::is_signed_v<T> ? dtype::i64 : dtype::u64;
}

}  // namespace detail

/// Values as an array to be written, row-major; it views them. A shape that does not fit them is
/// refused where it is written.
template <class T, std::size_t N>
npy_array as_npy(std::span<T, N> values, std::initializer_list<index> shape,
                 std::string name = {}) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8,
                "linnet::as_npy: bools, integers, float or double");
  npy_array made{.name = std::move(name), .type = detail::npy_dtype<std::remove_const_t<T>>()};
  made.dimensions = std::ssize(shape);
  std::copy_n(shape.begin(), made.shape().size(), made.extents.begin());
  made.data = std::as_bytes(values);
  return made;
}

/// A parsed .npy file. It views the bytes that it was parsed from, or owns them if it was read from
/// a path. Movable.
class npy {
 public:
  /// The array.
  const npy_array& array() const { return array_; }
  /// All values, the last index fastest in either order: float or double from F16, F32 or F64;
  /// integers from bools and integers that fit. Errors: errc::mismatch, errc::out_of_memory.
  template <class T>
  result<std::vector<T>> values() const {
    return detail::npy_values<T>(array_, where_);
  }
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

 private:
  friend result<npy> parse_npy(lasting_span<const std::byte>, const std::string&);
  friend result<npy> read_npy(const std::string&);
  memory_block owned_;
  std::string where_;
  npy_array array_;
};

/// Parses a .npy file held in memory, which must outlive the result. It is of versions 1 to
/// 3, of bools, integers and reals, and of either order. The header's every word and the number of
/// bytes are checked. `where` names the file in errors. Errors: errc::malformed, errc::unsupported
/// (other types and versions), errc::out_of_memory.
inline result<npy> parse_npy(lasting_span<const std::byte> file,
                             const std::string& where = "npy") LINNET_TRY {
  npy parsed;
  parsed.where_ = where;
  if (auto done = detail::parse_npy_array(file, parsed.array_, where); !done) return done.error();
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps and parses a .npy file, which must not shrink meanwhile. Errors: those of map_file() and
/// parse_npy().
inline result<npy> read_npy(const std::string& path) LINNET_TRY {
  auto file = map_file(path);
  if (!file) return file.error();
  auto parsed = parse_npy(std::span(static_cast<const std::byte*>(file->data()),
                                    static_cast<std::size_t>(file->size())),
                          path);
  if (parsed) parsed->owned_ = *std::move(file);
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes an array as a .npy file, byte for byte as NumPy does. Its name is not kept. Errors:
/// errc::invalid (a type that NumPy lacks, a shape that does not fit the data), errc::io.
inline result<void> write_npy(const std::string& path, const npy_array& array) LINNET_TRY {
  if (auto fit = detail::check_npy(array, path); !fit) return fit;
  detail::file_writer file(path);
  const std::string prefix = detail::npy_prefix(array);
  file.write(std::as_bytes(std::span(prefix)));
  file.write(array.data);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Sizes of the parts of a zip archive without their names, and how they begin.
inline constexpr std::size_t zip_member = 30, zip_entry = 46, zip_end = 22;
inline constexpr std::uint32_t zip_member_mark = 0x04034b50, zip_entry_mark = 0x02014b50,
                               zip_end_mark = 0x06054b50;
inline constexpr std::uint64_t most_zip_bytes = 0xfffffffe;
inline constexpr std::size_t most_zip_entries = 65534;

inline constexpr std::array<std::uint32_t, 256> crc32_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t x = i;
    for (int bit = 0; bit < 8; ++bit) x = x >> 1 ^ (x & 1 ? 0xedb88320u : 0u);
    table[i] = x;
  }
  return table;
}();
/// Checksum of a zip member, in parts: begins with 0.
inline std::uint32_t crc32(std::uint32_t so_far, std::span<const std::byte> bytes) {
  so_far = ~so_far;
  const std::uint32_t* const table = crc32_table.data();
  for (const std::byte* at = bytes.data(); at != bytes.data() + bytes.size(); ++at)
    so_far = so_far >> 8 ^ table[(so_far ^ static_cast<std::uint32_t>(*at)) & 255];
  return ~so_far;
}

/// Goes through the directory of a zip archive and parses its members.
class npz_parser {
 public:
  npz_parser(std::span<const std::byte> file, std::vector<npy_array>& to, const std::string& where)
      : file_(file), to_(to), where_(where) {}

  LINNET_COLD result<void> parse() {
    std::size_t end = 0;
    if (!find_end(end))
      return fail("end of the archive", "its record in the last bytes: an .npz file, not cut off",
                  "none");
    const std::size_t count = number<std::uint16_t>(end + 10),
                      bytes = number<std::uint32_t>(end + 12),
                      begin = number<std::uint32_t>(end + 16);
    if (count > most_zip_entries || bytes > most_zip_bytes || begin > most_zip_bytes)
      return fail("end of the archive", "a file below 4 GB and 65,535 arrays: save them as .npy",
                  "a ZIP64 archive", errc::unsupported);
    if (number<std::uint32_t>(end + 4) != 0 || number<std::uint16_t>(end + 8) != count)
      return fail("end of the archive", "one file", "a part of several", errc::unsupported);
    if (bytes > end || begin != end - bytes)
      return fail("beginning of the directory",
                  "its " + std::to_string(bytes) + " bytes to end at " + std::to_string(end),
                  "a beginning at " + std::to_string(begin));
    if (count > bytes / zip_entry)
      return fail("number of arrays",
                  "at most " + std::to_string(bytes / zip_entry) + ", what fits in the directory",
                  std::to_string(count));
    to_.reserve(count);
    std::size_t at = begin, members_end = 0;
    for (std::size_t i = 0; i < count; ++i)
      if (auto done = entry(at, begin, end, members_end); !done) return done;
    if (at != end)
      return fail("directory", std::to_string(count) + " arrays, as the end says",
                  "bytes behind them");
    std::sort(to_.begin(), to_.end(), [](auto& a, auto& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < to_.size(); ++i)
      if (to_[i].name == to_[i - 1].name)
        return fail(printable(to_[i].name), "each name once", "this one twice");
    return {};
  }

 private:
  std::span<const std::byte> file_;
  std::vector<npy_array>& to_;
  const std::string& where_;

  result<void> fail(std::string_view what, std::string_view expected, std::string_view got,
                    errc code = errc::malformed) const {
    return failure(code, where_, what, expected, got);
  }
  template <class T>
  T number(std::size_t at) const {
    return load_as<T>(file_.data() + at);
  }
  std::string_view text(std::size_t at, std::size_t size) const {
    return {reinterpret_cast<const char*>(file_.data()) + at, size};
  }
  /// Looks for the last record from the end back, behind which a comment may stand.
  bool find_end(std::size_t& end) const {
    if (file_.size() < zip_end) return false;
    const std::size_t last = file_.size() - zip_end, most = (std::min)(last, std::size_t{65535});
    for (std::size_t comment = 0; comment <= most; ++comment)
      if (number<std::uint32_t>(last - comment) == zip_end_mark &&
          number<std::uint16_t>(last - comment + 20) == comment) {
        end = last - comment;
        return true;
      }
    return false;
  }

  /// Reads the entry at `at` of the directory, which is in [begin, end), and its member.
  result<void> entry(std::size_t& at, std::size_t begin, std::size_t end,
                     std::size_t& members_end) {
    if (end - at < zip_entry || number<std::uint32_t>(at) != zip_entry_mark)
      return fail("directory", "an entry at " + std::to_string(at), "another");
    const unsigned flags = number<std::uint16_t>(at + 8), method = number<std::uint16_t>(at + 10);
    const std::uint32_t sum = number<std::uint32_t>(at + 16);
    const std::size_t packed = number<std::uint32_t>(at + 20),
                      size = number<std::uint32_t>(at + 24),
                      name_size = number<std::uint16_t>(at + 28),
                      more = name_size + number<std::uint16_t>(at + 30) +
                             number<std::uint16_t>(at + 32),
                      member = number<std::uint32_t>(at + 42);
    if (more > end - at - zip_entry)
      return fail("directory", "names within it", "one behind its end");
    const std::string_view name = text(at + zip_entry, name_size);
    const std::string shown = printable(name);
    at += zip_entry + more;
    if (!name.ends_with(".npy"))
      return fail(shown, "names that end in .npy, as those of arrays", "another");
    if ((flags & 1) != 0) return fail(shown, "no encryption", "some", errc::unsupported);
    if (method != 0)
      return fail(shown, "a stored array: write it by numpy.savez, not savez_compressed",
                  method == 8 ? std::string("a deflated one")
                              : "compression by method " + std::to_string(method),
                  errc::unsupported);
    if (packed != size || size > most_zip_bytes || member > most_zip_bytes)
      return fail(shown, "one size below 4 GB", "others");
    // In the order of the directory, and in no part of another: a file is no larger than it seems.
    if (member < members_end || member > begin || begin - member < zip_member ||
        number<std::uint32_t>(member) != zip_member_mark)
      return fail(shown,
                  "a member from " + std::to_string(members_end) + " on, before the directory",
                  "none at " + std::to_string(member));
    const std::size_t own_size = number<std::uint16_t>(member + 26),
                      before = zip_member + own_size + number<std::uint16_t>(member + 28);
    if (before > begin - member || size > begin - member - before)
      return fail(shown, "values before the directory", "more");
    if (text(member + zip_member, own_size) != name || number<std::uint16_t>(member + 8) != 0)
      return fail(shown, "the same name and method at the member", "others");
    const auto bytes = file_.subspan(member + before, size);
    if (crc32(0, bytes) != sum)
      return fail(shown, "the checksum of the directory", "another: the file is damaged");
    members_end = member + before + size;
    npy_array& made = to_.emplace_back();
    made.name = name.substr(0, name.size() - 4);
    return parse_npy_array(bytes, made, where_);
  }
};

/// Writes the numbers of zip records, little-endian.
struct zip_record {
  std::string text{};
  template <class T>
  zip_record& add(T number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
    return *this;
  }
};

/// Adds fields that members and their entries in the directory have in common: versions, flags,
/// method, time, checksum, sizes and the length of the name.
inline void add_zip_member(zip_record& to, std::string_view name, std::uint32_t sum,
                           std::uint32_t size) {
  const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return (c & 128) == 0; });
  to.add<std::uint16_t>(20).add<std::uint16_t>(ascii ? 0 : 0x800).add<std::uint16_t>(0);
  to.add<std::uint32_t>(0x00210000);  // the first of January 1980: the same arrays, the same bytes
  to.add(sum).add(size).add(size).add(static_cast<std::uint16_t>(name.size()));
  to.add<std::uint16_t>(0);
}

}  // namespace detail

/// A parsed .npz file. It views the bytes that it was parsed from, or owns them if it was read from
/// a path. Movable.
class npz {
 public:
  /// The arrays, sorted by name.
  std::span<const npy_array> arrays() const { return arrays_; }
  /// The array of that name, or null.
  const npy_array* find(std::string_view name) const {
    const auto at =
        std::lower_bound(arrays_.begin(), arrays_.end(), name,
                         [](const npy_array& a, std::string_view b) { return a.name < b; });
    return at != arrays_.end() && at->name == name ? &*at : nullptr;
  }
  /// All values of an array, as npy::values() gives them. Errors: those of it, and errc::missing.
  template <class T>
  result<std::vector<T>> values(std::string_view name) const LINNET_TRY {
    const npy_array* const from = find(name);
    if (!from)
      return detail::failure(errc::missing, where_, detail::printable(name),
                             "an array of this name", "none");
    return detail::npy_values<T>(*from, where_);
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

 private:
  friend result<npz> parse_npz(lasting_span<const std::byte>, const std::string&);
  friend result<npz> read_npz(const std::string&);
  memory_block owned_;
  std::string where_;
  std::vector<npy_array> arrays_;
};

/// Parses an .npz file held in memory, which must outlive the result: stored arrays as numpy.savez
/// writes them, below 4 GB. Checked: the directory, each member's place, name and checksum, and
/// each array as parse_npy() does. Errors: errc::malformed, errc::unsupported (compressed or
/// encrypted members, ZIP64), errc::out_of_memory.
inline result<npz> parse_npz(lasting_span<const std::byte> file,
                             const std::string& where = "npz") LINNET_TRY {
  npz parsed;
  parsed.where_ = where;
  if (!detail::has_memory_to_read(file.size())) return detail::out_of_memory(where);
  if (auto done = detail::npz_parser(file, parsed.arrays_, where).parse(); !done)
    return done.error();
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps and parses an .npz file, which must not shrink meanwhile. Errors: those of map_file() and
/// parse_npz().
inline result<npz> read_npz(const std::string& path) LINNET_TRY {
  auto file = map_file(path);
  if (!file) return file.error();
  auto parsed = parse_npz(std::span(static_cast<const std::byte*>(file->data()),
                                    static_cast<std::size_t>(file->size())),
                          path);
  if (parsed) parsed->owned_ = *std::move(file);
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes arrays as an .npz file, stored, in the order given; the same arrays always give the same
/// bytes. Nothing is written that parse_npz() refuses: names are UTF-8 and each stands once.
/// Errors: errc::invalid (also 4 GB and more), errc::io.
inline result<void> write_npz(const std::string& path,
                              std::span<const npy_array> arrays) LINNET_TRY {
  const auto invalid = [&](std::string_view what, std::string_view expected, std::string_view got) {
    return detail::failure(errc::invalid, path, what, expected, got);
  };
  std::vector<std::string_view> names;
  std::uint64_t bytes = detail::zip_end;
  for (const npy_array& array : arrays) {
    if (auto fit = detail::check_npy(array, path); !fit) return fit;
    if (array.name.size() > 65531 || !detail::is_utf8(array.name))
      return invalid(detail::printable(array.name), "a name of at most 65531 bytes of UTF-8",
                     "another");
    names.push_back(array.name);
    bytes += detail::zip_member + detail::zip_entry + 2 * (array.name.size() + 4) +
             detail::npy_prefix(array).size() + array.data.size();
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return invalid(detail::printable(*twice), "each name once", "this one twice");
  if (bytes > detail::most_zip_bytes || arrays.size() > detail::most_zip_entries)
    return invalid("arrays", "below 4 GB and 65,535 arrays: write_npy() each",
                   std::to_string(bytes) + " bytes");

  detail::file_writer file(path);
  const auto write = [&](std::string_view text) { file.write(std::as_bytes(std::span(text))); };
  detail::zip_record directory;
  std::uint32_t at = 0;
  for (const npy_array& array : arrays) {
    const std::string name = array.name + ".npy", prefix = detail::npy_prefix(array);
    const std::uint32_t sum =
        detail::crc32(detail::crc32(0, std::as_bytes(std::span(prefix))), array.data);
    const auto size = static_cast<std::uint32_t>(prefix.size() + array.data.size());
    detail::zip_record member;
    detail::add_zip_member(member.add(detail::zip_member_mark), name, sum, size);
    write(member.text);
    write(name);
    write(prefix);
    file.write(array.data);
    directory.add(detail::zip_entry_mark).add<std::uint16_t>(3 << 8 | 20);  // as Unix does
    detail::add_zip_member(directory, name, sum, size);
    directory.add<std::uint16_t>(0).add<std::uint16_t>(0).add<std::uint16_t>(0);
    directory.add<std::uint32_t>(0600u << 16).add(at).text += name;
    at += static_cast<std::uint32_t>(member.text.size() + name.size()) + size;
  }
  const auto count = static_cast<std::uint16_t>(arrays.size());
  detail::zip_record end;
  end.add(detail::zip_end_mark).add<std::uint32_t>(0).add(count).add(count);
  end.add(static_cast<std::uint32_t>(directory.text.size())).add(at).add<std::uint16_t>(0);
  write(directory.text);
  write(end.text);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A compile-time error for weights whose tensors are not arrays of NumPy's reals.
template <class M, class T>
constexpr bool fits_npz() {
  using S = typename weights<M, T>::storage;
  if constexpr (!std::is_same_v<S, storage::f32> && !std::is_same_v<S, storage::f64> &&
                !std::is_same_v<S, storage::f16>)
    static_assert(never<M>,
                  "linnet: .npz files hold weights in f32, f64 or f16; save others by "
                  "save_safetensors()");
  else
    return true;
  return false;
}

/// The array of a tensor, without its values: [rows, columns], or [n] for a vector.
inline npy_array npy_of(const leaf& tensor) {
  npy_array made{.name = tensor.name, .type = tensor.type};
  made.dimensions = tensor.vector ? 1 : 2;
  made.extents = {tensor.rows, tensor.columns};
  made.data = {tensor.data, static_cast<std::size_t>(tensor.size() * size_of(tensor.type))};
  return made;
}

/// load_npz() into tensors of any model.
inline result<void> fill_from_npz(const std::vector<leaf>& leaves, const npz& file,
                                  nonfinite values) {
  for (const leaf& tensor : leaves) {
    const npy_array expected = npy_of(tensor), *const found = file.find(tensor.name);
    const auto wrong = [&](errc code, std::string_view wanted, std::string_view got) {
      return failure(code, file.where(), tensor.name, wanted, got);
    };
    if (!found || !is_real(found->type) || !std::ranges::equal(found->shape(), expected.shape()))
      return wrong(found ? errc::mismatch : errc::missing,
                   expected.description() + " or another real type (the model type)",
                   found ? found->description() : std::string("no such array"));
    if (values == nonfinite::refuse && !all_finite(found->type, found->data.data(), found->size()))
      return wrong(errc::invalid, "finite numbers", "a NaN or an infinity");
  }
  for (const npy_array& array : file.arrays())
    if (std::ranges::none_of(leaves, [&](const leaf& l) { return l.name == array.name; }))
      return failure(errc::mismatch, file.where(), printable(array.name),
                     "only tensors of the model type", array.description());
  for (const leaf& tensor : leaves) {
    const npy_array& from = *file.find(tensor.name);
    placement at{tensor.name, tensor.rows, tensor.columns, tensor.vector};
    at.transposed = from.fortran;  // an element of the file is [column, row]
    if (from.fortran) at.columns = tensor.rows;
    copy_in(tensor, at, from.type, from.data.data());
  }
  return {};
}

}  // namespace detail

/// Saves all weights as an .npz file: one array for each tensor, under its name. The same weights
/// always give the same bytes. Errors: those of write_npz(), and the error of `w` if it is not
/// valid().
template <class M, class T>
result<void> save_npz(const weights<M, T>& w, const std::string& path) LINNET_TRY {
  if (!w.valid()) return w.error();
  std::vector<npy_array> arrays;
  if constexpr (detail::fits_npz<M, T>())
    for (const detail::leaf& tensor : detail::leaves_of(w))
      arrays.push_back(detail::npy_of(tensor));
  return write_npz(path, arrays);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Loads all weights from a parsed .npz file, converting between F16, F32 and F64; either order
/// will do. Every tensor of the model must be there in its shape, and nothing else; `w` is
/// untouched unless all of it fits. The file says nothing of the model beyond names and shapes.
/// Errors: errc::missing, errc::mismatch, errc::out_of_memory, and errc::invalid where `values` are
/// to be finite.
template <class M, class T>
result<void> load_npz(weights<M, T>& w, const npz& file,
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  if (!w.valid()) return w.error();
  if constexpr (detail::fits_npz<M, T>())
    return detail::fill_from_npz(detail::leaves_of(w), file, values);
  return {};
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Loads weights from the bytes of an .npz file; `where` names it in errors. Errors: as above, and
/// those of parse_npz().
template <class M, class T>
result<void> load_npz(weights<M, T>& w, std::span<const std::byte> bytes,
                      const std::string& where = "npz",
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = parse_npz(bytes, where);
  return file ? load_npz(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Loads weights from an .npz file. Errors: as above, and those of read_npz().
template <class M, class T>
result<void> load_npz(weights<M, T>& w, const std::string& path,
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = read_npz(path);
  return file ? load_npz(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
