// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/gguf.hpp: do not edit.
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
/// Opt-in: GGUF files, llama.cpp's format of models. Needs nothing but linnet.

/// @file
/// Packed weights from GGUF files, tensor by tensor.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

/// @file
/// Weights from GGUF files: Llama, GPT-2, T5 and BERT in llama.cpp's names and layouts.

/// @file
/// llama.cpp's names and layouts of the tensors of Llama, GPT-2, T5, BERT and RoBERTa, and the
/// metadata that describe them.

/// @file
/// The contents of a GGUF file: typed metadata, and tensors. Opt-in, through linnet/gguf.hpp.

#include <charconv>
#include <optional>
#include <utility>

#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
struct gguf_parser;
}  // namespace detail

/// Types of metadata in GGUF files, with the format's numbers for them.
enum class gguf_kind : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

namespace detail {
struct gguf_kind_metadata {
  std::string_view name;
  std::size_t size;  ///< bytes of a value, at least
};
inline constexpr gguf_kind_metadata gguf_kinds[] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},    {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 8}, {"array", 12}, {"u64", 8}, {"i64", 8}, {"f64", 8}};
inline constexpr std::uint32_t gguf_kind_count = std::size(gguf_kinds);
constexpr const gguf_kind_metadata& metadata_of(gguf_kind kind) {
  return gguf_kinds[static_cast<std::size_t>(kind)];
}
/// A float as its shortest decimal text.
inline std::string float_as_text(float x) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}
/// The text behind its length at `at`, which the parser has found to be whole.
inline std::string_view gguf_text(const std::byte* at) {
  return {reinterpret_cast<const char*>(at) + 8,
          static_cast<std::size_t>(load_as<std::uint64_t>(at))};
}
}  // namespace detail

/// The name of a type of metadata, such as "u32".
constexpr std::string_view name_of(gguf_kind kind) { return detail::metadata_of(kind).name; }

/// The texts of an array in a GGUF file, read where they stand: a range without copies.
class gguf_strings {
 public:
  /// Goes from text to text.
  class iterator {
   public:
    using value_type = std::string_view;
    using difference_type = index;
    iterator() = default;
    explicit iterator(const std::byte* at) : at_(at) {}
    std::string_view operator*() const { return detail::gguf_text(at_); }
    iterator& operator++() {
      at_ += 8 + detail::gguf_text(at_).size();
      return *this;
    }
    iterator operator++(int) { return std::exchange(*this, ++iterator(*this)); }
    bool operator==(const iterator&) const = default;

   private:
    const std::byte* at_ = nullptr;
  };
  gguf_strings() = default;
  gguf_strings(std::span<const std::byte> data, index size) : data_(data), size_(size) {}

  iterator begin() const { return iterator(data_.data()); }
  iterator end() const { return iterator(data_.data() + data_.size()); }
  /// Number of texts.
  index size() const { return size_; }

 private:
  std::span<const std::byte> data_;
  index size_ = 0;
};

/// One value of a GGUF file's metadata, or an array of values of one type. It views the file.
struct gguf_value {
  std::string_view key;
  gguf_kind kind = gguf_kind::u8;  ///< of the value, or of an array's elements
  bool array = false;
  index count = 1;                    ///< of an array
  std::span<const std::byte> data{};  ///< little-endian, not aligned; texts behind their lengths

  /// Whether there is a number `i`.
  bool has(index i) const { return i >= 0 && i < count; }
  /// Number `i` as a whole number, if it is one of 64 bits with a sign.
  std::optional<std::int64_t> whole(index i = 0) const {
    if (!has(i)) return {};
    const std::byte* const at =
        data.data() + i * static_cast<index>(detail::metadata_of(kind).size);
    switch (kind) {
      case gguf_kind::u8:
        return detail::load_as<std::uint8_t>(at);
      case gguf_kind::i8:
        return detail::load_as<std::int8_t>(at);
      case gguf_kind::u16:
        return detail::load_as<std::uint16_t>(at);
      case gguf_kind::i16:
        return detail::load_as<std::int16_t>(at);
      case gguf_kind::u32:
        return detail::load_as<std::uint32_t>(at);
      case gguf_kind::i32:
        return detail::load_as<std::int32_t>(at);
      case gguf_kind::i64:
        return detail::load_as<std::int64_t>(at);
      case gguf_kind::u64:
        if (const auto x = detail::load_as<std::uint64_t>(at); x <= std::uint64_t{INT64_MAX})
          return static_cast<std::int64_t>(x);
        return {};
      default:
        return {};
    }
  }
  /// Number `i` as a real number, if it is f32 or f64.
  std::optional<double> real(index i = 0) const {
    if (!has(i)) return {};
    if (kind == gguf_kind::f32)
      return static_cast<double>(detail::load_as<float>(data.data() + i * 4));
    if (kind == gguf_kind::f64) return detail::load_as<double>(data.data() + i * 8);
    return {};
  }
  /// Truth value `i`, if it is one.
  std::optional<bool> truth(index i = 0) const {
    if (has(i) && kind == gguf_kind::boolean)
      return data[static_cast<std::size_t>(i)] != std::byte{0};
    return {};
  }
  /// The text, if it is one.
  std::optional<std::string_view> text() const {
    if (kind == gguf_kind::string && !array) return detail::gguf_text(data.data());
    return {};
  }
  /// Type and value for messages, such as "u32 30" or "an array of 3 f32".
  std::string description() const {
    const std::string name(name_of(kind));
    if (array) return "an array of " + std::to_string(count) + " " + name;
    if (const auto x = text()) return name + " " + detail::printable(*x);
    if (const auto x = truth()) return name + (*x ? " true" : " false");
    if (kind == gguf_kind::f32)
      return name + " " + detail::float_as_text(detail::load_as<float>(data.data()));
    if (const auto x = real()) return name + " " + detail::number_text(*x);
    if (const auto x = whole()) return name + " " + std::to_string(*x);
    return name + " " + std::to_string(detail::load_as<std::uint64_t>(data.data()));
  }
};

/// One tensor of a GGUF file: its name, type and shape, and its blocks in the file's bytes.
struct gguf_tensor {
  static constexpr index most_dimensions = 4;

  std::string_view name;
  ggml_type type = ggml_type::f32;
  std::array<index, most_dimensions> sizes{};  ///< the slowest first, as in PyTorch
  index dimensions = 0;
  std::uint64_t offset = 0;           ///< of the data in the file, bytes
  std::span<const std::byte> data{};  ///< row-major, in whole blocks, not aligned

  /// Extents of the tensor: the reverse of the file's.
  std::span<const index> shape() const {
    return {sizes.data(), static_cast<std::size_t>(dimensions)};
  }
  /// Number of values.
  index size() const {
    index product = 1;
    for (const index n : shape()) product *= n;
    return product;
  }
  /// Bytes of its data.
  index bytes() const { return size() / values_per_block(type) * bytes_per_block(type); }
  /// Type and shape for messages, such as "Q4_1 [576, 1536]".
  std::string description() const {
    std::string text = std::string(name_of(type)) + " [";
    for (const index n : shape()) text += (text.back() == '[' ? "" : ", ") + std::to_string(n);
    return text + "]";
  }
};

/// A parsed GGUF file. It views the bytes it was parsed from, or owns the mapping if it was read
/// from a path. Movable.
class gguf {
 public:
  /// Most metadata, and most tensors, in a file that is read.
  static constexpr std::uint64_t most_entries = 65536;

  /// The format's version: 2 or 3.
  std::uint32_t version() const { return version_; }
  /// The metadata, sorted by key.
  std::span<const gguf_value> metadata() const { return metadata_; }
  /// The tensors, sorted by name.
  std::span<const gguf_tensor> tensors() const { return tensors_; }
  /// The metadata of that key, or null.
  const gguf_value* value(std::string_view key) const {
    return find_in(metadata_, &gguf_value::key, key);
  }
  /// The tensor of that name, or null.
  const gguf_tensor* find(std::string_view name) const {
    return find_in(tensors_, &gguf_tensor::name, name);
  }
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

  /// The value of `key` as `T`: bool, a type of integers that holds it, float or double, or
  /// std::string_view. Errors: errc::missing, errc::mismatch.
  template <class T>
  result<T> get(std::string_view key) const LINNET_TRY {
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    if (!at->array)
      if (const auto x = element<T>(*at, 0)) return *x;
    return error{errc::mismatch, where_, detail::printable(key), std::string(wanted<T>()),
                 at->description()};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// The array at `key` as numbers of type `T`, as in get(). Errors: errc::missing, errc::mismatch.
  template <class T>
  result<std::vector<T>> array(std::string_view key) const LINNET_TRY {
    static_assert(!std::is_same_v<T, std::string_view>, "linnet: strings() reads arrays of texts");
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    const error other{errc::mismatch, where_, detail::printable(key),
                      "an array, each element " + std::string(wanted<T>()), at->description()};
    if (!at->array) return other;
    if (!detail::has_memory(detail::array_bytes(at->count, 1, sizeof(T))))
      return detail::out_of_memory(where_);
    std::vector<T> all(static_cast<std::size_t>(at->count));
    for (index i = 0; i < at->count; ++i) {
      const auto x = element<T>(*at, i);
      if (!x) return other;
      all[static_cast<std::size_t>(i)] = *x;
    }
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// The texts of the array at `key`. Errors: errc::missing, errc::mismatch.
  result<gguf_strings> strings(std::string_view key) const LINNET_TRY {
    const gguf_value* const at = value(key);
    if (!at) return absent(key);
    if (at->array && at->kind == gguf_kind::string) return gguf_strings(at->data, at->count);
    return error{errc::mismatch, where_, detail::printable(key), "an array of string",
                 at->description()};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

  /// All values of a tensor as floats: the numbers that llama.cpp computes with. Errors:
  /// errc::missing.
  result<std::vector<float>> values(std::string_view name) const LINNET_TRY {
    const gguf_tensor* const from = find(name);
    if (!from)
      return error{errc::missing, where_, detail::printable(name), "a tensor of this name", "none"};
    if (!detail::has_memory(detail::array_bytes(from->size(), 1, sizeof(float))))
      return detail::out_of_memory(where_);
    std::vector<float> all(static_cast<std::size_t>(from->size()));
    decode_ggml(from->type, from->data.data(), all);
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  friend struct detail::gguf_parser;
  friend result<gguf> parse_gguf(lasting_span<const std::byte>, const std::string&);
  friend result<gguf> read_gguf(const std::string&);
  std::optional<mapped_file> owned_;
  std::string where_;
  std::uint32_t version_ = 0;
  std::vector<gguf_value> metadata_;
  std::vector<gguf_tensor> tensors_;

  template <class Entry>
  static const Entry* find_in(const std::vector<Entry>& all, std::string_view Entry::*name,
                              std::string_view wanted) {
    const auto at =
        std::lower_bound(all.begin(), all.end(), wanted,
                         [&](const Entry& a, std::string_view b) { return a.*name < b; });
    return at != all.end() && (*at).*name == wanted ? &*at : nullptr;
  }
  error absent(std::string_view key) const {
    return {errc::missing, where_, detail::printable(key), "metadata of this key", "none"};
  }
  template <class T>
  static constexpr std::string_view wanted() {
    if constexpr (std::is_same_v<T, bool>) return "a bool";
    if constexpr (std::is_same_v<T, std::string_view>) return "a string";
    if constexpr (std::is_floating_point_v<T>) return "f32 or f64";
    return sizeof(T) == 8   ? "a whole number of 64 bits"
           : sizeof(T) == 4 ? "a whole number of 32 bits"
           : sizeof(T) == 2 ? "a whole number of 16 bits"
                            : "a whole number of 8 bits";
  }
  template <class T>
  static std::optional<T> element(const gguf_value& from, index i) {
    if constexpr (std::is_same_v<T, bool>) {
      return from.truth(i);
    } else if constexpr (std::is_same_v<T, std::string_view>) {
      return from.text();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (const auto x = from.real(i)) return static_cast<T>(*x);
      return {};
    } else {
      if (const auto x = from.whole(i); x && std::in_range<T>(*x)) return static_cast<T>(*x);
      if (from.kind == gguf_kind::u64 && std::in_range<T>(UINT64_MAX))
        return static_cast<T>(detail::load_as<std::uint64_t>(from.data.data() + i * 8));
      return {};
    }
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// llama.cpp's name of model type `M`'s architecture: "llama", "gpt2", "t5" or "bert"; "" where it
/// has none that computes the same.
template <class M>
constexpr std::string_view gguf_architecture_of() {
  constexpr hf_kind kind = hf_kind_of<M>();
  // The feed-forward is the architecture's: no metadata describe it.
  if constexpr (kind == hf_kind::llama) {
    return std::is_same_v<typename M::ffn, ffn::swiglu> ? "llama" : "";
  } else if constexpr (kind == hf_kind::gpt2) {
    return std::is_same_v<typename M::ffn, ffn::gelu_tanh> ? "gpt2" : "";
  } else if constexpr (kind == hf_kind::t5) {
    using F = typename M::encoder_ffn;
    return std::is_same_v<F, ffn::relu> || std::is_same_v<F, ffn::gated_gelu> ? "t5" : "";
  } else if constexpr (kind == hf_kind::bert || kind == hf_kind::roberta) {
    // llama.cpp has BERT's pooler and the classes of sequences, but no other head.
    return std::is_same_v<typename M::ffn, ffn::gelu> && (!M::head::trains || M::label_per_sequence)
               ? "bert"
               : "";
  } else {
    return "";
  }
}

namespace detail {

/// How the matrices of model type `M`, stored as `Storage` says, go with GGUF files.
struct gguf_storage {
  bool known = true;   ///< floats, or codes that the files have
  bool filled = true;  ///< blocks of codes fill all rows
};
template <class M, class Storage>
consteval gguf_storage gguf_storage_of() {
  gguf_storage found;
  typename M::template params<form::canonical<float, Storage>> tree{};
  const auto look = [&](const parameter_path&, const tensor_info& info, const auto& leaf) {
    if constexpr (requires { leaf.scales; }) {
      using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
      found.known = found.known && (S::ggml || !S::scaled) && !is_corrected<S> && !is_sparse<S>;
      if constexpr (S::ggml) found.filled = found.filled && info.columns % S::group == 0;
    }
  };
  each_leaf(look, tree_of<M, form::canonical<float, Storage>>{tree});
  return found;
}

/// Words for weights that GGUF files are not read into; true for others.
template <class M, class Storage>
constexpr bool fits_gguf() {
  if constexpr (gguf_architecture_of<M>().empty())
    static_assert(
        never<M>,
        "linnet: GGUF files are read into models that llama.cpp has: Llama (norm::rms, "
        "rotary positions, ffn::swiglu), GPT-2 (norm::layer_norm, position::learned, "
        "bias::all, ffn::gelu_tanh), T5 (norm::rms, ffn::relu or ffn::gated_gelu) and BERT (an "
        "encoder's defaults, with head::none, pooler or sequence_classification), all with "
        "attention::full");
  else if constexpr (!gguf_storage_of<M, Storage>().known)
    static_assert(never<M>,
                  "linnet: GGUF files are loaded as storage::q8_0, q4_0, q4_1 or floats; load "
                  "into the f32 model and quantize() it for others");
  else if constexpr (!gguf_storage_of<M, Storage>().filled)
    static_assert(never<M>,
                  "linnet: GGUF files have Q8_0, Q4_0 and Q4_1 in blocks of 32 inputs, which do "
                  "not fill the rows of every matrix here; load into the f32 model and "
                  "quantize() it");
  else
    return true;
  return false;
}

inline constexpr name_rule gguf_decoder_rules[] = {
    {"embedding", "token_embd"},
    {"position", "position_embd"},
    {"blocks.#.attention.norm", "blk.#.attn_norm"},
    {"blocks.#.attention.q", "blk.#.attn_q"},
    {"blocks.#.attention.k", "blk.#.attn_k"},
    {"blocks.#.attention.v", "blk.#.attn_v"},
    {"blocks.#.attention.o", "blk.#.attn_output"},
    {"blocks.#.ffn.norm", "blk.#.ffn_norm"},
    {"blocks.#.ffn.gate", "blk.#.ffn_gate"},
    {"blocks.#.ffn.up", "blk.#.ffn_up"},
    {"blocks.#.ffn.down", "blk.#.ffn_down"},
    {"blocks.#.ffn.wi", "blk.#.ffn_up"},
    {"blocks.#.ffn.wo", "blk.#.ffn_down"},
    {"norm", "output_norm"},
    {"head", "output"},
};
inline constexpr name_rule gguf_t5_rules[] = {
    {"embedding", "token_embd"},
    {"head", "output"},
    {"encoder.relative_bias", "enc.blk.0.attn_rel_b"},
    {"encoder.norm", "enc.output_norm"},
    {"decoder.relative_bias", "dec.blk.0.attn_rel_b"},
    {"decoder.norm", "dec.output_norm"},
};
/// Parts of T5's blocks, encoder and decoder alike.
inline constexpr name_rule gguf_t5_block_rules[] = {
    {"attention.norm", "attn_norm"}, {"attention.q", "attn_q"},   {"attention.k", "attn_k"},
    {"attention.v", "attn_v"},       {"attention.o", "attn_o"},   {"cross.norm", "cross_attn_norm"},
    {"cross.q", "cross_attn_q"},     {"cross.k", "cross_attn_k"}, {"cross.v", "cross_attn_v"},
    {"cross.o", "cross_attn_o"},     {"ffn.norm", "ffn_norm"},    {"ffn.wi", "ffn_up"},
    {"ffn.wo", "ffn_down"},          {"ffn.gate", "ffn_gate"},    {"ffn.up", "ffn_up"},
    {"ffn.down", "ffn_down"},
};

inline constexpr name_rule gguf_bert_rules[] = {
    {"embedding", "token_embd"},
    {"position", "position_embd"},
    {"type", "token_types"},
    {"embedding.norm", "token_embd_norm"},
    {"blocks.#.attention.norm", "blk.#.attn_output_norm"},
    {"blocks.#.attention.q", "blk.#.attn_q"},
    {"blocks.#.attention.k", "blk.#.attn_k"},
    {"blocks.#.attention.v", "blk.#.attn_v"},
    {"blocks.#.attention.o", "blk.#.attn_output"},
    {"blocks.#.ffn.norm", "blk.#.layer_output_norm"},
    {"blocks.#.ffn.wi", "blk.#.ffn_up"},
    {"blocks.#.ffn.wo", "blk.#.ffn_down"},
    {"pooler", "cls"},
    {"classifier", "cls.output"},
};

/// llama.cpp's name for one of linnet's, such as "blk.0.attn_q.weight".
inline std::string gguf_name(std::string_view architecture, std::string_view name) {
  const auto look = [&](std::span<const name_rule> rules, std::string_view part) {
    return translate(rules, part, &name_rule::linnet, &name_rule::file);
  };
  if (architecture == "bert") return look(gguf_bert_rules, name);
  if (architecture != "t5") return look(gguf_decoder_rules, name);
  for (const auto& [stack, file] :
       {name_rule{"encoder.blocks.", "enc.blk."}, name_rule{"decoder.blocks.", "dec.blk."}})
    if (name.starts_with(stack)) {
      const std::size_t number = stack.size(), part = name.find('.', number) + 1;
      return std::string(file)
          .append(name.substr(number, part - number))
          .append(look(gguf_t5_block_rules, name.substr(part)));
    }
  return look(gguf_t5_rules, name);
}

/// Whether `name` is a tensor that files may hold but models do not use. These are old T5's
/// cross-attention bias, and heads that an encoder's type has not.
inline bool gguf_ignores(std::string_view architecture, std::string_view name) {
  return (architecture == "t5" && name == "dec.blk.0.cross_attn_rel_b.weight") ||
         (architecture == "bert" && name.starts_with("cls."));
}

/// The type of block that a tensor in ggml's blocks is made of.
inline ggml_type block_type(const leaf& tensor) {
  return tensor.type == dtype::i8 ? ggml_type::q8_0
         : tensor.zeros           ? ggml_type::q4_1
                                  : ggml_type::q4_0;
}

/// Where a tensor of model type `M` stands in a GGUF file.
template <class M>
file_part gguf_part(leaf tensor) {
  constexpr std::string_view architecture = gguf_architecture_of<M>();
  const std::string_view name = stem(tensor.name);
  if constexpr (architecture == "bert")
    if (const index before = M::shape.position_offset; name == "position") {
      tensor.rows -= before;  // the file's first position is the first token's
      tensor.data += before * tensor.columns * size_of(tensor.type);
    }
  const index columns = tensor.ggml ? tensor.row_scales * storage::q8_0::group : tensor.columns;
  file_part part{
      tensor, {gguf_name(architecture, tensor.name), tensor.rows, columns, tensor.vector}, {}};
  const bool query = name.ends_with(".attention.q"), key = name.ends_with(".attention.k");
  if constexpr (architecture == "llama") {
    // The converter puts the rows of a rotary pair side by side.
    if (M::position::pairing == rope_pairing::half && (query || key))
      part.at.paired_heads = M::shape.head_width();
  }
  if (architecture == "gpt2" && (query || key || name.ends_with(".attention.v"))) {
    part.at.name = part.at.name.replace(part.at.name.find("attn_") + 5, 1, "qkv");
    part.at.offset = query ? 0 : key ? tensor.rows : 2 * tensor.rows;
    part.at.rows *= 3;
  }
  if (M::tied && name == "embedding") part.aliases.push_back("output.weight");
  return part;
}

/// A number that a model type fixes, and the metadatum that states it.
struct gguf_fact {
  std::string key;
  gguf_kind kind = gguf_kind::u32;  ///< u32, f32 or boolean
  double number = 0;
  std::optional<double> absent{};  ///< what llama.cpp takes where the file does not say it
  bool written = true;

  std::string as_text(double x) const {
    if (kind == gguf_kind::boolean) return x != 0 ? "true" : "false";
    return kind == gguf_kind::f32 ? float_as_text(static_cast<float>(x)) : number_text(x);
  }
  /// Whether a file's value is this number.
  bool is(const gguf_value& got) const {
    if (got.array) return false;
    if (kind == gguf_kind::boolean) {
      const auto truth = got.truth();
      return truth && *truth == (number != 0);
    }
    if (kind == gguf_kind::f32) {
      const auto real = got.real();
      return real && static_cast<float>(*real) == static_cast<float>(number);
    }
    const auto whole = got.whole();
    return whole && static_cast<double>(*whole) == number;
  }
};

/// The facts of model type `M`.
template <class M>
std::vector<gguf_fact> gguf_facts() {
  constexpr std::string_view architecture = gguf_architecture_of<M>();
  std::vector<gguf_fact> facts;
  const auto add = [&](const char* key, gguf_kind kind, double number, std::optional<double> absent,
                       bool written) {
    facts.push_back({std::string(architecture) + "." + key, kind, number, absent, written});
  };
  const auto whole = [&](const char* key, index number, std::optional<index> absent = {}) {
    std::optional<double> otherwise;
    if (absent) otherwise = static_cast<double>(*absent);
    add(key, gguf_kind::u32, static_cast<double>(number), otherwise, true);
  };
  const auto real = [&](const char* key, double number, std::optional<double> absent = {}) {
    add(key, gguf_kind::f32, number, absent, true);
  };
  // Settings that the model types do not have: files may only say that they are off.
  const auto off = [&](const char* key, gguf_kind kind, double number) {
    add(key, kind, number, number, false);
  };
  constexpr auto s = M::shape;
  if constexpr (architecture == "t5") {
    whole("block_count", s.encoder_layers);
    whole("decoder_block_count", s.decoder_layers, s.encoder_layers);
    whole("attention.relative_buckets_count", s.buckets);
    whole("decoder_start_token_id", M::start, M::start);
    whole("attention.key_length", s.d_kv, s.d_model / s.heads);
    whole("attention.value_length", s.d_kv, s.d_model / s.heads);
  } else {
    whole("block_count", s.layers);
    whole("context_length", s.context);
  }
  whole("embedding_length", s.d_model);
  whole("feed_forward_length", s.d_ff);
  whole("attention.head_count", s.heads);
  whole("vocab_size", s.vocabulary, s.vocabulary);
  if constexpr (architecture == "llama") {
    whole("attention.head_count_kv", s.kv_heads, s.heads);
    whole("attention.key_length", s.head_width(), s.d_model / s.heads);
    whole("attention.value_length", s.head_width(), s.d_model / s.heads);
    whole("rope.dimension_count", s.head_width(), s.head_width());
    real("rope.freq_base", s.rope_theta, 10000);
    off("rope.scaling.factor", gguf_kind::f32, 1);
    off("rope.scale_linear", gguf_kind::f32, 1);
    off("attention.sliding_window", gguf_kind::u32, 0);
    off("expert_count", gguf_kind::u32, 0);
  }
  if constexpr (architecture == "bert") {
    add("attention.causal", gguf_kind::boolean, 0, 1, true);
    facts.push_back(
        {"tokenizer.ggml.token_type_count", gguf_kind::u32, static_cast<double>(s.types)});
  }
  if constexpr (architecture == "gpt2" || architecture == "bert")
    real("attention.layer_norm_epsilon", s.eps);
  else
    real("attention.layer_norm_rms_epsilon", s.eps);
  return facts;
}

/// Compares a file's metadata with model type `M`. Errors: errc::mismatch, errc::missing,
/// errc::unsupported.
template <class M>
result<void> check_gguf_facts(const gguf& file) {
  constexpr std::string_view architecture = gguf_architecture_of<M>();
  const auto wrong = [&](errc code, std::string what, std::string expected, std::string got) {
    return error{code, file.where(), std::move(what), std::move(expected) + " (the model type)",
                 std::move(got)};
  };
  const gguf_value* const name = file.value("general.architecture");
  if (!name || name->text() != architecture)
    return wrong(name ? errc::mismatch : errc::missing, "general.architecture",
                 std::string(architecture), name ? name->description() : "no such metadata");
  if (const gguf_value* const parts = file.value("split.count"); parts && parts->whole() != 1)
    return error{errc::unsupported, file.where(), "split.count",
                 "1, a model in one file (llama-gguf-split --merge joins parts)",
                 parts->description()};
  const std::string scaling = std::string(architecture) + ".rope.scaling.type";
  if (const gguf_value* const type = file.value(scaling); type && type->text() != "none")
    return wrong(errc::mismatch, scaling, "none", type->description());
  if constexpr (architecture == "t5")
    if (M::shape.max_distance != 128)
      return error{errc::mismatch, file.where(), "max_distance of the model type",
                   "128, as always in GGUF files", std::to_string(M::shape.max_distance)};
  for (const gguf_fact& fact : gguf_facts<M>()) {
    const gguf_value* const got = file.value(fact.key);
    if (!got && fact.absent == fact.number) continue;
    if (!got)
      return wrong(fact.absent ? errc::mismatch : errc::missing, fact.key,
                   fact.as_text(fact.number),
                   fact.absent ? "no such metadata, which means " + fact.as_text(*fact.absent)
                               : "no such metadata");
    if (!fact.is(*got))
      return wrong(errc::mismatch, fact.key, fact.as_text(fact.number), got->description());
  }
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Reads GGUF files, versions 2 and 3, little-endian. Nothing in the file is trusted.
///
/// A header has magic, version, number of tensors and number of metadata. Then come the metadata,
/// the descriptions of the tensors, and their data, each at a multiple of general.alignment.

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

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Counts the bytes of the largest tensor.
struct finds_largest_leaf {
  index& bytes;

  template <class Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info& info, Leaf& leaf) const {
    arena counter;
    place(counter, info, leaf);
    bytes = (std::max)(bytes, counter.peak());
  }
};
/// Lets each tensor begin where the memory does.
struct places_leaves_alike {
  void* memory;
  index size;

  template <class Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info& info, Leaf& leaf) const {
    arena all(memory, size);
    place(all, info, leaf);
  }
};
/// Reads each tensor of a file into the memory of one, which it then packs.
struct packs_gguf_leaves {
  const std::vector<file_part>& parts;
  const std::vector<const gguf_tensor*>& found;
  std::vector<float>& row;
  std::size_t& next;

  template <class To, class From>
  void operator()(const parameter_path& at, const tensor_info& info, To& to,
                  const From& from) const {
    arena counter;
    From counted{};
    place(counter, info, counted);
    // Rows that the file lacks are zeros, not those of the tensor before.
    const std::size_t i = next++;
    __builtin_memset(first_byte(from), 0, static_cast<std::size_t>(counter.peak()));
    copy_in(parts[i].tensor, parts[i].at, *found[i], row);
    packs_leaves{ops::execution{}}(at, info, to, from);
  }

 private:
  template <class S>
  static void* first_byte(const matrix_ref<S>& leaf) {
    return leaf.data;
  }
  template <class T>
  static void* first_byte(T* const& leaf) {
    return leaf;
  }
};

}  // namespace detail

/// Packs the weights of a parsed GGUF file, as load_gguf() reads them, for sessions and evaluators.
/// The result is that of pack(). Beside it there is memory for the model's largest tensor, not for
/// all. Errors: those of load_gguf().
template <class M, class T = float>
result<packed<M, T>> pack_gguf(const gguf& file, nonfinite values = nonfinite::keep) LINNET_TRY {
  using S = storage_of<M, T>;
  if constexpr (!detail::fits_gguf<M, S>()) {
    return packed<M, T>{};
  } else {
    using canonical = form::canonical<T, S>;
    if (auto fits = detail::check_gguf_facts<M>(file); !fits) return fits.error();
    typename M::template params<canonical> tree{};
    index bytes = 0;
    const detail::finds_largest_leaf largest{bytes};
    detail::each_leaf(largest, detail::tree_of<M, canonical>{tree});
    const memory_block memory(bytes);
    if (!memory.data()) return detail::out_of_memory("pack_gguf", bytes);
    const detail::places_leaves_alike alike{memory.data(), memory.size()};
    detail::each_leaf(alike, detail::tree_of<M, canonical>{tree});
    std::vector<detail::leaf> tensors;
    const detail::lists_leaves<T> list{tensors};
    detail::each_leaf(list, detail::tree_of<M, canonical, true>{tree});
    const auto parts = detail::gguf_parts_of<M>(std::move(tensors));
    const auto found = detail::find_gguf_parts(file, parts, gguf_architecture_of<M>(), values);
    if (!found) return found.error();
    packed<M, T> made;
    if (!made.valid()) return made.error();
    std::vector<float> row;
    std::size_t next = 0;
    const detail::packs_gguf_leaves packs{parts, *found, row, next};
    detail::each_leaf(packs, detail::tree_in(made), detail::tree_of<M, canonical, true>{tree});
    return made;
  }
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Packs the weights of a GGUF file, which is mapped. Errors: as above, and those of read_gguf().
template <class M, class T = float>
result<packed<M, T>> pack_gguf(const std::string& path,
                               nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = read_gguf(path);
  return file ? pack_gguf<M, T>(*file, values) : result<packed<M, T>>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Tokenizers of GGUF files, and the tokens that end a text.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Reads an optional value of a file's metadata; one of another type is refused.
template <class T, class To>
result<void> read_optional(const gguf& file, std::string_view key, To& to) {
  if (!file.value(key)) return {};
  const auto x = file.get<T>(key);
  if (!x) return x.error();
  to = To(*x);
  return {};
}

/// Appends the texts of an array of a file, which may be absent.
inline result<void> read_optional_texts(const gguf& file, std::string_view key, text_list& to) {
  if (!file.value(key)) return {};
  const auto all = file.strings(key);
  if (!all) return all.error();
  for (const std::string_view text : *all) to.push_back(text);
  return {};
}

/// The id at a key of a file that has one, else -1. Ids outside the vocabulary are refused.
inline result<token> optional_token(const gguf& file, std::string_view key, index vocabulary) {
  if (!file.value(key)) return token{-1};
  const auto id = file.get<std::uint32_t>(key);
  if (!id) return id.error();
  if (static_cast<index>(*id) >= vocabulary)
    return error{errc::malformed, file.where(), std::string(key),
                 "an id below " + std::to_string(vocabulary), std::to_string(*id)};
  return static_cast<token>(*id);
}

}  // namespace detail

/// The vocabulary of a GGUF file, for make_tokenizer(). Errors: errc::missing, errc::mismatch and
/// errc::malformed, with the key.
inline result<ggml_vocabulary> gguf_vocabulary(const gguf& file) LINNET_TRY {
  ggml_vocabulary v;
  const auto model = file.get<std::string_view>("tokenizer.ggml.model");
  if (!model) return model.error();
  v.model = *model;
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  for (const std::string_view text : *tokens) v.tokens.push_back(text);
  if (file.value("tokenizer.ggml.scores")) {
    auto scores = file.array<float>("tokenizer.ggml.scores");
    if (!scores) return scores.error();
    v.scores = *std::move(scores);
  }
  if (file.value("tokenizer.ggml.token_type")) {
    auto types = file.array<std::int32_t>("tokenizer.ggml.token_type");
    if (!types) return types.error();
    v.types = *std::move(types);
  }
  if (auto done = detail::read_optional_texts(file, "tokenizer.ggml.merges", v.merges); !done)
    return done.error();
  const auto unknown =
      detail::optional_token(file, "tokenizer.ggml.unknown_token_id", tokens->size());
  if (!unknown) return unknown.error();
  v.unknown = *unknown;
  if (auto done = detail::read_optional<std::string_view>(file, "tokenizer.ggml.pre", v.pre); !done)
    return done.error();
  if (auto done =
          detail::read_optional<bool>(file, "tokenizer.ggml.add_space_prefix", v.add_space_prefix);
      !done)
    return done.error();
  if (auto done = detail::read_optional<bool>(file, "tokenizer.ggml.remove_extra_whitespaces",
                                              v.remove_extra_whitespaces);
      !done)
    return done.error();
  if (file.value("tokenizer.ggml.precompiled_charsmap")) {
    const auto map = file.array<std::uint8_t>("tokenizer.ggml.precompiled_charsmap");
    if (!map) return map.error();
    v.precompiled_charsmap.assign(map->begin(), map->end());
  }
  return v;
}
LINNET_OR_OUT_OF_MEMORY(file.where())

/// Makes the tokenizer of a GGUF file. Errors: those of gguf_vocabulary() and of make_tokenizer()
/// for a vocabulary.
inline result<tokenizer> make_tokenizer(const gguf& file) LINNET_TRY {
  auto vocabulary = gguf_vocabulary(file);
  if (!vocabulary) return vocabulary.error();
  return make_tokenizer(*std::move(vocabulary), file.where());
}
LINNET_OR_OUT_OF_MEMORY(file.where())

/// The tokens that end a text, as far as a GGUF file names them. They are the ends of a text, of a
/// turn and of a message. Errors, with the key: errc::missing (no tokens), errc::mismatch,
/// errc::malformed.
inline result<std::vector<token>> gguf_stop_tokens(const gguf& file) LINNET_TRY {
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  std::vector<token> stops;
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    const auto id = detail::optional_token(file, key, tokens->size());
    if (!id) return id.error();
    if (*id >= 0 && std::find(stops.begin(), stops.end(), *id) == stops.end()) stops.push_back(*id);
  }
  return stops;
}
LINNET_OR_OUT_OF_MEMORY(file.where())

LINNET_NAMESPACE_END
/// @file
/// Writes GGUF files, version 3: metadata and tensors of any kind, or the weights of a model.

/// @file
/// Numbers to ggml's blocks, as llama.cpp's reference code rounds them: F32, F16, BF16, Q8_0, Q4_0
/// and Q4_1.

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class T>
void store_as(T value, std::byte* to) {
  __builtin_memcpy(to, &value, sizeof value);
}
/// Stores a scale as a half; whether it is finite.
inline bool store_half(float x, std::byte* to) {
  const storage::f16::value half = storage::f16::encode(static_cast<double>(x));
  store_as(half, to);
  return storage::f16::finite(half);
}
/// Stores a block of Q8_0, Q4_0 or Q4_1, with code(i) as the storage type of that name has codes.
/// Returns whether the scales are finite.
template <class F>
bool store_block(ggml_type type, float scale, float minimum, F&& code, std::byte* to) {
  const bool has_minimum = type == ggml_type::q4_1;
  const bool fits = store_half(scale, to) && (!has_minimum || store_half(minimum, to + 2));
  std::byte* const codes = to + (has_minimum ? 4 : 2);
  const int flipped = type == ggml_type::q4_0 ? 0x88 : 0;
  if (type == ggml_type::q8_0)
    for (index i = 0; i < 32; ++i) codes[i] = static_cast<std::byte>(code(i));
  else
    for (index i = 0; i < 16; ++i)
      codes[i] = static_cast<std::byte>((code(i) | code(i + 16) << 4) ^ flipped);
  return fits;
}
/// Rounds finite numbers to a block of the type that keeps what storage `S` does.
template <class S>
bool encode_codes(ggml_type type, const float* from, std::byte* to) {
  typename S::value codes[S::group];
  float scale = 0, minimum = 0;
  S::round_block(S::group, from, codes, scale, minimum);
  return store_block(
      type, scale, minimum, [&](index i) { return static_cast<int>(codes[i]); }, to);
}

/// One block of finite numbers; whether its scales fit.
inline bool encode_block(ggml_type type, const float* from, std::byte* to) {
  switch (type) {
    case ggml_type::f32:
      store_as(*from, to);
      return true;
    case ggml_type::f16:
      store_as(storage::f16::encode(static_cast<double>(*from)), to);
      return true;
    case ggml_type::bf16:
      store_as(storage::bf16::encode(static_cast<double>(*from)), to);
      return true;
    case ggml_type::q8_0:
      return encode_codes<storage::q8_0>(type, from, to);
    case ggml_type::q4_0:
      return encode_codes<storage::q4_0>(type, from, to);
    case ggml_type::q4_1:
      return encode_codes<storage::q4_1>(type, from, to);
    default:
      return false;
  }
}

}  // namespace detail

/// Whether encode_ggml() makes blocks of a type.
constexpr bool encodes_ggml(ggml_type type) {
  return type == ggml_type::f32 || type == ggml_type::f16 || type == ggml_type::bf16 ||
         type == ggml_type::q8_0 || type == ggml_type::q4_0 || type == ggml_type::q4_1;
}
/// Writes values as blocks of a type that encodes_ggml(), rounded as llama.cpp's reference code
/// does. There are as many values as whole blocks hold. Gives false where a block has a number that
/// is not finite or too large for its scale.
inline bool encode_ggml(ggml_type type, std::span<const float> from, std::byte* to) {
  const detail::ggml_layout& layout = detail::ggml_layout_of(type);
  for (const float x : from)
    if (layout.block > 1 && !is_finite(x)) return false;
  bool fits = true;
  for (index i = 0; i + layout.block <= std::ssize(from); i += layout.block, to += layout.bytes)
    fits = detail::encode_block(type, from.data() + i, to) && fits;
  return fits;
}

LINNET_NAMESPACE_END

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
