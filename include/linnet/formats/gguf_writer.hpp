// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Writes GGUF files, version 3: metadata and tensors of any kind, or the weights of a model.

#include <linnet/formats/ggml_encode.hpp>
#include <linnet/formats/gguf_model.hpp>
#include <linnet/text/ggml_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// One metadatum to be written: a key, and a value or an array.
struct gguf_entry {
  std::string key;
  gguf_kind kind = gguf_kind::u32;  ///< of the value, or of an array's elements
  bool array = false;
  index count = 1;
  std::string data{};  ///< the value's bytes, little-endian; texts behind their lengths

  /// A number, a bool or a text, in the type of metadata that is nearest to its own.
  template <class T>
  gguf_entry(std::string name, const T& value) : key(std::move(name)) {
    if constexpr (std::is_convertible_v<const T&, std::string_view> || std::is_arithmetic_v<T>) {
      add(value);
    } else {
      array = true;
      count = static_cast<index>(std::size(value));
      kind = kind_of<typename T::value_type>();
      for (const auto& one : value) add(static_cast<const typename T::value_type&>(one));
    }
  }
  /// A copy of a file's metadatum, such as a tokenizer's tokens.
  explicit gguf_entry(const gguf_value& from)
      : key(from.key),
        kind(from.kind),
        array(from.array),
        count(from.count),
        data(reinterpret_cast<const char*>(from.data.data()), from.data.size()) {}

 private:
  template <class T>
  static constexpr gguf_kind kind_of() {
    if constexpr (std::is_convertible_v<T, std::string_view>)
      return gguf_kind::string;
    else if constexpr (std::is_same_v<T, bool>)
      return gguf_kind::boolean;
    else if constexpr (std::is_floating_point_v<T>)
      return sizeof(T) == 4 ? gguf_kind::f32 : gguf_kind::f64;
    else if constexpr (std::is_signed_v<T>)
      return sizeof(T) == 1   ? gguf_kind::i8
             : sizeof(T) == 2 ? gguf_kind::i16
             : sizeof(T) == 4 ? gguf_kind::i32
                              : gguf_kind::i64;
    else
      return sizeof(T) == 1   ? gguf_kind::u8
             : sizeof(T) == 2 ? gguf_kind::u16
             : sizeof(T) == 4 ? gguf_kind::u32
                              : gguf_kind::u64;
  }
  void append(const void* from, std::size_t bytes) {
    data.append(static_cast<const char*>(from), bytes);
  }
  template <class T>
  void add(const T& value) {
    kind = kind_of<T>();
    if constexpr (std::is_convertible_v<const T&, std::string_view>) {
      const std::string_view text = value;
      const std::uint64_t length = text.size();
      append(&length, sizeof length);
      append(text.data(), text.size());
    } else if constexpr (std::is_same_v<T, bool>) {
      const char byte = value ? 1 : 0;
      append(&byte, 1);
    } else {
      append(&value, sizeof value);
    }
  }
};

/// One tensor to be written: its name, the type that the file has it in, and its values.
struct gguf_named_tensor {
  std::string name;
  ggml_type type = ggml_type::f32;
  std::vector<index> shape;         ///< the slowest first, as in PyTorch
  std::span<const float> values{};  ///< row-major; whole blocks in each row
};

namespace detail {

/// The metadata and descriptions of a file up to the tensors' data, or why readers would refuse it
/// (errc::invalid).
inline result<std::string> gguf_head(std::span<const gguf_entry> metadata,
                                     std::span<const gguf_named_tensor> tensors,
                                     const std::string& path) {
  std::string head = "GGUF";
  const auto put = [&](auto number) {
    head.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  const auto put_text = [&](std::string_view text) {
    put(std::uint64_t{text.size()});
    head += text;
  };
  const auto align = [](std::uint64_t x) {
    return (x + gguf_default_alignment - 1) / gguf_default_alignment * gguf_default_alignment;
  };
  put(std::uint32_t{3});
  put(std::uint64_t{tensors.size()});
  put(std::uint64_t{metadata.size()});
  for (const gguf_entry& one : metadata) {
    if (one.key == "general.alignment")
      return error{errc::invalid, path, one.key, "no such metadatum: the writer aligns to 32",
                   "one"};
    put_text(one.key);
    if (one.array) put(static_cast<std::uint32_t>(gguf_kind::array));
    put(static_cast<std::uint32_t>(one.kind));
    if (one.array) put(static_cast<std::uint64_t>(one.count));
    head += one.data;
  }
  std::uint64_t offset = 0;
  for (const gguf_named_tensor& one : tensors) {
    put_text(one.name);
    put(static_cast<std::uint32_t>(one.shape.size()));
    for (std::size_t i = one.shape.size(); i-- > 0;) put(static_cast<std::uint64_t>(one.shape[i]));
    put(static_cast<std::uint32_t>(one.type));
    put(offset);
    std::uint64_t values = 1;
    for (const index n : one.shape) values *= static_cast<std::uint64_t>(n);
    const auto block = static_cast<std::uint64_t>(values_per_block(one.type));
    offset = align(offset + values / block * static_cast<std::uint64_t>(bytes_per_block(one.type)));
  }
  head.resize(static_cast<std::size_t>(align(head.size())));
  gguf checked;
  gguf_parser parser(std::as_bytes(std::span(head)), head.size() + offset, checked, path);
  if (parser.parse()) return head;
  if (parser.failure.code != errc::out_of_memory) parser.failure.code = errc::invalid;
  return parser.failure;
}

/// Stores row `r` of a tensor's values; whether they fit.
inline bool encode_row(const gguf_named_tensor& tensor, std::span<const float> values, index r,
                       std::span<std::byte> to) {
  const auto columns = static_cast<std::size_t>(tensor.shape.empty() ? 1 : tensor.shape.back());
  return encode_ggml(tensor.type, values.subspan(static_cast<std::size_t>(r) * columns, columns),
                     to.data());
}

/// Writes a file; store_row(i, r, to) stores row r of tensor i, and tells whether its numbers fit.
template <class F>
result<void> write_gguf_file(const std::string& path, std::span<const gguf_entry> metadata,
                             std::span<const gguf_named_tensor> tensors, F&& store_row) {
  const auto head = gguf_head(metadata, tensors, path);
  if (!head) return head.error();
  file_writer file(path);
  file.write(std::as_bytes(std::span(*head)));
  std::vector<std::byte> row;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const gguf_named_tensor& tensor = tensors[i];
    const index columns = tensor.shape.empty() ? 1 : tensor.shape.back();
    index rows = 1;
    for (std::size_t n = 0; n + 1 < tensor.shape.size(); ++n) rows *= tensor.shape[n];
    row.resize(static_cast<std::size_t>(bytes_per_block(tensor.type) *
                                        (columns / values_per_block(tensor.type))));
    for (index r = 0; r < rows; ++r) {
      if (!store_row(i, r, std::span(row)))
        return error{errc::invalid, path, printable(tensor.name),
                     "finite numbers that fit the scales of " + std::string(name_of(tensor.type)),
                     "others"};
      file.write(row);
    }
    const std::byte zeros[gguf_default_alignment] = {};
    const std::size_t rest = static_cast<std::size_t>(rows) * row.size() % gguf_default_alignment;
    if (rest > 0) file.write(std::span(zeros).first(gguf_default_alignment - rest));
  }
  return file.commit();
}

/// Stores row `n` of codes, scales and minima as blocks; whether the scales are finite.
inline bool store_blocks(const leaf& from, index n, std::byte* to) {
  const ggml_type type = block_type(from);
  const std::byte* const codes = from.data + n * from.columns;
  bool fits = true;
  for (index b = 0; b < from.row_scales; ++b, to += bytes_per_block(type)) {
    const index at = n * from.row_scales + b;
    const auto code = [&](index i) {
      if (type == ggml_type::q8_0) return byte_at(codes, 32 * b + i);
      return byte_at(codes, 16 * b + i / 2) >> i % 2 * 4 & 15;
    };
    fits = store_block(type, from.scales[at], from.zeros ? from.zeros[at] : 0, code, to) && fits;
  }
  return fits;
}

/// Writes the parts of a model; those that share a tensor of the file are joined.
inline result<void> write_gguf_parts(const std::string& path, const std::vector<file_part>& parts,
                                     ggml_type type, const std::vector<gguf_entry>& metadata) {
  std::vector<gguf_named_tensor> tensors;
  std::vector<std::vector<const file_part*>> joined;
  index largest = 0;
  for (const file_part& part : parts) {
    const placement& at = part.at;
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const auto& one) { return one.name == at.name; });
    if (found != tensors.end()) {
      const leaf& first = joined[static_cast<std::size_t>(found - tensors.begin())][0]->tensor;
      if (part.tensor.ggml ? !first.ggml || found->type != block_type(part.tensor) : first.ggml)
        return error{errc::unsupported, path, at.name,
                     "one storage type for all matrices that the file joins here", "several"};
      joined[static_cast<std::size_t>(found - tensors.begin())].push_back(&part);
      continue;
    }
    const std::string_view name = stem(part.tensor.name);
    const bool coarse = !at.vector && name != "position" && name != "type" &&
                        !name.ends_with("relative_bias") &&
                        at.columns % values_per_block(type) == 0;
    tensors.push_back({at.name,
                       part.tensor.ggml ? block_type(part.tensor)
                       : coarse         ? type
                                        : ggml_type::f32,
                       {at.rows}});
    if (!at.vector) tensors.back().shape.push_back(at.columns);
    joined.push_back({&part});
    largest = (std::max)(largest, at.rows * at.columns);
  }
  if (!has_memory(array_bytes(largest, 1, sizeof(float)))) return out_of_memory(path);
  std::vector<float> values;
  std::vector<std::byte> blocks;
  bool fits = true;
  const auto gather = [&](std::size_t i, std::size_t row_bytes) {
    const placement& whole = joined[i][0]->at;
    if (joined[i][0]->tensor.ggml)
      blocks.resize(static_cast<std::size_t>(whole.rows) * row_bytes);
    else
      values.resize(static_cast<std::size_t>(whole.rows * whole.columns));
    fits = true;
    for (const file_part* const part : joined[i]) {
      const leaf& from = part->tensor;
      for (index n = 0; n < from.rows; ++n) {
        if (from.ggml) {
          const auto at = static_cast<std::size_t>(part->at.feature(n)) * row_bytes;
          fits = store_blocks(from, n, blocks.data() + at) && fits;
          continue;
        }
        for (index j = 0; j < from.columns; ++j) {
          double x = 0;
          const index at = n * from.columns + j, to = part->at.row(n).first + j;
          decode_reals(from.type, from.data + at * size_of(from.type), 1, 1, &x);
          values[static_cast<std::size_t>(to)] = static_cast<float>(x);
        }
      }
    }
  };
  return write_gguf_file(
      path, metadata, tensors, [&](std::size_t i, index r, std::span<std::byte> to) {
        if (r == 0) gather(i, to.size());
        if (joined[i][0]->tensor.ggml) {
          __builtin_memcpy(to.data(), blocks.data() + static_cast<std::size_t>(r) * to.size(),
                           to.size());
          return fits;
        }
        return encode_row(tensors[i], values, r, to);
      });
}

}  // namespace detail

/// Writes a GGUF file of version 3 with these metadata and tensors, in their order. Types of
/// tensors are F32, F16, BF16, Q8_0, Q4_0 and Q4_1, rounded as llama.cpp's reference code does.
/// Nothing is written that parse_gguf() refuses. Errors: errc::invalid (also a shape that does not
/// fit its values), errc::out_of_memory, errc::io.
inline result<void> write_gguf(const std::string& path, std::span<const gguf_entry> metadata,
                               std::span<const gguf_named_tensor> tensors) LINNET_TRY {
  for (const gguf_named_tensor& tensor : tensors) {
    const auto wrong = [&](std::string expected, std::string got) {
      return error{errc::invalid, path, detail::printable(tensor.name), std::move(expected),
                   std::move(got)};
    };
    if (!encodes_ggml(tensor.type))
      return wrong("F32, F16, BF16, Q8_0, Q4_0 or Q4_1", std::string(name_of(tensor.type)));
    index size = 1;
    bool fits = true;
    for (const index n : tensor.shape)
      fits = fits && n >= 1 && !__builtin_mul_overflow(size, n, &size);
    if (!fits || size != std::ssize(tensor.values))
      return wrong("as many values as the shape says", std::to_string(tensor.values.size()));
  }
  return detail::write_gguf_file(path, metadata, tensors,
                                 [&](std::size_t i, index r, std::span<std::byte> to) {
                                   return detail::encode_row(tensors[i], tensors[i].values, r, to);
                                 });
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Metadata of a tokenizer of BERT's kind, or of byte-level pairs, for save_gguf(). They are its
/// vocabulary and, by their names, the tokens that llama.cpp puts around a text. `name` is the
/// tokenizer's in errors. Errors: those of make_ggml_vocabulary().
inline result<std::vector<gguf_entry>> gguf_tokenizer_entries(
    const tokenizer& from, const std::string& name = "tokenizer") LINNET_TRY {
  const auto vocabulary = make_ggml_vocabulary(from, name);
  if (!vocabulary) return vocabulary.error();
  const auto texts = [](const detail::text_list& list) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < list.size(); ++i) all.emplace_back(list[i]);
    return all;
  };
  std::vector<gguf_entry> made{{"tokenizer.ggml.model", vocabulary->model},
                               {"tokenizer.ggml.tokens", texts(vocabulary->tokens)},
                               {"tokenizer.ggml.token_type", vocabulary->types}};
  const bool pairs = !vocabulary->pre.empty(), marks = vocabulary->pre == "roberta-bpe";
  if (pairs) {
    made.emplace_back("tokenizer.ggml.pre", vocabulary->pre);
    made.emplace_back("tokenizer.ggml.merges", texts(vocabulary->merges));
  }
  if (marks)
    for (const char* const key : {"bos", "eos", "sep"})
      made.emplace_back("tokenizer.ggml.add_" + std::string(key) + "_token", true);
  // The keys are llama.cpp's, with its spelling.
  const auto put = [&](const char* key, token id) {
    if (id >= 0)
      made.emplace_back("tokenizer.ggml." + std::string(key) + "_token_id",
                        static_cast<std::uint32_t>(id));
  };
  const auto one_of = [&](const char* bert, const char* roberta, const char* gpt2 = "") {
    return from.find_added(!pairs ? bert : marks ? roberta : gpt2);
  };
  put("bos", one_of("[CLS]", "<s>", "<|endoftext|>"));
  put("cls", one_of("[CLS]", "<s>"));
  put("eos", one_of("[SEP]", "</s>", "<|endoftext|>"));
  put("seperator", one_of("[SEP]", "</s>"));
  put("padding", one_of("[PAD]", "<pad>"));
  put("mask", one_of("[MASK]", "<mask>"));
  put("unknown", vocabulary->unknown);
  return made;
}
LINNET_OR_OUT_OF_MEMORY(name)

/// Saves weights as a GGUF file that load_gguf() and llama.cpp read, for the models that
/// load_gguf() takes. Matrices stored as storage::q8_0, q4_0 or q4_1 are written as they are. Other
/// matrices whose rows hold whole blocks are of type `type`, all else is F32.
/// `notes` are metadata of your own, such as a tokenizer's; without a tokenizer.ggml.model it is
/// "no_vocab". Without a bert.pooling_type llama.cpp takes the mean of an encoder's states, or the
/// classes of a sequence where the type has them. Errors: those of write_gguf().
template <class M, class T>
result<void> save_gguf(const weights<M, T>& w, const std::string& path,
                       ggml_type type = ggml_type::f32,
                       std::vector<gguf_entry> notes = {}) LINNET_TRY {
  if constexpr (!detail::fits_gguf<M, storage_of<M, T>>()) {
    return {};
  } else {
    if (!w.valid()) return w.error();
    if (!encodes_ggml(type))
      return error{errc::invalid, path, "type", "F32, F16, BF16, Q8_0, Q4_0 or Q4_1",
                   std::string(name_of(type))};
    std::vector<gguf_entry> metadata;
    metadata.emplace_back("general.architecture", gguf_architecture_of<M>());
    const std::vector<detail::file_part> parts = detail::gguf_parts(w);
    if (type != ggml_type::f32 ||
        std::ranges::any_of(parts, [](const auto& one) { return one.tensor.ggml; }))
      metadata.emplace_back("general.quantization_version", std::uint32_t{2});
    // T5 reads texts of any length. llama.cpp wants a number, which is Hugging Face's.
    if constexpr (gguf_architecture_of<M>() == "t5")
      if (std::ranges::none_of(notes, [](auto& n) { return n.key == "t5.context_length"; }))
        metadata.emplace_back("t5.context_length", std::uint32_t{512});
    for (const detail::gguf_fact& fact : detail::gguf_facts<M>())
      if (fact.written && fact.kind == gguf_kind::f32)
        metadata.emplace_back(fact.key, static_cast<float>(fact.number));
      else if (fact.written && fact.kind == gguf_kind::boolean)
        metadata.emplace_back(fact.key, fact.number != 0);
      else if (fact.written)
        metadata.emplace_back(fact.key, static_cast<std::uint32_t>(fact.number));
    const auto unless_noted = [&](const char* key, const auto& value) {
      if (std::ranges::none_of(notes, [&](const auto& n) { return n.key == key; }))
        metadata.emplace_back(key, value);
    };
    if constexpr (detail::is_encoder<M>) {
      constexpr std::uint32_t mean = 1, rank = 4;  // llama.cpp's poolings
      unless_noted("bert.pooling_type", M::head::classes > 0 ? rank : mean);
      std::vector<std::string> labels;
      for (index c = 0; c < M::head::classes; ++c) labels.push_back("LABEL_" + std::to_string(c));
      if (!labels.empty()) unless_noted("bert.classifier.output_labels", labels);
    }
    unless_noted("tokenizer.ggml.model", "no_vocab");
    for (gguf_entry& note : notes) metadata.push_back(std::move(note));
    return detail::write_gguf_parts(path, parts, type, metadata);
  }
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
