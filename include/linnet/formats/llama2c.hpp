// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Checkpoints of llama2.c, versions 0 (legacy, no magic number) and 1; f32, little-endian.
///
/// Both begin with seven 32-bit integers: dim, hidden_dim, n_layers, n_heads, n_kv_heads,
/// vocab_size, seq_len. In version 0 a negative vocab_size means an untied head, and unused rotary
/// tables stand before it. Version 1 has a header of 256 bytes and another order of tensors.

#include <linnet/file/file.hpp>
#include <linnet/formats/tensor.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/text/llama2c_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Versions of the llama2.c checkpoint format.
enum class llama2c_version { v0, v1 };

namespace detail {

inline constexpr std::uint32_t llama2c_magic = 0x616b3432;
inline constexpr index llama2c_header = 256;  ///< bytes, version 1

/// Metadata of a model type that a llama2.c checkpoint also holds, and two numbers that the format
/// fixes.
struct llama2c_shape {
  std::int32_t dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocabulary = 0,
               context = 0;
  bool tied = true;
  index head_width = 0;
  index paired_heads =
      0;  ///< head width, where the model pairs (i, i + h/2) and the file (2i, 2i+1)
  double eps = 0, rope_theta = 0;
};

/// Whether the blocks of decoder `M` are Llama's.
template <class M>
inline constexpr bool holds_llama2c =
    std::is_same_v<typename M::norm, norm::rms>&& std::is_same_v<typename M::ffn, ffn::swiglu>&&
        std::is_same_v<typename M::attention, attention::full> &&
    !M::biased && !M::depths::routes && std::is_same_v<typename M::sharing, sharing::none> &&
    !M::factorised &&
    (std::is_same_v<typename M::position, position::rope> ||
     std::is_same_v<typename M::position, position::rope_half>);

/// The shape of a model type that checkpoints hold; words for others.
template <class M, class T>
constexpr llama2c_shape llama2c_shape_of() {
  if constexpr (!is_decoder<M>)
    static_assert(never<M>, "linnet: llama2.c checkpoints hold decoder-only models");
  else if constexpr (!holds_llama2c<M>)
    static_assert(never<M>,
                  "linnet: llama2.c checkpoints hold Llama models: norm::rms, ffn::swiglu, "
                  "attention::full, position::rope, no biases, nothing shared, no factorised "
                  "embedding");
  else if constexpr (M::shape.heads * M::shape.head_width() != M::shape.d_model)
    static_assert(never<M>, "linnet: in llama2.c checkpoints heads * head width is d_model");
  else if constexpr (storage_of<M, T>::scaled)
    static_assert(never<M>,
                  "linnet: llama2.c checkpoints are f32; load the f32 model and quantize() it");
  else {
    constexpr decoder_shape s = M::shape;
    const auto narrow = [](index x) { return static_cast<std::int32_t>(x); };
    return {narrow(s.d_model),
            narrow(s.d_ff),
            narrow(s.layers),
            narrow(s.heads),
            narrow(s.kv_heads),
            narrow(s.vocabulary),
            narrow(s.context),
            M::tied,
            s.head_width(),
            M::position::pairing == rope_pairing::half ? s.head_width() : 0,
            s.eps,
            s.rope_theta};
  }
  return {};
}

/// Offset of each tensor in a llama2.c checkpoint, in values behind the header.
class llama2c_layout {
 public:
  LINNET_COLD llama2c_layout(const llama2c_shape& s, llama2c_version version) : layers_(s.layers) {
    const index d = s.dim, kv = s.kv_heads * s.head_width, f = s.hidden, table = s.vocabulary * d;
    const bool legacy = version == llama2c_version::v0;
    const auto per_layer = [&](const char* name, index size) { add(name, size, true); };
    if (legacy) add("embedding.weight", table);
    per_layer("attention.norm.weight", d);
    if (!legacy) {
      per_layer("ffn.norm.weight", d);
      add("norm.weight", d);
      add("embedding.weight", table);
    }
    per_layer("attention.q.weight", d * d);
    per_layer("attention.k.weight", kv * d);
    per_layer("attention.v.weight", kv * d);
    per_layer("attention.o.weight", d * d);
    if (legacy) per_layer("ffn.norm.weight", d);
    per_layer("ffn.gate.weight", f * d);
    per_layer("ffn.down.weight", d * f);
    per_layer("ffn.up.weight", f * d);
    if (legacy) {
      add("norm.weight", d);
      tables_ = size_;
      size_ += s.context * s.head_width;
    }
    if (!s.tied) add("head.weight", table);
  }

  /// Number of values behind the header.
  index size() const { return size_; }
  /// Offset of the tensor with linnet's name `name`, or -1.
  index find(std::string_view name) const {
    index layer = -1;
    if (name.starts_with("blocks.")) {
      layer = 0;
      for (name.remove_prefix(7); name.front() != '.'; name.remove_prefix(1))
        layer = layer * 10 + (name.front() - '0');
      name.remove_prefix(1);
    }
    for (const entry& e : entries_)
      if (e.repeated == (layer >= 0) && e.name == name)
        return e.first + (layer > 0 ? layer * e.size : 0);
    return -1;
  }
  /// Offset of version 0's rotary tables.
  index tables() const { return tables_; }

 private:
  struct entry {
    std::string_view name;
    index first, size;
    bool repeated;
  };
  index layers_, size_ = 0, tables_ = 0;
  std::vector<entry> entries_;

  void add(std::string_view name, index size, bool repeated = false) {
    entries_.push_back({name, size_, size, repeated});
    size_ += repeated ? layers_ * size : size;
  }
};

/// Compares a checkpoint with a model type; returns the number of bytes before the first tensor.
LINNET_COLD inline result<index> check_llama2c(std::span<const std::byte> file,
                                               const llama2c_shape& type, const std::string& where,
                                               llama2c_version& version) LINNET_TRY {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, where, what, expected, got);
  };
  const auto differs = [&](const char* what, std::string expected, std::string_view got) {
    return wrong(errc::mismatch, what, std::move(expected) + " (the model type)", got);
  };
  index at = 0;
  const auto next = [&] { return load_as<std::int32_t>(file.data() + 4 * at++); };
  if (std::ssize(file) < 28)
    return wrong(errc::malformed, "file size", "at least 28 bytes", std::to_string(file.size()));
  const bool legacy = load_as<std::uint32_t>(file.data()) != llama2c_magic;
  version = legacy ? llama2c_version::v0 : llama2c_version::v1;
  if (!legacy) {
    if (std::ssize(file) < llama2c_header)
      return wrong(errc::malformed, "file size", "at least 256 bytes", std::to_string(file.size()));
    at = 1;
    if (const auto number = next(); number != 1)
      return wrong(errc::unsupported, "version", "0 or 1", std::to_string(number));
  }
  const std::pair<const char*, std::int32_t> fields[] = {{"dim", type.dim},
                                                         {"hidden_dim", type.hidden},
                                                         {"n_layers", type.layers},
                                                         {"n_heads", type.heads},
                                                         {"n_kv_heads", type.kv_heads}};
  for (const auto& [name, expected] : fields)
    if (const auto got = next(); got != expected)
      return differs(name, std::to_string(expected), std::to_string(got));
  const auto vocabulary = next();
  const std::int32_t signed_size = legacy && !type.tied ? -type.vocabulary : type.vocabulary;
  if (vocabulary != signed_size)
    return differs(
        legacy && vocabulary == -signed_size ? "vocab_size (negative: untied head)" : "vocab_size",
        std::to_string(signed_size), std::to_string(vocabulary));
  if (const auto got = next(); got != type.context)
    return differs("seq_len", std::to_string(type.context), std::to_string(got));
  if (!legacy) {
    const int shared = std::to_integer<int>(file[36]);
    if (shared > 1)
      return wrong(errc::malformed, "shared classifier", "0 or 1", std::to_string(shared));
    if (shared != (type.tied ? 1 : 0))
      return differs("shared classifier", type.tied ? "1" : "0", std::to_string(shared));
    for (const std::byte pad : file.subspan(37, llama2c_header - 37))
      if (pad != std::byte{0})
        return wrong(errc::malformed, "header", "zeros from byte 37 on", "another value");
  }
  // The format has no place for these: every llama2.c model uses the same.
  if (type.eps != 1e-5)
    return differs("norm eps", number_text(type.eps), "1e-05, as always in llama2.c");
  if (type.rope_theta != 10000)
    return differs("rope theta", number_text(type.rope_theta), "10000, as always in llama2.c");
  const index before = legacy ? 28 : llama2c_header,
              size = before + 4 * llama2c_layout(type, version).size();
  if (std::ssize(file) != size)
    return wrong(errc::malformed, "file size", std::to_string(size) + " bytes for this header",
                 std::to_string(file.size()));
  return before;
}
LINNET_OR_OUT_OF_MEMORY(where)

inline placement llama2c_placement(const llama2c_shape& type, const leaf& tensor) {
  placement at{tensor.name, tensor.rows, tensor.columns, tensor.vector};
  if (tensor.name.ends_with(".attention.q.weight") || tensor.name.ends_with(".attention.k.weight"))
    at.paired_heads = type.paired_heads;
  return at;
}

/// load_llama2c() into tensors of any model.
inline result<void> fill_from_llama2c(const std::vector<leaf>& leaves, const llama2c_shape& type,
                                      std::span<const std::byte> file, const std::string& where,
                                      nonfinite values) {
  llama2c_version version{};
  const auto begin = check_llama2c(file, type, where, version);
  if (!begin) return begin.error();
  const llama2c_layout layout(type, version);
  const auto from = [&](const leaf& tensor) {
    return file.data() + *begin + 4 * layout.find(tensor.name);
  };
  for (const leaf& tensor : leaves)
    if (values == nonfinite::refuse && !all_finite(dtype::f32, from(tensor), tensor.size()))
      return detail::failure(errc::invalid, where, tensor.name, "finite numbers",
                             "a NaN or an infinity");
  for (const leaf& tensor : leaves)
    copy_in(tensor, llama2c_placement(type, tensor), dtype::f32, from(tensor));
  return {};
}

}  // namespace detail

/// Loads a llama2.c checkpoint, version 0 or 1, held in memory. The header is compared with the
/// type of `w` field by field, then the size, and only then is `w` written. `where` names the file
/// in errors. Errors: errc::malformed, errc::mismatch, errc::unsupported, errc::out_of_memory, and
/// errc::invalid where `values` are to be finite.
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, std::span<const std::byte> file,
                          const std::string& where = "llama2.c file",
                          nonfinite values = nonfinite::keep) LINNET_TRY {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid()) return w.error();
  return detail::fill_from_llama2c(detail::leaves_of(w), type, file, where, values);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Loads a llama2.c checkpoint, version 0 or 1, from a file. Errors: as above, and those of
/// read_file().
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, const std::string& path,
                          nonfinite values = nonfinite::keep) LINNET_TRY {
  (void)detail::llama2c_shape_of<M, T>();
  const auto file = read_file(path);
  return file ? load_llama2c(w, *file, path, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Reads a tokenizer.bin for a model with `vocabulary` ids. Errors: those of read_file() and of
/// llama2c_tokenizer::parse().
inline result<llama2c_tokenizer> read_llama2c_tokenizer(const std::string& path,
                                                        index vocabulary) LINNET_TRY {
  const auto file = read_file(path);
  return file ? llama2c_tokenizer::parse(*file, vocabulary, path)
              : result<llama2c_tokenizer>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Saves weights as a llama2.c checkpoint of version 0, which llama2.c's run reads. Errors:
/// errc::mismatch (eps and theta that the format cannot express), errc::out_of_memory, errc::io.
template <class M, class T>
result<void> save_llama2c(const weights<M, T>& w, const std::string& path,
                          llama2c_version version = llama2c_version::v0) LINNET_TRY {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid()) return w.error();
  if (type.eps != 1e-5 || type.rope_theta != 10000)
    return detail::failure(errc::mismatch, path, "the model type",
                           "norm eps 1e-05 and rope theta 10000, as always in llama2.c", "others");
  const detail::llama2c_layout layout(type, version);
  const bool legacy = version == llama2c_version::v0;
  const index begin = legacy ? 28 : detail::llama2c_header;
  file_bytes file(static_cast<std::size_t>(begin + 4 * layout.size()));
  if (file.data() == nullptr)
    return detail::failure(errc::out_of_memory, path, "", "memory for the file", "none");
  __builtin_memset(file.data(), 0, static_cast<std::size_t>(begin));

  const std::int32_t header[] = {static_cast<std::int32_t>(detail::llama2c_magic),
                                 1,
                                 type.dim,
                                 type.hidden,
                                 type.layers,
                                 type.heads,
                                 type.kv_heads,
                                 legacy && !type.tied ? -type.vocabulary : type.vocabulary,
                                 type.context};
  const int skipped = legacy ? 2 : 0;
  __builtin_memcpy(file.data(), header + skipped,
                   sizeof header - 4 * static_cast<std::size_t>(skipped));
  if (!legacy && type.tied) file.data()[36] = std::byte{1};

  const auto put = [&](index at, float x) {
    __builtin_memcpy(file.data() + begin + 4 * at, &x, sizeof x);
  };
  for (const detail::leaf& tensor : detail::leaves_of(w)) {
    const detail::placement place = detail::llama2c_placement(type, tensor);
    const index first = layout.find(tensor.name);
    for (index n = 0; n < tensor.rows; ++n)
      for (index j = 0; j < tensor.columns; ++j) {
        double x = 0;
        detail::decode_reals(
            tensor.type, tensor.data + (n * tensor.columns + j) * size_of(tensor.type), 1, 1, &x);
        put(first + place.row(n).first + j, static_cast<float>(x));
      }
  }
  if (legacy)
    for (index t = 0, half = type.head_width / 2; t < type.context; ++t)
      for (index i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) *
                             std::pow(type.rope_theta, -2.0 * static_cast<double>(i) /
                                                           static_cast<double>(type.head_width));
        put(layout.tables() + t * half + i, static_cast<float>(std::cos(angle)));
        put(layout.tables() + (type.context + t) * half + i, static_cast<float>(std::sin(angle)));
      }
  return write_file(path, file);
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
