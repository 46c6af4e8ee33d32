// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hugging Face's config.json compared with a model type field by field, and written.

#include <linnet/formats/hf_config_file.hpp>
#include <linnet/formats/hf_names.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A field that a config.json must have for a model type. Values are JSON texts.
struct hf_field {
  std::vector<std::string> keys;    ///< the field, then other places for the same fact
  std::vector<std::string> values;  ///< the value, then other spellings of it
  std::string absent{};             ///< what Hugging Face assumes without the field
  std::string as_float{};           ///< of a real number, which is compared as a float
  bool written = true;              ///< make_hf_config() writes it

  /// Accepts the value also under another key.
  hf_field& or_at(const std::string& key) {
    keys.push_back(key);
    return *this;
  }
  /// Makes the field optional: compared where it is present, and never written.
  void only_read() { written = false; }
};

/// Hugging Face's names of an activation.
inline std::vector<std::string> hf_activation(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return {"relu"};
    case activation_kind::gelu:
      return {"gelu", "gelu_python"};
    case activation_kind::gelu_tanh:
      return {"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"};
    case activation_kind::tanh:
      return {"tanh"};
    case activation_kind::relu_squared:
      return {"relu2"};
    default:
      return {"silu", "swish"};
  }
}

/// Builder of a list of fields.
struct hf_fields {
  std::vector<hf_field> all{};

  hf_field& text(const std::string& key, const std::vector<std::string>& values,
                 std::string_view absent) {
    all.push_back({{key}, {}, json_quoted(absent)});
    for (const std::string& value : values) all.back().values.push_back(json_quoted(value));
    return all.back();
  }
  hf_field& number(const std::string& key, index value, index absent) {
    return add(key, std::to_string(value), std::to_string(absent));
  }
  hf_field& real(const std::string& key, double value, double absent) {
    hf_field& field = add(key, number_text(value), number_text(absent));
    field.as_float = float_text(value);
    return field;
  }
  hf_field& truth(const std::string& key, bool value, bool absent) {
    return add(key, value ? "true" : "false", absent ? "true" : "false");
  }
  /// A field that must not be there, unless it is null.
  void none(const std::string& key) { add(key, "null", "null").only_read(); }

 private:
  hf_field& add(const std::string& key, std::string value, std::string absent) {
    all.push_back({{key}, {std::move(value)}, std::move(absent)});
    return all.back();
  }
};

template <class M>
void t5_fields(hf_fields& to, bool untied_by_scale, bool mt5) {
  constexpr t5_shape s = M::shape;
  // mT5 of Transformers 5 never scales the input of its head, as no tied type here does.
  to.text("model_type", {"t5"}, "t5");
  if (!M::tied) to.all.back().values.push_back(json_quoted("mt5"));
  to.number("vocab_size", s.vocabulary, mt5 ? 250112 : 32128);
  to.number("d_model", s.d_model, 512).or_at("hidden_size");
  to.number("d_kv", s.d_kv, 64).or_at("head_dim");
  to.number("d_ff", s.d_ff, mt5 ? 1024 : 2048);
  to.number("num_layers", s.encoder_layers, mt5 ? 8 : 6).or_at("num_hidden_layers");
  to.number("num_decoder_layers", s.decoder_layers, s.encoder_layers);
  to.number("num_heads", s.heads, mt5 ? 6 : 8).or_at("num_attention_heads");
  to.number("relative_attention_num_buckets", s.buckets, 32);
  to.number("relative_attention_max_distance", s.max_distance, 128);
  to.real("layer_norm_epsilon", s.eps, 1e-6);
  using ffn = ffn_metadata<typename M::encoder_ffn>;
  const auto names = hf_activation(ffn::activation);
  const std::string gated = ffn::gated ? "gated-" : "";
  std::vector<std::string> forms;
  // There, "gated-gelu" is the tanh form.
  if (ffn::gated && ffn::activation == activation_kind::gelu_tanh) forms = {"gated-gelu"};
  for (const std::string& name : names)
    if (gated + name != "gated-gelu") forms.push_back(gated + name);
  // Transformers takes these two from the field below, but follows them if they differ.
  to.text("dense_act_fn", names, names[0]);
  to.truth("is_gated_act", ffn::gated, ffn::gated);
  to.text("feed_forward_proj", forms, mt5 ? "gated-gelu" : "relu");
  // Newer files say of an untied head only that its input is not scaled.
  if (!untied_by_scale) to.truth("tie_word_embeddings", M::tied, !mt5);
  to.truth("scale_decoder_outputs", M::tied, M::tied).only_read();
  to.truth("tie_encoder_decoder", false, false).only_read();
  to.number("decoder_start_token_id", M::start, 0);
  to.number("pad_token_id", M::start, 0);
}

template <class M>
void llama_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  constexpr bool mixtral = hf_kind_of<M>() == hf_kind::mixtral;
  const std::string name = mixtral ? "mixtral" : "llama";
  to.text("model_type", {name}, name);
  to.number("vocab_size", s.vocabulary, 32000);
  to.number("hidden_size", s.d_model, 4096);
  to.number("intermediate_size", s.d_ff, mixtral ? 14336 : 11008);
  to.number("num_hidden_layers", s.layers, 32);
  to.number("num_attention_heads", s.heads, 32);
  to.number("num_key_value_heads", s.kv_heads, mixtral ? 8 : s.heads);
  to.number("head_dim", s.head_width(), s.d_model / s.heads);
  to.number("max_position_embeddings", s.context, mixtral ? 131072 : 2048);
  to.real("rms_norm_eps", s.eps, mixtral ? 1e-5 : 1e-6);
  to.real("rope_theta", s.rope_theta, mixtral ? 1e6 : 10000)
      .or_at("rope_parameters.rope_theta")
      .or_at("rope_scaling.rope_theta");
  to.real("partial_rotary_factor", 1, 1)
      .or_at("rope_parameters.partial_rotary_factor")
      .or_at("rope_scaling.partial_rotary_factor")
      .only_read();
  for (const std::string scaling : {"rope_parameters", "rope_scaling"}) {
    to.all.push_back({{scaling}, {"{...}"}, "{...}"});
    to.all.back().only_read();
    to.text(scaling + ".rope_type", {"default"}, "default").or_at(scaling + ".type").only_read();
    to.real(scaling + ".factor", 1, 1).only_read();
    for (const char* const layers : {".full_attention", ".sliding_attention"})
      to.none(scaling + layers);
  }
  if constexpr (mixtral) {
    using ffn = typename M::ffn;
    to.number("num_local_experts", ffn::all_experts, 8).or_at("num_experts");
    to.number("num_experts_per_tok", ffn::active_experts, 2);
    to.none("sliding_window");
    to.text("hidden_act", hf_activation(ffn_metadata<typename ffn::expert>::activation), "silu");
  } else {
    to.text("hidden_act", hf_activation(ffn_metadata<typename M::ffn>::activation), "silu");
    to.truth("attention_bias", M::biased, false);
    to.truth("mlp_bias", M::biased, false);
  }
  to.truth("tie_word_embeddings", M::tied, false);
}

template <class M>
void gpt2_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  to.text("model_type", {"gpt2"}, "gpt2");
  to.number("vocab_size", s.vocabulary, 50257);
  to.number("n_positions", s.context, 1024).or_at("max_position_embeddings");
  to.number("n_embd", s.d_model, 768).or_at("hidden_size");
  to.number("n_layer", s.layers, 12).or_at("num_hidden_layers");
  to.number("n_head", s.heads, 12).or_at("num_attention_heads");
  to.number("n_inner", s.d_ff, 4 * s.d_model);
  to.real("layer_norm_epsilon", s.eps, 1e-5);
  to.text("activation_function", hf_activation(ffn_metadata<typename M::ffn>::activation),
          "gelu_new");
  to.truth("scale_attn_weights", true, true);
  to.truth("scale_attn_by_inverse_layer_idx", false, false);
  to.truth("add_cross_attention", false, false);
  to.truth("tie_word_embeddings", M::tied, true);
}

template <class M>
void mamba_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  using mixer = typename M::attention;
  to.text("model_type", {"mamba"}, "mamba");
  to.number("vocab_size", s.vocabulary, 50280);
  to.number("hidden_size", s.d_model, 768);
  to.number("state_size", mixer::state, 16);
  to.number("num_hidden_layers", s.layers, 32);
  to.number("conv_kernel", mixer::conv, 4);
  to.number("expand", mixer::expand, 2);
  to.number("intermediate_size", mixer::expand * s.d_model, mixer::expand * s.d_model).only_read();
  constexpr index rank = mixer::template layer<M::self>::rank;
  to.number("time_step_rank", rank, rank).values.push_back(json_quoted("auto"));
  to.real("layer_norm_epsilon", s.eps, 1e-5);
  to.text("hidden_act", {"silu", "swish"}, "silu");
  to.truth("use_bias", M::biased, false);
  to.truth("use_conv_bias", true, true);
  to.truth("tie_word_embeddings", M::tied, true);
}

template <class M>
void encoder_fields(hf_fields& to, hf_kind kind) {
  constexpr encoder_shape s = M::shape;
  const auto activation = hf_activation(ffn_metadata<typename M::ffn>::activation);
  if (kind == hf_kind::distilbert) {
    to.text("model_type", {"distilbert"}, "distilbert");
    to.number("vocab_size", s.vocabulary, 30522);
    to.number("dim", s.d_model, 768).or_at("hidden_size");
    to.number("hidden_dim", s.d_ff, 3072);
    to.number("n_layers", s.layers, 6).or_at("num_hidden_layers");
    to.number("n_heads", s.heads, 12).or_at("num_attention_heads");
    to.number("max_position_embeddings", s.context, 512);
    to.text("activation", activation, "gelu");
  } else {
    const bool albert = kind == hf_kind::albert;
    const bool roberta = kind == hf_kind::roberta;
    const std::string name = albert ? "albert" : roberta ? "roberta" : "bert";
    to.text("model_type", {name}, name);
    if (roberta)
      for (const char* const kin : {"xlm-roberta", "camembert"})
        to.all.back().values.push_back(json_quoted(kin));
    to.number("vocab_size", s.vocabulary, albert ? 30000 : roberta ? 50265 : 30522);
    if (albert) {
      to.number("embedding_size", M::width, 128);
      to.number("num_hidden_groups", 1, 1);
      to.number("inner_group_num", 1, 1);
    }
    to.number("hidden_size", s.d_model, albert ? 4096 : 768);
    to.number("intermediate_size", s.d_ff, albert ? 16384 : 3072);
    to.number("num_hidden_layers", s.layers, 12);
    to.number("num_attention_heads", s.heads, albert ? 64 : 12);
    to.number("max_position_embeddings", s.context + s.position_offset, 512);
    // The first token stands behind the padding's position.
    if (roberta) to.number("pad_token_id", s.position_offset - 1, 1);
    to.number("type_vocab_size", s.types, 2);
    to.real("layer_norm_eps", s.eps, 1e-12);
    to.text("hidden_act", activation, albert ? "gelu_new" : "gelu");
    to.text("position_embedding_type", {"absolute"}, "absolute").only_read();
    to.truth("is_decoder", false, false).only_read();
    to.truth("add_cross_attention", false, false).only_read();
  }
  if (M::masked) to.truth("tie_word_embeddings", true, true).or_at("tie_weights_").only_read();
}

/// Fields of the config.json of model type `M`. `file`: the one at hand, if any.
template <class M>
hf_fields fields_of(const hf_config* file) {
  constexpr hf_kind kind = hf_kind_of<M>();
  hf_fields fields;
  if constexpr (kind == hf_kind::t5) {
    const auto says = [&](const char* key, std::string_view value) {
      const std::string* const got = file ? file->find(key) : nullptr;
      return got && *got == value;
    };
    t5_fields<M>(fields, !M::tied && says("scale_decoder_outputs", "false"),
                 says("model_type", "\"mt5\""));
  } else if constexpr (kind == hf_kind::llama || kind == hf_kind::mixtral) {
    llama_fields<M>(fields);
  } else if constexpr (kind == hf_kind::mamba) {
    mamba_fields<M>(fields);
  } else if constexpr (kind == hf_kind::gpt2) {
    gpt2_fields<M>(fields);
  } else if constexpr (is_encoder_kind(kind)) {
    encoder_fields<M>(fields, kind);
  }
  fields.none("quantization_config");
  return fields;
}

inline result<void> check_fields(const hf_config& config, const hf_fields& fields) {
  for (const hf_field& field : fields.all) {
    const std::string expected = field.values[0] + " (the model type)";
    bool present = false;
    for (const std::string& key : field.keys) {
      const std::string* const got = config.find(key);
      if (!got) continue;
      present = true;
      if (std::find(field.values.begin(), field.values.end(), *got) != field.values.end()) continue;
      if (!field.as_float.empty() && *config.find_float(key) == field.as_float) continue;
      return error{errc::mismatch, config.where(), key, expected, *got};
    }
    if (present ||
        std::find(field.values.begin(), field.values.end(), field.absent) != field.values.end())
      continue;
    return error{errc::mismatch, config.where(), field.keys[0], expected,
                 "no such field, which means " + field.absent};
  }
  return {};
}

}  // namespace detail

/// Compares a config.json with model type `M`. The first field that differs is the error
/// (errc::mismatch), with the file's value and the type's; an absent one has Hugging Face's
/// default. Fields that do not change what the weights compute, such as dropout rates, are not
/// compared.
template <class M>
result<void> check_config(const hf_config& config) LINNET_TRY {
  if constexpr (detail::fits_hugging_face<true, M, storage::f32>())
    return detail::check_fields(config, detail::fields_of<M>(&config));
  else
    return {};
}
LINNET_OR_OUT_OF_MEMORY(config.where())

/// The config.json of model type `M` that Transformers reads.
template <class M>
std::string make_hf_config() {
  static_assert(detail::fits_hugging_face<true, M, storage::f32>());
  constexpr hf_kind kind = hf_kind_of<M>();
  constexpr std::string_view classes[] = {"",
                                          "T5ForConditionalGeneration",
                                          "LlamaForCausalLM",
                                          "MixtralForCausalLM",
                                          "GPT2LMHeadModel",
                                          "MambaForCausalLM",
                                          "Bert",
                                          "DistilBert",
                                          "Albert",
                                          "Roberta"};
  std::string name(classes[static_cast<int>(kind)]);
  if constexpr (detail::is_encoder<M>)
    name += M::masked               ? "ForMaskedLM"
            : M::head::classes == 0 ? "Model"
            : M::label_per_sequence ? "ForSequenceClassification"
                                    : "ForTokenClassification";
  std::string text = "{\n  \"architectures\": [\n    " + detail::json_quoted(name) + "\n  ]";
  for (const detail::hf_field& field : detail::fields_of<M>(nullptr).all)
    if (field.written)
      text += ",\n  " + detail::json_quoted(field.keys[0]) + ": " + field.values[0];
  if constexpr (kind == hf_kind::t5)
    text += ",\n  \"eos_token_id\": 1,\n  \"is_encoder_decoder\": true";
  if constexpr (detail::is_encoder<M>)
    if (M::head::classes > 0) {  // the number of labels, by their names
      std::string names, ids;
      for (index c = 0; c < M::head::classes; ++c) {
        const std::string id = std::to_string(c), label = "\"LABEL_" + id + "\"",
                          comma = c > 0 ? ", " : "";
        names += comma + "\"" + id + "\": " + label;
        ids += comma + label + ": " + id;
      }
      text += ",\n  \"id2label\": {" + names + "},\n  \"label2id\": {" + ids + "}";
    }
  return text + "\n}\n";
}

LINNET_NAMESPACE_END
