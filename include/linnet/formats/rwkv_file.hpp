// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Model files of rwkv.cpp (github.com/RWKV/rwkv.cpp): RWKV-4 and RWKV-7. Values are F32, F16 or in
/// ggml's blocks Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
///
/// A header of six 32-bit integers (magic, version, n_vocab, n_embed, n_layer, type) is followed by
/// records to the end of the file. They come in any order and are not aligned. A record is number
/// of dimensions, length of the name, type, dimensions (fastest first), name, data.

#include <cmath>

#include <linnet/file/file.hpp>
#include <linnet/formats/ggml_blocks.hpp>
#include <linnet/model/rwkv.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint32_t rwkv_magic = 0x67676d66;
inline constexpr index rwkv_header = 24;  ///< bytes

/// The element type with the format's number `id`, or null.
inline const ggml_layout* rwkv_type_of(std::uint32_t id) {
  constexpr std::pair<std::uint32_t, ggml_type> types[] = {
      {0, ggml_type::f32},  {1, ggml_type::f16},  {2, ggml_type::q4_0}, {3, ggml_type::q4_1},
      {7, ggml_type::q5_0}, {8, ggml_type::q5_1}, {9, ggml_type::q8_0}};
  for (const auto& [number, type] : types)
    if (number == id) return &ggml_layout_of(type);
  return nullptr;
}

/// Metadata of a model type that an rwkv.cpp file also holds.
struct rwkv_shape {
  int version = 4;
  index vocabulary = 0, width = 0, layers = 0, heads = 0;
  double eps = 0;
};
/// Whether `M` is rwkv4<shape> or rwkv7<shape>.
template <class M>
constexpr bool holds_rwkv() {
  if constexpr (!is_decoder<M>) {
    return false;
  } else {
    constexpr bool four = std::is_same_v<typename M::attention, mixer::rwkv4> &&
                          std::is_same_v<typename M::ffn, ffn::rwkv4_channel_mix>;
    constexpr bool seven = std::is_same_v<typename M::attention, mixer::rwkv7> &&
                           std::is_same_v<typename M::ffn, ffn::rwkv7_channel_mix>;
    return (four || seven) && std::is_same_v<typename M::norm, norm::layer_norm> &&
           std::is_same_v<typename M::position, position::none> && !M::tied &&
           std::is_same_v<typename M::sharing, sharing::none> && !M::factorised;
  }
}

/// The shape of a model type that rwkv.cpp's files hold; words for others.
template <class M, class T>
constexpr rwkv_shape rwkv_shape_of() {
  if constexpr (!holds_rwkv<M>())
    static_assert(never<M>,
                  "linnet: rwkv.cpp files hold models of the types rwkv4<shape> and rwkv7<shape>");
  else if constexpr (storage_of<M, T>::scaled)
    static_assert(never<M>, "linnet: load rwkv.cpp files into the f32 model and quantize() it");
  else
    return {std::is_same_v<typename M::attention, mixer::rwkv4> ? 4 : 7,
            M::vocabulary,
            M::d,
            M::shape.layers,
            M::shape.heads,
            M::shape.eps};
  return {};
}

/// A tensor that a file must hold, and where it was found.
struct rwkv_tensor {
  std::string name;
  index rows = 0, columns = 0;  ///< columns are the fastest dimension
  const ggml_layout* type = nullptr;
  const std::byte* data = nullptr;
};
/// Where the values of one of the model's tensors stand.
struct rwkv_place {
  rwkv_tensor tensor;
  index offset = 0;    ///< values before it in the file's tensor
  bool decay = false;  ///< the file has w = -e^decay
};
inline rwkv_place rwkv_place_of(const rwkv_shape& shape, const leaf& to) {
  rwkv_place at;
  at.tensor.rows = to.vector ? 1 : to.rows;
  at.tensor.columns = to.vector ? to.rows : to.columns;
  std::string_view name = to.name;
  const auto cut = [&](std::string_view prefix) {
    const bool there = name.starts_with(prefix);
    if (there) name.remove_prefix(prefix.size());
    return there;
  };
  std::string& file = at.tensor.name;
  if (cut("embedding.norm.")) {
    file = "blocks.0.ln0.";
  } else if (cut("embedding.")) {
    file = "emb.";
  } else if (cut("norm.")) {
    file = "ln_out.";
  } else if (name.starts_with("blocks.")) {
    const std::size_t number = name.find('.', 7) + 1;
    file = name.substr(0, number);
    name.remove_prefix(number);
    if (cut("attention.norm.")) {
      file += "ln1.";
    } else if (cut("ffn.norm.")) {
      file += "ln2.";
    } else if (cut("attention.")) {
      file += "att.";
      at.decay = name == "time_decay";
      if (shape.version == 7) {
        constexpr std::string_view stacked = "rwkvag";  // x_r, x_w, ... in one tensor
        if (cut("x_")) {
          at.offset = static_cast<index>(stacked.find(name)) * shape.width;
          at.tensor.rows = 6;
          name = "x_rwkvag";
        } else if (name == "r_k") {
          at.tensor.rows = shape.heads;
          at.tensor.columns = shape.width / shape.heads;
        } else if (name.size() == 9 && (name[1] == '1' || name[1] == '2')) {
          name = name.substr(0, 2);  // a low-rank factor, w1.weight
        }
      }
    }
  }
  file += name;
  return at;
}

inline std::string rwkv_dimensions(index rows, index columns) {
  return "[" + (rows == 1 ? "" : std::to_string(rows) + ", ") + std::to_string(columns) + "]";
}

/// Finds all of `tensors`, which are sorted by name, in a file. Sizes in the file are compared with
/// the model's before anything is computed from them.
inline result<void> find_rwkv_tensors(std::span<const std::byte> file, const rwkv_shape& shape,
                                      const std::string& where, std::vector<rwkv_tensor>& tensors) {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, where, printable(what), expected, got);
  };
  index at = 0;
  const auto left = [&] { return std::ssize(file) - at; };
  const auto next = [&] {
    at += 4;
    return load_as<std::uint32_t>(file.data() + at - 4);
  };
  if (left() < rwkv_header)
    return wrong(errc::malformed, "file size", "at least 24 bytes", std::to_string(file.size()));
  if (next() != rwkv_magic)
    return wrong(errc::malformed, "magic", "that of an rwkv.cpp file", "other bytes");
  const std::uint32_t version = next();
  if (version != 100 && version != 101)
    return wrong(errc::unsupported, "version", "100 or 101", std::to_string(version));
  const std::pair<const char*, index> fields[] = {
      {"n_vocab", shape.vocabulary}, {"n_embed", shape.width}, {"n_layer", shape.layers}};
  for (const auto& [name, expected] : fields)
    if (const index got = next(); got != expected)
      return wrong(errc::mismatch, name, std::to_string(expected) + " (the model type)",
                   std::to_string(got));
  if (const std::uint32_t type = next(); !rwkv_type_of(type) || (version == 100 && type > 1))
    return wrong(errc::unsupported, "data type",
                 version == 100 ? "0 or 1 in version 100" : "0, 1, 2, 3, 7, 8 or 9",
                 std::to_string(type));
  // The format has no place for it.
  if (shape.eps != 1e-5)
    return wrong(errc::mismatch, "norm eps", number_text(shape.eps) + " (the model type)",
                 "1e-05, as always in RWKV");

  while (left() > 0) {
    const std::string here = "record at byte " + std::to_string(at);
    if (left() < 12)
      return wrong(errc::malformed, here, "at least 12 bytes", std::to_string(left()));
    const std::uint32_t dimensions = next(), length = next(), id = next();
    if (dimensions < 1 || dimensions > 3)
      return wrong(errc::malformed, here, "1 to 3 dimensions", std::to_string(dimensions));
    if (left() < index{4} * dimensions || left() - index{4} * dimensions < index{length})
      return wrong(errc::malformed, here, "a name of " + std::to_string(length) + " bytes",
                   "the end of the file");
    std::uint64_t call_shape[3] = {1, 1, 1};
    for (std::uint32_t i = 0; i < dimensions; ++i) call_shape[i] = next();
    const std::string_view name(reinterpret_cast<const char*>(file.data() + at), length);
    at += index{length};
    const auto found =
        std::lower_bound(tensors.begin(), tensors.end(), name,
                         [](const rwkv_tensor& a, std::string_view b) { return a.name < b; });
    if (found == tensors.end() || found->name != name)
      return wrong(errc::mismatch, name, "only tensors of the model type", "this one");
    if (found->data) return wrong(errc::malformed, name, "one tensor of this name", "two");
    found->type = rwkv_type_of(id);
    if (!found->type)
      return wrong(errc::unsupported, name, "type 0, 1, 2, 3, 7, 8 or 9", std::to_string(id));
    const auto rows = static_cast<std::uint64_t>(found->rows);
    const auto columns = static_cast<std::uint64_t>(found->columns);
    if (call_shape[0] != columns || call_shape[1] * call_shape[2] != rows) {
      std::string got;
      for (std::uint32_t i = dimensions; i-- > 0;)
        got += (got.empty() ? "[" : ", ") + std::to_string(call_shape[i]);
      return wrong(errc::mismatch, name,
                   rwkv_dimensions(found->rows, found->columns) + " (the model type)", got + "]");
    }
    if (found->columns % found->type->block != 0)
      return wrong(errc::malformed, name, "whole blocks of 32 values",
                   "rows of " + std::to_string(found->columns));
    const index bytes = found->rows * found->columns / found->type->block * found->type->bytes;
    if (left() < bytes)
      return wrong(errc::malformed, name, std::to_string(bytes) + " bytes of data",
                   std::to_string(left()));
    found->data = file.data() + at;
    at += bytes;
  }
  for (const rwkv_tensor& tensor : tensors)
    if (!tensor.data)
      return wrong(errc::missing, tensor.name,
                   rwkv_dimensions(tensor.rows, tensor.columns) + " (the model type)",
                   "no such tensor");
  return {};
}

/// Calls f(position, values) for some of the values at `at` at a time.
template <class F>
void each_rwkv_values(const rwkv_tensor& from, const rwkv_place& at, index size, F&& f) {
  const ggml_layout& type = *from.type;
  const std::byte* data = from.data + at.offset / type.block * type.bytes;
  std::array<float, 256> decoded;
  std::array<double, 256> some;
  for (index first = 0; first < size; first += std::ssize(some)) {
    const auto count = static_cast<std::size_t>((std::min<index>)(std::ssize(some), size - first));
    decode_ggml(type.type, data, std::span(decoded).first(count));
    data += static_cast<index>(count) / type.block * type.bytes;
    std::copy_n(decoded.begin(), count, some.begin());
    f(first, std::span(some).first(count));
  }
}

}  // namespace detail

/// Loads a model file of rwkv.cpp, held in memory, into a model of type rwkv4<shape> or
/// rwkv7<shape>. Every tensor of the model must be there exactly once and in its shape, and no
/// other; `w` is untouched unless all of it fits. `where` names the file in errors. Errors:
/// errc::malformed, errc::mismatch, errc::missing, errc::unsupported, errc::out_of_memory, and
/// errc::invalid where `values` are to be finite.
template <class M, class T>
result<void> load_rwkv(weights<M, T>& w, std::span<const std::byte> file,
                       const std::string& where = "rwkv.cpp file",
                       nonfinite values = nonfinite::keep) LINNET_TRY {
  constexpr detail::rwkv_shape shape = detail::rwkv_shape_of<M, T>();
  if (!w.valid()) return w.error();
  const std::vector<detail::leaf> leaves = detail::leaves_of(w);
  std::vector<detail::rwkv_place> places;
  std::vector<detail::rwkv_tensor> tensors;
  for (const detail::leaf& to : leaves) {
    places.push_back(detail::rwkv_place_of(shape, to));
    if (places.back().offset == 0) tensors.push_back(places.back().tensor);
  }
  const auto by_name = [](const detail::rwkv_tensor& a, const detail::rwkv_tensor& b) {
    return a.name < b.name;
  };
  std::sort(tensors.begin(), tensors.end(), by_name);
  if (auto found = detail::find_rwkv_tensors(file, shape, where, tensors); !found)
    return found.error();

  const auto each = [&](bool only_decays, auto&& f) {
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (!only_decays || places[i].decay) {
        const auto at = std::lower_bound(tensors.begin(), tensors.end(), places[i].tensor, by_name);
        detail::each_rwkv_values(*at, places[i], leaves[i].size(),
                                 [&](index first, std::span<double> x) { f(i, first, x); });
      }
  };
  const std::string *unusable = nullptr, *infinite = nullptr;
  each(values == nonfinite::keep, [&](std::size_t i, index, std::span<double> x) {
    for (const double value : x) {
      if (places[i].decay && !(is_finite(value) && value < 0)) unusable = &places[i].tensor.name;
      if (!is_finite(value) && !infinite) infinite = &places[i].tensor.name;
    }
  });
  if (unusable)
    return detail::failure(errc::malformed, where, *unusable, "negative, finite decays",
                           "another value");
  if (infinite)
    return detail::failure(errc::invalid, where, *infinite, "finite numbers",
                           "a NaN or an infinity");
  each(false, [&](std::size_t i, index first, std::span<double> x) {
    if (places[i].decay)
      for (double& decay : x) decay = std::log(-decay);
    detail::encode_reals(leaves[i], first, std::ssize(x), x.data());
  });
  return {};
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Loads a model file of rwkv.cpp into a model of type rwkv4<shape> or rwkv7<shape>. Errors: as
/// above, and those of read_file().
template <class M, class T>
result<void> load_rwkv(weights<M, T>& w, const std::string& path,
                       nonfinite values = nonfinite::keep) LINNET_TRY {
  (void)detail::rwkv_shape_of<M, T>();
  const auto file = read_file(path);
  return file ? load_rwkv(w, *file, path, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
