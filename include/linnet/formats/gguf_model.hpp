// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Weights from GGUF files: Llama, GPT-2, T5 and BERT in llama.cpp's names and layouts.

#include <linnet/formats/gguf_names.hpp>
#include <linnet/formats/gguf_reader.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Calls f(row, values) for each row of a tensor, decoded; a vector is one row.
template <class F>
void each_gguf_row(const gguf_tensor& from, std::vector<float>& values, F&& f) {
  const index columns = from.shape().back(), rows = from.size() / columns;
  const index bytes = columns / values_per_block(from.type) * bytes_per_block(from.type);
  values.resize(static_cast<std::size_t>(columns));
  for (index n = 0; n < rows; ++n) {
    decode_ggml(from.type, from.data.data() + n * bytes, values);
    f(n, std::span<const float>(values));
  }
}

/// Stores floats at element `first` of a tensor.
inline void encode_floats(const leaf& to, index first, std::span<const float> from) {
  if (to.type == dtype::f32) {
    __builtin_memcpy(to.data + first * size_of(dtype::f32), from.data(), from.size_bytes());
    return;
  }
  std::array<double, 256> some;
  for (std::size_t i = 0; i < from.size(); i += some.size()) {
    const std::size_t count = (std::min)(some.size(), from.size() - i);
    for (std::size_t j = 0; j < count; ++j) some[j] = static_cast<double>(from[i + j]);
    encode_reals(to, first + static_cast<index>(i), static_cast<index>(count), some.data());
  }
}

/// Reads row `n` of codes, scales and minima from its blocks.
inline void load_blocks(const leaf& to, index n, const std::byte* from) {
  const ggml_type type = block_type(to);
  std::byte* codes = to.data + n * to.columns;
  for (index b = n * to.row_scales; b < (n + 1) * to.row_scales; ++b) {
    to.scales[b] = half_at(from);
    from += 2;
    if (type == ggml_type::q4_1) {
      to.zeros[b] = half_at(from);
      from += 2;
    }
    if (type == ggml_type::q8_0) {
      __builtin_memcpy(codes, from, 32);
      codes += 32;
      from += 32;
      continue;
    }
    // The low halves of a block's bytes are its first codes, the high ones the others.
    const std::uint32_t flipped = type == ggml_type::q4_0 ? 0x88888888 : 0;
    for (int shift = 0; shift < 8; shift += 4)
      for (index i = 0; i < 16; i += 8, codes += 4) {
        std::uint64_t u = load_as<std::uint64_t>(from + i) >> shift & 0x0f0f0f0f0f0f0f0f;
        u = (u | u >> 4) & 0x00ff00ff00ff00ff;
        u = (u | u >> 8) & 0x0000ffff0000ffff;
        const std::uint32_t together = static_cast<std::uint32_t>(u | u >> 16) ^ flipped;
        __builtin_memcpy(codes, &together, sizeof together);
      }
    from += 16;
  }
}

/// Reads the rows of `to` from a tensor of a file, which has the placement's shape.
inline void copy_in(const leaf& to, const placement& at, const gguf_tensor& from,
                    std::vector<float>& values) {
  const index columns = at.vector ? at.rows : at.columns;
  const index bytes = columns / values_per_block(from.type) * bytes_per_block(from.type);
  values.resize(static_cast<std::size_t>(columns));
  if (at.vector) decode_ggml(from.type, from.data.data(), values);
  for (index n = 0; n < to.rows; ++n) {
    const index row = at.feature(n);
    if (to.ggml) {
      load_blocks(to, n, from.data.data() + row * bytes);
    } else if (at.vector) {
      encode_floats(to, n, {values.data() + row, 1});
    } else {
      decode_ggml(from.type, from.data.data() + row * bytes, values);
      encode_floats(to, n * columns, values);
    }
  }
}

/// The tensors of the file that hold these parts, which have their shapes; nothing else is in it.
inline result<std::vector<const gguf_tensor*>> find_gguf_parts(const gguf& file,
                                                               const std::vector<file_part>& parts,
                                                               std::string_view architecture,
                                                               nonfinite values) {
  const auto wrong = [&](errc code, std::string_view what, std::string expected, std::string got) {
    return error{code, file.where(), printable(what), std::move(expected), std::move(got)};
  };
  std::vector<float> row;
  std::vector<bool> used(file.tensors().size());
  std::vector<const gguf_tensor*> found;
  for (const file_part& part : parts) {
    const auto look_for = [&](std::string_view name) {
      const gguf_tensor* const tensor = file.find(name);
      if (tensor) used[static_cast<std::size_t>(tensor - file.tensors().data())] = true;
      return tensor;
    };
    const gguf_tensor* const tensor = look_for(part.at.name);
    const std::string expected =
        (part.at.vector ? "[" : "[" + std::to_string(part.at.rows) + ", ") +
        std::to_string(part.at.vector ? part.at.rows : part.at.columns) + "] (the model type)";
    if (!tensor) return wrong(errc::missing, part.at.name, expected, "no such tensor");
    const auto shape = tensor->shape();
    if (part.at.vector
            ? !(shape.size() == 1 && shape[0] == part.at.rows)
            : !(shape.size() == 2 && shape[0] == part.at.rows && shape[1] == part.at.columns))
      return wrong(errc::mismatch, tensor->name, expected, tensor->description());
    if (part.tensor.ggml && tensor->type != block_type(part.tensor))
      return wrong(errc::mismatch, tensor->name,
                   std::string(name_of(block_type(part.tensor))) +
                       " (the model type; load others into the f32 model and quantize() it)",
                   tensor->description());
    for (const std::string& alias : part.aliases)
      if (const gguf_tensor* const other = look_for(alias);
          other && !(other->type == tensor->type && std::ranges::equal(other->shape(), shape) &&
                     std::ranges::equal(other->data, tensor->data)))
        return wrong(errc::mismatch, other->name,
                     "the same values as " + part.at.name + " (one tensor in the model type)",
                     "others");
    found.push_back(tensor);
  }
  for (std::size_t i = 0; i < used.size(); ++i)
    if (const gguf_tensor& tensor = file.tensors()[i];
        !used[i] && !gguf_ignores(architecture, tensor.name))
      return wrong(errc::mismatch, tensor.name, "only tensors of the model type",
                   tensor.description());
  if (values == nonfinite::refuse)
    for (const gguf_tensor* const tensor : found) {
      bool finite = true;
      each_gguf_row(*tensor, row, [&](index, std::span<const float> x) {
        for (const float value : x) finite = finite && is_finite(value);
      });
      if (!finite)
        return wrong(errc::invalid, tensor->name, "finite numbers", "a NaN or an infinity");
    }
  return found;
}
/// Finds all parts and then copies them.
inline result<void> load_gguf_parts(const gguf& file, const std::vector<file_part>& parts,
                                    std::string_view architecture, nonfinite values) {
  const auto found = find_gguf_parts(file, parts, architecture, values);
  if (!found) return found.error();
  std::vector<float> row;
  for (std::size_t i = 0; i < parts.size(); ++i)
    copy_in(parts[i].tensor, parts[i].at, *(*found)[i], row);
  return {};
}

/// The parts of a GGUF file of `M` that hold these tensors, which are all in canonical order.
template <class M>
std::vector<file_part> gguf_parts_of(std::vector<leaf> tensors) {
  std::vector<file_part> parts;
  for (leaf& tensor : tensors) parts.push_back(gguf_part<M>(std::move(tensor)));
  return parts;
}
/// The parts of a GGUF file of `M`, in canonical order.
template <class M, class T>
std::vector<file_part> gguf_parts(const weights<M, T>& w) {
  return gguf_parts_of<M>(leaves_of(w));
}

}  // namespace detail

/// Loads a parsed GGUF file of architecture llama, gpt2, t5 or bert. Its metadata are compared with
/// the model type, then the name and shape of every tensor, and only then is `w` written. Matrices
/// stored as storage::q8_0, q4_0 or q4_1 take codes and scales of that type as they are. For
/// floats, blocks are decoded to those that llama.cpp computes with. Llama's rotary pairs are
/// reordered where the type uses position::rope_half. Heads that an encoder's type has not are left
/// out. Errors: errc::mismatch, errc::missing,
/// errc::unsupported (one of several parts), errc::out_of_memory, and errc::invalid where `values`
/// are to be finite.
template <class M, class T>
result<void> load_gguf(weights<M, T>& w, const gguf& file,
                       nonfinite values = nonfinite::keep) LINNET_TRY {
  if constexpr (!detail::fits_gguf<M, storage_of<M, T>>()) {
    return {};
  } else {
    if (!w.valid()) return w.error();
    if (auto fits = detail::check_gguf_facts<M>(file); !fits) return fits;
    return detail::load_gguf_parts(file, detail::gguf_parts(w), gguf_architecture_of<M>(), values);
  }
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Loads a GGUF file held in memory. `where` names it in errors. Errors: as above, and those of
/// parse_gguf().
template <class M, class T>
result<void> load_gguf(weights<M, T>& w, std::span<const std::byte> bytes,
                       const std::string& where = "GGUF file",
                       nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = parse_gguf(bytes, where);
  return file ? load_gguf(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Loads a GGUF file, which is mapped. Errors: as above, and those of read_gguf().
template <class M, class T>
result<void> load_gguf(weights<M, T>& w, const std::string& path,
                       nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = read_gguf(path);
  return file ? load_gguf(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
