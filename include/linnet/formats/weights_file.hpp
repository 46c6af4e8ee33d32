// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Weights to and from safetensors files, under linnet's names or Hugging Face's.

#include <linnet/formats/adapter_notes.hpp>
#include <linnet/formats/hf_names.hpp>
#include <linnet/formats/safetensors.hpp>

LINNET_NAMESPACE_BEGIN

/// Whose names and layouts a file of weights follows.
namespace naming {
/// linnet's own names and layouts, for every model. Quantized tensors are their codes, with scales,
/// zero points and minima as `<name>.scales`, `<name>.zeros` and `<name>.minima`.
struct canonical {};
/// Names and layouts of Hugging Face Transformers, for T5, Llama, GPT-2, Mamba,
/// BERT, DistilBERT and ALBERT.
struct hugging_face {};
}  // namespace naming

namespace detail {

/// Whether names and layouts are Hugging Face's.
template <class Naming>
inline constexpr bool foreign = std::is_same_v<Naming, naming::hugging_face>;

/// The parts of a file of `M`, in canonical order.
template <class Naming, class M, class T>
std::vector<file_part> parts_of(const weights<M, T>& w) {
  static_assert(foreign<Naming> || std::is_same_v<Naming, naming::canonical>,
                "linnet: naming::canonical or naming::hugging_face");
  std::vector<file_part> parts;
  for (leaf& tensor : leaves_of(w)) {
    if constexpr (foreign<Naming>) {
      parts.push_back(hf_part(hf_layout_of<M>(), std::move(tensor)));
    } else {
      const auto add = [&](float* values, const char* suffix) {
        if (values == nullptr) return;
        leaf more{.name = tensor.name + suffix, .rows = tensor.rows, .columns = tensor.row_scales};
        more.vector = tensor.row_scales == 1;
        more.data = reinterpret_cast<std::byte*>(values);
        more.ggml = tensor.ggml;
        parts.push_back({more, {more.name, more.rows, more.columns, more.vector}});
      };
      add(tensor.scales, ".scales");
      add(tensor.zeros, tensor.ggml ? ".minima" : ".zeros");
      for (const leaf& more : tensor.more)
        parts.push_back({more, {more.name, more.rows, more.columns}});
      parts.push_back({tensor, {tensor.name, tensor.rows, tensor.columns, tensor.vector}});
    }
  }
  return parts;
}

/// The file's shape of a part, for comparison with a record's.
inline std::vector<index> shape_of(const placement& at) {
  if (at.vector) return {at.rows};
  if (at.depthwise) return {at.rows, 1, at.columns};
  return {at.rows, at.columns};
}

inline std::string shape_text(const placement& at) {
  std::string text;
  for (const index size : shape_of(at)) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text + "]";
}

/// Fault in codes, scales, zero points or minima that no storage has: what they should be, or null.
/// Asked before they are saved, and of what is loaded.
inline const char* unusable(const leaf& tensor, dtype type, const std::byte* data) {
  if (tensor.places)
    return tensor.places(tensor.rows, tensor.inputs, data)
               ? nullptr
               : "places of as many numbers as a row keeps";
  if (tensor.inputs > 0) {
    for (index i = 0; i < tensor.size(); ++i) {
      std::uint16_t input = 0;
      __builtin_memcpy(&input, data + i * index{sizeof input}, sizeof input);
      if (input >= tensor.inputs) return "numbers of the matrix's inputs";
    }
    return nullptr;
  }
  if (tensor.beside_codes && !all_finite(type, data, tensor.size())) return "finite numbers";
  if (tensor.ggml) {
    for (index i = 0; is_real(type) && i < tensor.size(); ++i) {
      double x = 0;
      decode_reals(type, data + i * size_of(type), 1, 1, &x);
      if (!is_finite(x) || storage::f16::decode(storage::f16::encode(x)) != x)
        return "finite numbers that half precision holds";
    }
    return nullptr;
  }
  if (tensor.type == dtype::i8)
    return std::find(data, data + tensor.size(), std::byte{0x80}) != data + tensor.size()
               ? "codes from -127 to 127"
               : nullptr;
  if ((type == dtype::f8_e4m3 || type == dtype::f8_e5m2) && !all_finite(type, data, tensor.size()))
    return "codes of finite numbers";
  const bool scales = tensor.name.ends_with(".scales");
  if (!scales && !tensor.name.ends_with(".zeros")) return nullptr;
  for (index i = 0; i < tensor.size(); ++i) {
    double x = 0;
    decode_reals(type, data + i * size_of(type), 1, 1, &x);
    if (!is_finite(x) || (scales ? !(x > 0) : !(x >= 0 && x <= 255)))
      return scales ? "positive, finite scales" : "zero points from 0 to 255";
  }
  return nullptr;
}

/// Whether two tensors of one shape hold equal values, of whatever real types they are.
inline bool same_values(const tensor_record& a, const tensor_record& b) {
  if (!std::ranges::equal(a.shape(), b.shape())) return false;
  if (a.type == b.type) return std::ranges::equal(a.data, b.data);
  if (!is_real(a.type) || !is_real(b.type)) return false;
  for (index i = 0; i < a.size(); ++i) {
    std::uint64_t x = 0, y = 0;  // bits: zeros have signs, and a NaN is equal to itself
    double value = 0;
    decode_reals(a.type, a.data.data() + i * size_of(a.type), 1, 1, &value);
    __builtin_memcpy(&x, &value, sizeof x);
    decode_reals(b.type, b.data.data() + i * size_of(b.type), 1, 1, &value);
    __builtin_memcpy(&y, &value, sizeof y);
    if (x != y) return false;
  }
  return true;
}

/// Finds every part in the file and checks its type and shape, then that nothing else is in it.
/// Only then it copies. Tensors whose names do not begin with `prefix` are not looked at.
template <class Ignores>
result<void> load_parts(const safetensors& file, const std::vector<file_part>& parts,
                        std::string_view prefix, nonfinite values, Ignores&& ignores) {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, file.where(), printable(what), expected, got);
  };
  std::vector<bool> used(file.tensors().size());
  std::vector<const tensor_record*> found(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const file_part& part = parts[i];
    const placement& at = part.at;
    const auto look_for = [&](std::string_view name) {
      const tensor_record* const record = file.find(std::string(prefix).append(name));
      if (!record) return record;
      used[static_cast<std::size_t>(record - file.tensors().data())] = true;
      return record;
    };
    found[i] = look_for(at.name);
    for (const std::string& alias : part.aliases) {
      const tensor_record* const other = look_for(alias);
      if (!found[i]) found[i] = other;
      if (other && !same_values(*other, *found[i]))
        return wrong(errc::mismatch, other->name,
                     "the same values as " + found[i]->name + " (one tensor in the model type)",
                     "others");
    }
    const bool code = !is_real(part.tensor.type);
    const std::string expected = (code ? std::string(name_of(part.tensor.type)) + " " : "real ") +
                                 shape_text(at) + " (the model type)";
    if (!found[i])
      return wrong(errc::missing, std::string(prefix) + at.name, expected, "no such tensor");
    const tensor_record& record = *found[i];
    if ((code ? record.type != part.tensor.type : !is_real(record.type)) ||
        !std::ranges::equal(record.shape(), shape_of(at)))
      return wrong(errc::mismatch, record.name, expected, record.description());
    if (const char* const wanted = unusable(part.tensor, record.type, record.data.data()))
      return wrong(errc::malformed, record.name, wanted, "another value");
    if (values == nonfinite::refuse && !all_finite(record.type, record.data.data(), record.size()))
      return wrong(errc::invalid, record.name, "finite numbers", "a NaN or an infinity");
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    const std::string& name = file.tensors()[i].name;
    if (!used[i] && name.starts_with(prefix) &&
        !ignores(std::string_view(name).substr(prefix.size())))
      return wrong(errc::mismatch, name, "only tensors of the model type",
                   file.tensors()[i].description());
  }
  for (std::size_t i = 0; i < parts.size(); ++i)
    copy_in(parts[i].tensor, parts[i].at, found[i]->type, found[i]->data.data());
  return {};
}

/// Writes parts to a file; parts that share a tensor of the file are joined.
inline result<void> save_parts(const std::string& path, const std::vector<file_part>& parts,
                               const file_metadata& metadata) {
  struct file_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<index> shape;
    std::vector<const file_part*> parts;
  };
  std::vector<file_tensor> tensors;
  for (const file_part& part : parts) {
    auto at = std::find_if(tensors.begin(), tensors.end(),
                           [&](const auto& t) { return t.name == part.at.name; });
    if (at == tensors.end())
      at = tensors.insert(at, {part.at.name, part.tensor.type, shape_of(part.at), {}});
    at->parts.push_back(&part);
  }
  for (const file_part& part : parts)
    if (const char* const wanted = unusable(part.tensor, part.tensor.type, part.tensor.data))
      return detail::failure(errc::invalid, path, part.at.name, wanted, "another value");
  const auto prefix = safetensors_prefix(tensors, metadata, path);
  if (!prefix) return prefix.error();
  file_writer file(path);
  file.write(bytes_of(*prefix));
  std::vector<std::byte> whole;
  for (const file_tensor& tensor : tensors) {
    const file_part& first = *tensor.parts.front();
    const auto size =
        static_cast<std::size_t>(first.at.rows * first.at.columns * size_of(tensor.type));
    if (tensor.parts.size() == 1 && !first.at.reordered()) {
      file.write({first.tensor.data, size});
      continue;
    }
    whole.resize(size);
    for (const file_part* part : tensor.parts) copy_out(part->tensor, part->at, whole.data());
    file.write(whole);
  }
  return file.commit();
}

/// Refuses a file of quantized weights for a type that stores them otherwise; the error names both
/// types.
template <class S>
result<void> check_storage(const safetensors& file) {
  const auto said = file.metadata().find("storage");
  if (said == file.metadata().end()) return {};
  const auto differs = [&](std::string_view what, const std::string& expected,
                           const std::string& got) {
    return detail::failure(errc::mismatch, file.where(), what, expected + " (the model type)",
                           printable(got));
  };
  const auto is_plain = [](std::string_view name) {
    return name == "f32" || name == "f64" || name == "bf16" || name == "f16";
  };
  if (const std::string own = storage::name_of<S>();
      said->second != own && !(is_plain(said->second) && is_plain(own)))
    return differs("storage", own, said->second);
  const auto group = file.metadata().find("storage_group");
  if (const std::string own = std::to_string(S::group);
      S::group > 0 && group != file.metadata().end() && group->second != own)
    return differs("storage_group", own, group->second);
  return {};
}

}  // namespace detail

/// Loads all weights from a parsed safetensors file, converting between F16, BF16, F32, F64 and the
/// model's storage. Every tensor of the model must be there exactly once and in its shape, and no
/// other; `w` is untouched unless all of it fits. Files that linnet wrote also say what model they
/// are of, which is compared first. Those of an adapter say its lora_options but for dropout, and a
/// hash of its base, which `base` may let be any. With `prefix` (such as "grad."), only tensors
/// whose names begin with it count. Errors: errc::missing, errc::mismatch, errc::malformed,
/// errc::out_of_memory, and errc::invalid where `values` are to be finite.
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, const safetensors& file, Naming = {},
                              std::string_view prefix = {}, nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!w.valid()) return w.error();
  if constexpr (!detail::foreign<Naming>) {
    for (const detail::key_value& one : detail::metadata_of<M>())
      if (const auto said = file.metadata().find(one.key);
          said != file.metadata().end() && said->second != one.value)
        return detail::failure(errc::mismatch, file.where(), one.key,
                               one.value + " (the model type)", detail::printable(said->second));
    if (auto fits = detail::check_adapter_file(w.tree(), file, base, false); !fits) return fits;
    if (auto fits = detail::check_storage<typename weights<M, T>::storage>(file);
        !fits && prefix.empty())
      return fits;
  }
  if constexpr (detail::fits_metadata<!detail::foreign<Naming>, M>() &&
                detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()) {
    auto done = detail::load_parts(
        file, detail::parts_of<Naming>(w), prefix, values, [](std::string_view name) {
          return detail::foreign<Naming> && hugging_face_ignores(hf_kind_of<M>(), name);
        });
    if (!done) return done;
    w.visit([](const parameter_path&, const tensor_info& info, const auto& leaf) {
      if constexpr (requires { leaf.levels; }) leaf.open(info.rows, info.columns);
    });
  }
  return {};
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Loads all weights from the bytes of a safetensors file, such as an array in the program. `where`
/// names it in errors. Errors: as above, and those of parse_safetensors().
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, std::span<const std::byte> bytes, Naming names = {},
                              const std::string& where = "safetensors",
                              nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!(detail::fits_metadata<!detail::foreign<Naming>, M>() &&
        detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()))
    return {};
  const auto file = parse_safetensors(bytes, where);
  return file ? load_safetensors(w, *file, names, {}, values, base) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Loads weights from a safetensors file. Errors: those of the overload above and of
/// read_safetensors().
template <class M, class T, class Naming = naming::canonical>
result<void> load_safetensors(weights<M, T>& w, const std::string& path, Naming names = {},
                              nonfinite values = nonfinite::keep,
                              peft_base base = peft_base::same) LINNET_TRY {
  if (!(detail::fits_metadata<!detail::foreign<Naming>, M>() &&
        detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>()))
    return {};
  const auto file = read_safetensors(path);
  return file ? load_safetensors(w, *file, names, {}, values, base) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Saves all weights as a safetensors file in their storage type. The metadata are a description of
/// the model (linnet's names) or the mark that Transformers asks for (Hugging Face's), and `notes`
/// of your own. That of an adapter has its lora_options and a hash of its base. The same weights
/// always give the same bytes. Nothing is written that load_safetensors() refuses. Errors:
/// errc::invalid (notes that are not UTF-8 or too long, scales that are not finite), errc::io.
template <class M, class T, class Naming = naming::canonical>
result<void> save_safetensors(const weights<M, T>& w, const std::string& path, Naming = {},
                              file_metadata notes = {}) LINNET_TRY {
  if (!w.valid()) return w.error();
  if (weights<M, T>::storage::per_word > 1)  // compressed; masters may be saved to be looked at
    if (auto fit = check_finite(w, path); !fit) return fit;
  if constexpr (detail::foreign<Naming>) {
    notes["format"] = "pt";
  } else {
    notes["format"] = "linnet";
    using S = typename weights<M, T>::storage;
    notes["storage"] = storage::name_of<S>();
    if (S::group > 0) notes["storage_group"] = std::to_string(S::group);
    for (const detail::key_value& one : detail::metadata_of<M>()) notes[one.key] = one.value;
    for (const detail::key_value& one : detail::notes_of_adapter(w.tree()))
      notes[one.key] = one.value;
  }
  if constexpr (detail::fits_metadata<!detail::foreign<Naming>, M>() &&
                detail::fits_hugging_face<detail::foreign<Naming>, M, storage_of<M, T>>())
    return detail::save_parts(path, detail::parts_of<Naming>(w), notes);
  else
    return {};
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
