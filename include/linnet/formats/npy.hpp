// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// NumPy's .npy files: one array each, read where it lies and written byte for byte as NumPy does.
/// Opt-in, through linnet/numpy.hpp.

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/core/view.hpp>
#include <linnet/file/mapped_file.hpp>
#include <linnet/formats/npy_header.hpp>

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
