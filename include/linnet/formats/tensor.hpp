// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tensors in files: their element types, and the conversion to and from a model's weights.

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little,
              "linnet reads and writes files on little-endian machines only");

/// Element types of tensors in files, little-endian.
enum class dtype {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64
};

namespace detail {
struct dtype_metadata {
  std::string_view name;
  index size;
};
inline constexpr std::array<dtype_metadata, 15> dtype_table{{{"BOOL", 1},
                                                             {"U8", 1},
                                                             {"I8", 1},
                                                             {"F8_E4M3", 1},
                                                             {"F8_E5M2", 1},
                                                             {"U16", 2},
                                                             {"I16", 2},
                                                             {"F16", 2},
                                                             {"BF16", 2},
                                                             {"U32", 4},
                                                             {"I32", 4},
                                                             {"F32", 4},
                                                             {"U64", 8},
                                                             {"I64", 8},
                                                             {"F64", 8}}};
}  // namespace detail

/// The name of an element type in safetensors files, such as "F32".
constexpr std::string_view name_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].name;
}
/// Bytes of one element.
constexpr index size_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].size;
}
/// Whether values of this type can be read as real numbers: F16, BF16, F32, F64.
constexpr bool is_real(dtype type) {
  return type == dtype::f16 || type == dtype::bf16 || type == dtype::f32 || type == dtype::f64;
}

/// Policy for loaded weights that are infinite or NaN. `keep` loads them, so that a run that
/// diverged can be looked at; `refuse` names the first such tensor in an error.
enum class nonfinite { keep, refuse };

namespace detail {

/// The object at `from`, which need not be aligned.
template <class T>
T load_as(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

/// to[count] = values of a real type, `stride` elements apart.
inline void decode_reals(dtype type, const std::byte* from, index count, index stride, double* to) {
  const index step = stride * size_of(type);
  switch (type) {
    case dtype::f16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::f16::decode(load_as<std::uint16_t>(from + i * step));
      break;
    case dtype::bf16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::bf16::decode(
            static_cast<storage::bf16::value>(load_as<std::uint16_t>(from + i * step)));
      break;
    case dtype::f32:
      for (index i = 0; i < count; ++i)
        to[i] = static_cast<double>(load_as<float>(from + i * step));
      break;
    default:
      for (index i = 0; i < count; ++i) to[i] = load_as<double>(from + i * step);
  }
}

/// Whether all of `count` values are finite. Real types and F8 types are looked at; integers always
/// are.
inline bool all_finite(dtype type, const std::byte* from, index count) {
  const auto magnitude = [&](index i) { return static_cast<unsigned>(from[i]) & 0x7f; };
  if (type == dtype::f8_e4m3 || type == dtype::f8_e5m2) {
    const unsigned most = type == dtype::f8_e4m3 ? 0x7e : 0x7b;
    for (index i = 0; i < count; ++i)
      if (magnitude(i) > most) return false;
  }
  if (!is_real(type)) return true;
  std::array<double, 256> some;
  for (index i = 0; i < count; i += std::ssize(some)) {
    const index n = (std::min<index>)(std::ssize(some), count - i);
    decode_reals(type, from + i * size_of(type), n, 1, some.data());
    for (index j = 0; j < n; ++j)
      if (!is_finite(some[static_cast<std::size_t>(j)])) return false;
  }
  return true;
}

/// One tensor of a weights object, whatever the model's type.
struct leaf {
  std::string name;         ///< canonical
  index rows = 0;           ///< output features; of a vector, its length
  index columns = 0;        ///< elements in a row: input features, or 1 for a vector
  bool vector = false;      ///< one dimension in files
  dtype type = dtype::f32;  ///< of the elements in memory
  std::byte* data = nullptr;
  float* scales = nullptr;  ///< [rows, row_scales] of a scaled matrix
  float* zeros = nullptr;   ///< likewise of a centred one: zero points or minima
  index row_scales = 0;
  bool ggml = false;  ///< whether codes and scales are those of ggml's blocks
  index inputs = 0;   ///< of input numbers and places, how many inputs there are
  /// Of places of a sparse matrix, whether they are some: called with its rows and inputs.
  bool (*places)(index rows, index inputs, const std::byte* data) = nullptr;
  bool beside_codes = false;    ///< an array of `more`, which has finite numbers
  std::vector<leaf> more = {};  ///< codes of scales, and what is added to the numbers of the codes

  index size() const { return rows * columns; }
};

/// The element type that storage `S` has in files.
template <class S>
constexpr dtype dtype_of() {
  using value = typename S::value;
  if constexpr (std::is_same_v<value, float>) return dtype::f32;
  if constexpr (std::is_same_v<value, double>) return dtype::f64;
  if constexpr (std::is_same_v<value, ops::bf16_code>) return dtype::bf16;
  if constexpr (std::is_same_v<value, std::uint16_t>) return dtype::f16;
  if constexpr (std::is_same_v<value, std::int8_t>) return dtype::i8;
  if constexpr (std::is_same_v<value, std::uint8_t>)
    return S::code == simd::code::f8_e4m3   ? dtype::f8_e4m3
           : S::code == simd::code::f8_e5m2 ? dtype::f8_e5m2
                                            : dtype::u8;
}

/// The element type that numbers beside the codes have in files.
template <class Value>
constexpr dtype dtype_of_value() {
  if constexpr (std::is_same_v<Value, float>) return dtype::f32;
  if constexpr (std::is_same_v<Value, ops::bf16_code>) return dtype::bf16;
  if constexpr (std::is_same_v<Value, storage::f16::value>) return dtype::f16;
  if constexpr (std::is_same_v<Value, storage::input_number>) return dtype::u16;
  if constexpr (std::is_same_v<Value, std::int8_t>) return dtype::i8;
  if constexpr (std::is_same_v<Value, std::uint8_t>) return dtype::u8;
}

/// A tensor without its elements.
LINNET_COLD inline leaf leaf_of(const parameter_path& at, const tensor_info& info) {
  leaf one{.name = at.str(), .rows = info.rows, .columns = info.columns};
  one.vector = !info.decays() && info.rows == 1;
  if (one.vector) std::swap(one.rows, one.columns);
  return one;
}
/// Adds each tensor to a list.
template <class T>
struct lists_leaves {
  std::vector<leaf>& all;

  template <class From>
  void operator()(const parameter_path& at, const tensor_info& info, const From& from) const {
    leaf& one = all.emplace_back(leaf_of(at, info));
    if constexpr (std::is_pointer_v<From>) {
      one.type = std::is_same_v<T, double> ? dtype::f64 : dtype::f32;
      one.data = reinterpret_cast<std::byte*>(from);
    } else {
      using S = typename From::storage;
      one.type = dtype_of<S>();
      one.columns = row_values<S>(info.columns);
      one.data = reinterpret_cast<std::byte*>(from.data);
      if constexpr (!has_levels<S>) {
        one.scales = from.scales;
        one.zeros = from.zeros;
      }
      one.row_scales = row_scales<S>(info.columns);
      one.ggml = S::ggml;
      [[maybe_unused]] const auto add = [&](const char* suffix, auto* values, index rows,
                                            index columns) {
        using value = std::remove_cvref_t<decltype(*values)>;
        leaf part{.name = one.name + suffix, .rows = rows, .columns = columns};
        part.data = reinterpret_cast<std::byte*>(values);
        part.type = dtype_of_value<value>();
        part.beside_codes = true;
        if constexpr (std::is_same_v<value, storage::input_number>) part.inputs = info.columns;
        one.more.push_back(std::move(part));
      };
      if constexpr (has_levels<S>) {
        auto levels = from.levels;
        levels.visit(info.rows, one.row_scales, add);
      }
      if constexpr (is_corrected<S>) {
        auto correction = from.correction;
        correction.visit(info.rows, info.columns, add);
      }
      if constexpr (is_sparse<S>) {
        auto kept = from.kept;
        kept.visit(info.rows, info.columns, add);
        one.more.back().inputs = info.columns;
        one.more.back().places = [](index rows, index inputs, const std::byte* data) {
          return S::pattern::fits(rows, inputs, reinterpret_cast<const std::uint8_t*>(data));
        };
      }
    }
  }
};
/// The tensors of `w` in canonical order. From here on nothing depends on the model's type.
template <class M, class T>
std::vector<leaf> leaves_of(const weights<M, T>& w) {
  std::vector<leaf> all;
  w.visit(lists_leaves<T>{all});
  return all;
}

/// Stores `count` values at element `first` of a tensor.
inline void encode_reals(const leaf& to, index first, index count, const double* from) {
  switch (to.type) {
    case dtype::f32: {
      auto* const data = reinterpret_cast<float*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f32::encode(from[i]);
      break;
    }
    case dtype::bf16: {
      auto* const data = reinterpret_cast<storage::bf16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::bf16::encode(from[i]);
      break;
    }
    case dtype::f16: {
      auto* const data = reinterpret_cast<storage::f16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f16::encode(from[i]);
      break;
    }
    default: {
      auto* const data = reinterpret_cast<double*>(to.data) + first;
      std::copy_n(from, count, data);
    }
  }
}

/// Where the rows of one tensor of the model stand within a tensor of a file.
struct placement {
  std::string name;  ///< of the tensor in the file
  index rows = 0;    ///< its shape: [rows, columns], or [rows] for a vector
  index columns = 1;
  bool vector = false;
  bool depthwise = false;   ///< the file has filters of channels: [rows, 1, columns]
  bool transposed = false;  ///< the file has [in, out]
  index offset = 0;         ///< output feature of the file at which the model's first row stands
  index half_heads =
      0;  ///< head width, where the file has RoPE pairs (i, i + h/2) and the model (2i, 2i+1)
  index paired_heads = 0;  ///< head width, the other way round

  /// The file's output feature that holds row `n` of the model.
  index feature(index n) const {
    if (const index h = half_heads; h > 0) n = n / h * h + n % h % 2 * (h / 2) + n % h / 2;
    if (const index h = paired_heads; h > 0) n = n / h * h + n % h % (h / 2) * 2 + n % h / (h / 2);
    return offset + n;
  }
  bool reordered() const { return transposed || half_heads > 0 || paired_heads > 0; }
  /// The element at which row `n` begins, and the distance between its elements.
  std::pair<index, index> row(index n) const {
    return transposed ? std::pair(feature(n), columns) : std::pair(feature(n) * columns, index(1));
  }
};

/// Reads the rows of `to` from a tensor of real numbers, converting its type.
inline void copy_in(const leaf& to, const placement& at, dtype type, const std::byte* from) {
  if (type == to.type && !at.reordered()) {
    const index size = size_of(type);
    __builtin_memcpy(to.data, from + at.row(0).first * size,
                     static_cast<std::size_t>(to.size() * size));
    return;
  }
  std::array<double, 256> some;
  for (index n = 0; n < to.rows; ++n) {
    const auto [begin, step] = at.row(n);
    for (index j = 0; j < to.columns; j += std::ssize(some)) {
      const index count = (std::min<index>)(std::ssize(some), to.columns - j);
      decode_reals(type, from + (begin + j * step) * size_of(type), count, step, some.data());
      encode_reals(to, n * to.columns + j, count, some.data());
    }
  }
}

/// Writes the rows of `from` into a tensor of the same element type; `Word` has its size.
template <class Word>
void copy_out_as(const leaf& from, const placement& at, std::byte* to) {
  constexpr index size = sizeof(Word);
  const std::byte* source = from.data;
  for (index n = 0; n < from.rows; ++n, source += from.columns * size) {
    const auto [begin, step] = at.row(n);
    if (step == 1)
      __builtin_memcpy(to + begin * size, source, static_cast<std::size_t>(from.columns * size));
    else
      for (index j = 0; j < from.columns; ++j)
        __builtin_memcpy(to + (begin + j * step) * size, source + j * size, sizeof(Word));
  }
}
inline void copy_out(const leaf& from, const placement& at, std::byte* to) {
  switch (size_of(from.type)) {
    case 1:
      return copy_out_as<std::uint8_t>(from, at, to);
    case 2:
      return copy_out_as<std::uint16_t>(from, at, to);
    case 4:
      return copy_out_as<std::uint32_t>(from, at, to);
    default:
      return copy_out_as<std::uint64_t>(from, at, to);
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
