// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// llama.cpp's names and layouts of the tensors of Llama, GPT-2, T5, BERT and RoBERTa, and the
/// metadata that describe them.

#include <linnet/formats/gguf.hpp>
#include <linnet/formats/hf_names.hpp>

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
