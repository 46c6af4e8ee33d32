// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hugging Face's names and layouts of the tensors of T5, Llama, Mixtral, GPT-2, Mamba, BERT and
/// its kin.

#include <linnet/formats/hf_kind.hpp>
#include <linnet/formats/tensor.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A pair of names without their last part ("weight" or "bias"); # stands for a block's number.
struct name_rule {
  std::string_view linnet, file;
};

inline constexpr name_rule t5_rules[] = {
    {"embedding", "shared"},
    {"head", "lm_head"},
    {"encoder.relative_bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"},
    {"encoder.blocks.#.attention.norm", "encoder.block.#.layer.0.layer_norm"},
    {"encoder.blocks.#.attention.q", "encoder.block.#.layer.0.SelfAttention.q"},
    {"encoder.blocks.#.attention.k", "encoder.block.#.layer.0.SelfAttention.k"},
    {"encoder.blocks.#.attention.v", "encoder.block.#.layer.0.SelfAttention.v"},
    {"encoder.blocks.#.attention.o", "encoder.block.#.layer.0.SelfAttention.o"},
    {"encoder.blocks.#.ffn.norm", "encoder.block.#.layer.1.layer_norm"},
    {"encoder.blocks.#.ffn.wi", "encoder.block.#.layer.1.DenseReluDense.wi"},
    {"encoder.blocks.#.ffn.wo", "encoder.block.#.layer.1.DenseReluDense.wo"},
    {"encoder.blocks.#.ffn.gate", "encoder.block.#.layer.1.DenseReluDense.wi_0"},
    {"encoder.blocks.#.ffn.up", "encoder.block.#.layer.1.DenseReluDense.wi_1"},
    {"encoder.blocks.#.ffn.down", "encoder.block.#.layer.1.DenseReluDense.wo"},
    {"encoder.norm", "encoder.final_layer_norm"},
    {"decoder.relative_bias", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias"},
    {"decoder.blocks.#.attention.norm", "decoder.block.#.layer.0.layer_norm"},
    {"decoder.blocks.#.attention.q", "decoder.block.#.layer.0.SelfAttention.q"},
    {"decoder.blocks.#.attention.k", "decoder.block.#.layer.0.SelfAttention.k"},
    {"decoder.blocks.#.attention.v", "decoder.block.#.layer.0.SelfAttention.v"},
    {"decoder.blocks.#.attention.o", "decoder.block.#.layer.0.SelfAttention.o"},
    {"decoder.blocks.#.cross.norm", "decoder.block.#.layer.1.layer_norm"},
    {"decoder.blocks.#.cross.q", "decoder.block.#.layer.1.EncDecAttention.q"},
    {"decoder.blocks.#.cross.k", "decoder.block.#.layer.1.EncDecAttention.k"},
    {"decoder.blocks.#.cross.v", "decoder.block.#.layer.1.EncDecAttention.v"},
    {"decoder.blocks.#.cross.o", "decoder.block.#.layer.1.EncDecAttention.o"},
    {"decoder.blocks.#.ffn.norm", "decoder.block.#.layer.2.layer_norm"},
    {"decoder.blocks.#.ffn.wi", "decoder.block.#.layer.2.DenseReluDense.wi"},
    {"decoder.blocks.#.ffn.wo", "decoder.block.#.layer.2.DenseReluDense.wo"},
    {"decoder.blocks.#.ffn.gate", "decoder.block.#.layer.2.DenseReluDense.wi_0"},
    {"decoder.blocks.#.ffn.up", "decoder.block.#.layer.2.DenseReluDense.wi_1"},
    {"decoder.blocks.#.ffn.down", "decoder.block.#.layer.2.DenseReluDense.wo"},
    {"decoder.norm", "decoder.final_layer_norm"},
};
inline constexpr name_rule llama_rules[] = {
    {"embedding", "model.embed_tokens"},
    {"blocks.#.attention.norm", "model.layers.#.input_layernorm"},
    {"blocks.#.attention.q", "model.layers.#.self_attn.q_proj"},
    {"blocks.#.attention.k", "model.layers.#.self_attn.k_proj"},
    {"blocks.#.attention.v", "model.layers.#.self_attn.v_proj"},
    {"blocks.#.attention.o", "model.layers.#.self_attn.o_proj"},
    {"blocks.#.ffn.norm", "model.layers.#.post_attention_layernorm"},
    {"blocks.#.ffn.gate", "model.layers.#.mlp.gate_proj"},
    {"blocks.#.ffn.up", "model.layers.#.mlp.up_proj"},
    {"blocks.#.ffn.down", "model.layers.#.mlp.down_proj"},
    {"blocks.#.ffn.router", "model.layers.#.block_sparse_moe.gate"},  // of Mixtral
    {"blocks.#.ffn.experts.#.gate", "model.layers.#.block_sparse_moe.experts.#.w1"},
    {"blocks.#.ffn.experts.#.up", "model.layers.#.block_sparse_moe.experts.#.w3"},
    {"blocks.#.ffn.experts.#.down", "model.layers.#.block_sparse_moe.experts.#.w2"},
    {"norm", "model.norm"},
    {"head", "lm_head"},
};
inline constexpr name_rule gpt2_rules[] = {
    {"embedding", "transformer.wte"},
    {"position", "transformer.wpe"},
    {"blocks.#.attention.norm", "transformer.h.#.ln_1"},
    {"blocks.#.attention.q", "transformer.h.#.attn.c_attn"},  // side by side in one tensor
    {"blocks.#.attention.k", "transformer.h.#.attn.c_attn"},
    {"blocks.#.attention.v", "transformer.h.#.attn.c_attn"},
    {"blocks.#.attention.o", "transformer.h.#.attn.c_proj"},
    {"blocks.#.ffn.norm", "transformer.h.#.ln_2"},
    {"blocks.#.ffn.wi", "transformer.h.#.mlp.c_fc"},
    {"blocks.#.ffn.wo", "transformer.h.#.mlp.c_proj"},
    {"norm", "transformer.ln_f"},
    {"head", "lm_head"},
};
inline constexpr name_rule mamba_rules[] = {
    {"embedding", "backbone.embeddings"},
    {"blocks.#.attention.norm", "backbone.layers.#.norm"},
    {"blocks.#.attention.in_proj", "backbone.layers.#.mixer.in_proj"},
    {"blocks.#.attention.conv", "backbone.layers.#.mixer.conv1d"},
    {"blocks.#.attention.x_proj", "backbone.layers.#.mixer.x_proj"},
    {"blocks.#.attention.dt_proj", "backbone.layers.#.mixer.dt_proj"},
    {"blocks.#.attention", "backbone.layers.#.mixer"},  // A_log and D
    {"blocks.#.attention.out_proj", "backbone.layers.#.mixer.out_proj"},
    {"norm", "backbone.norm_f"},
    {"head", "lm_head"},
};

inline constexpr name_rule bert_rules[] = {
    {"embedding", "bert.embeddings.word_embeddings"},
    {"position", "bert.embeddings.position_embeddings"},
    {"type", "bert.embeddings.token_type_embeddings"},
    {"embedding.norm", "bert.embeddings.LayerNorm"},
    {"blocks.#.attention.norm", "bert.encoder.layer.#.attention.output.LayerNorm"},
    {"blocks.#.attention.q", "bert.encoder.layer.#.attention.self.query"},
    {"blocks.#.attention.k", "bert.encoder.layer.#.attention.self.key"},
    {"blocks.#.attention.v", "bert.encoder.layer.#.attention.self.value"},
    {"blocks.#.attention.o", "bert.encoder.layer.#.attention.output.dense"},
    {"blocks.#.ffn.norm", "bert.encoder.layer.#.output.LayerNorm"},
    {"blocks.#.ffn.wi", "bert.encoder.layer.#.intermediate.dense"},
    {"blocks.#.ffn.wo", "bert.encoder.layer.#.output.dense"},
    {"pooler", "bert.pooler.dense"},
    {"head.dense", "cls.predictions.transform.dense"},
    {"head.norm", "cls.predictions.transform.LayerNorm"},
    {"head", "cls.predictions"},
    {"classifier", "classifier"},
};
inline constexpr name_rule distilbert_rules[] = {
    {"embedding", "distilbert.embeddings.word_embeddings"},
    {"position", "distilbert.embeddings.position_embeddings"},
    {"embedding.norm", "distilbert.embeddings.LayerNorm"},
    {"blocks.#.attention.norm", "distilbert.transformer.layer.#.sa_layer_norm"},
    {"blocks.#.attention.q", "distilbert.transformer.layer.#.attention.q_lin"},
    {"blocks.#.attention.k", "distilbert.transformer.layer.#.attention.k_lin"},
    {"blocks.#.attention.v", "distilbert.transformer.layer.#.attention.v_lin"},
    {"blocks.#.attention.o", "distilbert.transformer.layer.#.attention.out_lin"},
    {"blocks.#.ffn.norm", "distilbert.transformer.layer.#.output_layer_norm"},
    {"blocks.#.ffn.wi", "distilbert.transformer.layer.#.ffn.lin1"},
    {"blocks.#.ffn.wo", "distilbert.transformer.layer.#.ffn.lin2"},
    {"pooler", "pre_classifier"},
    {"head.dense", "vocab_transform"},
    {"head.norm", "vocab_layer_norm"},
    {"head", "vocab_projector"},
    {"classifier", "classifier"},
};
inline constexpr name_rule albert_rules[] = {
    {"embedding", "albert.embeddings.word_embeddings"},
    {"position", "albert.embeddings.position_embeddings"},
    {"type", "albert.embeddings.token_type_embeddings"},
    {"embedding.norm", "albert.embeddings.LayerNorm"},
    {"embedding.projection", "albert.encoder.embedding_hidden_mapping_in"},
    {"blocks.shared.attention.norm",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm"},
    {"blocks.shared.attention.q",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query"},
    {"blocks.shared.attention.k",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.key"},
    {"blocks.shared.attention.v",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.value"},
    {"blocks.shared.attention.o",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense"},
    {"blocks.shared.ffn.norm",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm"},
    {"blocks.shared.ffn.wi", "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn"},
    {"blocks.shared.ffn.wo", "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output"},
    {"pooler", "albert.pooler"},
    {"head.dense", "predictions.dense"},
    {"head.norm", "predictions.LayerNorm"},
    {"head", "predictions"},
    {"classifier", "classifier"},
};

inline constexpr name_rule roberta_rules[] = {
    {"embedding", "roberta.embeddings.word_embeddings"},
    {"position", "roberta.embeddings.position_embeddings"},
    {"type", "roberta.embeddings.token_type_embeddings"},
    {"embedding.norm", "roberta.embeddings.LayerNorm"},
    {"blocks.#.attention.norm", "roberta.encoder.layer.#.attention.output.LayerNorm"},
    {"blocks.#.attention.q", "roberta.encoder.layer.#.attention.self.query"},
    {"blocks.#.attention.k", "roberta.encoder.layer.#.attention.self.key"},
    {"blocks.#.attention.v", "roberta.encoder.layer.#.attention.self.value"},
    {"blocks.#.attention.o", "roberta.encoder.layer.#.attention.output.dense"},
    {"blocks.#.ffn.norm", "roberta.encoder.layer.#.output.LayerNorm"},
    {"blocks.#.ffn.wi", "roberta.encoder.layer.#.intermediate.dense"},
    {"blocks.#.ffn.wo", "roberta.encoder.layer.#.output.dense"},
    {"pooler", "roberta.pooler.dense"},
    {"head.dense", "lm_head.dense"},
    {"head.norm", "lm_head.layer_norm"},
    {"head", "lm_head"},
    {"classifier", "classifier"},
};

constexpr std::span<const name_rule> rules_of(hf_kind kind) {
  if (kind == hf_kind::t5) return t5_rules;
  if (kind == hf_kind::llama || kind == hf_kind::mixtral) return llama_rules;
  if (kind == hf_kind::gpt2) return gpt2_rules;
  if (kind == hf_kind::mamba) return mamba_rules;
  if (kind == hf_kind::bert) return bert_rules;
  if (kind == hf_kind::distilbert) return distilbert_rules;
  if (kind == hf_kind::albert) return albert_rules;
  if (kind == hf_kind::roberta) return roberta_rules;
  return {};
}

/// Whether `text` is `pattern` with digits in place of each #; `numbers` receive them.
inline bool fits(std::string_view text, std::string_view pattern, std::string_view* numbers) {
  const std::size_t mark = pattern.find('#');
  if (mark == pattern.npos) return text == pattern;
  if (text.substr(0, mark) != pattern.substr(0, mark)) return false;
  text.remove_prefix(mark);
  *numbers = text.substr(0, text.find_first_not_of("0123456789"));
  return fits(text.substr(numbers->size()), pattern.substr(mark + 1), numbers + 1);
}

/// The part of a name before its last dot.
inline std::string_view stem(std::string_view name) {
  return name.substr(0, (std::min)(name.size(), name.rfind('.')));
}

/// `name` with its stem translated, or "" if no rule fits.
inline std::string translate(std::span<const name_rule> rules, std::string_view name,
                             std::string_view name_rule::*from, std::string_view name_rule::*to,
                             bool gated = false) {
  const std::string_view head = stem(name);
  for (const name_rule& rule : rules) {
    std::string_view numbers[2];  // of a block, and of an expert
    if (!fits(head, rule.*from, numbers)) continue;
    // T5's "wo" is two of linnet's names: "down" where the feed-forward is gated.
    if (from == &name_rule::file && gated && rule.linnet.ends_with(".wo")) continue;
    std::string found(rule.*to);
    for (const std::string_view number : numbers)
      if (const std::size_t mark = found.find('#'); mark != found.npos)
        found.replace(mark, 1, number);
    return found.append(name.substr(head.size()));
  }
  return {};
}

}  // namespace detail

/// Hugging Face's name for one of linnet's, such as "encoder.blocks.0.ffn.wi.weight"; linnet's own
/// where there is none.
inline std::string hugging_face_name(hf_kind kind, std::string_view linnet_name) {
  const std::string found = detail::translate(detail::rules_of(kind), linnet_name,
                                              &detail::name_rule::linnet, &detail::name_rule::file);
  return found.empty() ? std::string(linnet_name) : found;
}

/// linnet's name for one of Hugging Face's, or "" if it is none of the kind. `gated` tells T5 1.1's
/// feed-forward from 1.0's; GPT-2's packed c_attn gives the name of the queries.
inline std::string linnet_name(hf_kind kind, std::string_view hugging_face_name,
                               bool gated = false) {
  return detail::translate(detail::rules_of(kind), hugging_face_name, &detail::name_rule::file,
                           &detail::name_rule::linnet, gated);
}

/// Whether `name` is a tensor that Hugging Face checkpoints may hold but models do not use. These
/// are old T5's unused cross-attention bias, GPT-2's causal masks and old Llama's rotary
/// frequencies. Of encoders they are the numbers of positions, and heads that the type has not.
inline bool hugging_face_ignores(hf_kind kind, std::string_view name) {
  if (kind == hf_kind::t5)
    return name == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
  std::string_view number;
  const auto is = [&](std::string_view prefix, std::string_view pattern) {
    return detail::fits(name.substr(name.starts_with(prefix) ? prefix.size() : 0), pattern,
                        &number);
  };
  if (detail::is_encoder_kind(kind)) {
    for (const std::string_view prefix : {"bert.", "distilbert.", "albert.", "roberta."})
      if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    for (const std::string_view head :
         {"pooler.", "cls.", "classifier.", "predictions.", "vocab_", "pre_classifier.",
          "sop_classifier.", "qa_outputs.", "lm_head."})
      if (name.starts_with(head)) return true;
    return name == "embeddings.position_ids";
  }
  if (kind == hf_kind::gpt2)
    return is("transformer.", "h.#.attn.bias") || is("transformer.", "h.#.attn.masked_bias");
  return kind == hf_kind::llama && (is("model.", "layers.#.self_attn.rotary_emb.inv_freq") ||
                                    name == "model.rotary_emb.inv_freq");
}

namespace detail {

/// A tensor of the model and its place in a file.
struct file_part {
  leaf tensor;
  placement at;
  std::vector<std::string> aliases{};  ///< other names under which the file may hold it
};

/// Numbers that decide how Hugging Face lays out a model's tensors.
struct hf_layout {
  hf_kind kind = hf_kind::none;
  bool tied = true;
  index rope_heads =
      0;  ///< head width, where the model pairs (2i, 2i+1) and Hugging Face (i, i + h/2)
  bool label_per_sequence = false;
};

template <class M>
constexpr hf_layout hf_layout_of() {
  hf_layout layout{hf_kind_of<M>(), M::tied, 0};
  if constexpr (is_encoder<M>) {
    layout.tied = M::masked;
    layout.label_per_sequence = M::label_per_sequence;
  }
  if constexpr (is_decoder<M>)
    if (M::position::pairing == rope_pairing::interleaved)
      layout.rope_heads = M::shape.head_width();
  return layout;
}

/// Other names of an encoder's tensors: gamma and beta of old files, and those of the tied head.
inline void encoder_aliases(const hf_layout& layout, file_part& part) {
  std::vector<std::string> names = part.aliases;
  names.push_back(part.at.name);
  for (const auto& [now, then] : {std::pair{"LayerNorm.weight", "LayerNorm.gamma"},
                                  std::pair{"LayerNorm.bias", "LayerNorm.beta"}})
    for (const std::string& name : names)
      if (name.ends_with(now))
        part.aliases.push_back(name.substr(0, name.size() - std::string_view(now).size()) + then);
  const std::string head = hugging_face_name(layout.kind, "head.");
  const bool projector = layout.kind == hf_kind::distilbert;
  const std::string last = projector ? head : head + "decoder.";
  if (part.tensor.name == "embedding.weight" && layout.tied)
    part.aliases.push_back(last + "weight");
  if (part.tensor.name == "head.bias" && !projector) part.aliases.push_back(last + "bias");
}

inline file_part hf_part(const hf_layout& layout, leaf tensor) {
  file_part part{
      tensor,
      {hugging_face_name(layout.kind, tensor.name), tensor.rows, tensor.columns, tensor.vector},
      {}};
  const std::string_view name = stem(tensor.name);
  const bool query = name.ends_with(".attention.q"), key = name.ends_with(".attention.k");
  const bool rotates = layout.kind == hf_kind::llama || layout.kind == hf_kind::mixtral;
  if (rotates && (query || key)) part.at.half_heads = layout.rope_heads;
  if (layout.kind == hf_kind::gpt2 && name.starts_with("blocks.") && part.at.name != tensor.name) {
    if (query || key || name.ends_with(".attention.v")) {
      part.at.offset = query ? 0 : key ? tensor.rows : 2 * tensor.rows;
      part.at.rows *= 3;
    }
    // Conv1D keeps its matrices as [in, out].
    part.at.transposed = !tensor.vector;
    if (part.at.transposed) std::swap(part.at.rows, part.at.columns);
  }
  // RoBERTa's head for sequences has a pooler of its own.
  if (layout.kind == hf_kind::roberta && layout.label_per_sequence)
    for (const auto& [ours, theirs] :
         {std::pair("pooler", "classifier.dense"), std::pair("classifier", "classifier.out_proj")})
      if (name == ours) part.at.name = theirs + tensor.name.substr(name.size());
  if (layout.kind == hf_kind::mamba) part.at.depthwise = !tensor.vector && name.ends_with(".conv");
  for (const std::string_view prefix :
       {"model.", "transformer.", "backbone.", "bert.", "distilbert.", "albert.", "roberta."})
    if (part.at.name.starts_with(prefix))
      part.aliases.push_back(part.at.name.substr(prefix.size()));
  if (is_encoder_kind(layout.kind)) encoder_aliases(layout, part);
  if (name == "embedding") {
    if (layout.kind == hf_kind::t5)
      part.aliases.insert(part.aliases.end(),
                          {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"});
    if (layout.tied && !is_encoder_kind(layout.kind)) part.aliases.push_back("lm_head.weight");
  }
  return part;
}

}  // namespace detail

LINNET_NAMESPACE_END
