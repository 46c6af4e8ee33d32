#pragma once
/// @file
/// Hugging Face's config.json: read, compared with a model type field by field, and written.

#include <linnet/io/file.hpp>
#include <linnet/io/hf_names.hpp>
#include <linnet/io/json.hpp>

LINNET_NAMESPACE_BEGIN

/// The fields of a config.json: those of the outermost object, and of its objects "rope_parameters"
/// and "rope_scaling" as "rope_parameters.rope_theta". Other nested values only count as present.
class hf_config {
 public:
  /// The value of a field as JSON text (numbers in their shortest form), or null where there is
  /// none or it is null.
  const std::string* find(std::string_view key) const {
    const auto at =
        std::lower_bound(fields_.begin(), fields_.end(), key,
                         [](const detail::fact& a, std::string_view b) { return a.key < b; });
    return at != fields_.end() && at->key == key && at->value != "null" ? &at->value : nullptr;
  }
  /// Name of the file in messages.
  const std::string& where() const { return where_; }

 private:
  friend result<hf_config> parse_hf_config(std::span<const std::byte>, const std::string&);
  std::string where_;
  std::vector<detail::fact> fields_;  ///< by key
};

namespace detail {

/// Longest config.json that is read, and how deep its values may nest.
inline constexpr std::size_t longest_config = 128 * 1024;
inline constexpr int deepest_config = 32;

/// Collects the events of a config.json.
struct config_reader {
  explicit config_reader(const std::string& file) : where(file) {}

  std::string where;
  std::vector<fact> fields{};
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == deepest_config)
      return fail("content", "at most " + std::to_string(deepest_config) + " levels", "more");
    if (depth == 1) {
      fields.push_back({name, array ? "[...]" : "{...}"});
      if (!array && (name == "rope_parameters" || name == "rope_scaling")) inner = name + ".";
    }
    ++depth;
    return true;
  }
  bool close() {
    if (--depth == 1) inner.clear();
    return true;
  }
  bool key(std::string_view text) {
    if (depth == 1) name = text;
    if (depth == 2 && !inner.empty()) name = inner + std::string(text);
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1 || (depth == 2 && !inner.empty())) fields.push_back({name, value.text()});
    return true;
  }

 private:
  int depth = 0;
  std::string name{}, inner{};

  bool fail(const char* what, std::string expected, std::string got) {
    failure = {errc::malformed, where, what, std::move(expected), std::move(got)};
    return false;
  }
};

}  // namespace detail

/// Parses a config.json held in memory: at most 128 KiB, 32 levels, no field twice. `where` names
/// it in errors. Errors: errc::malformed, errc::unsupported.
inline result<hf_config> parse_hf_config(std::span<const std::byte> text,
                                         const std::string& where = "config.json") LINNET_TRY {
  detail::config_reader reader(where);
  if (auto read = detail::read_json(text, detail::longest_config, where, "content", reader); !read)
    return read.error();
  std::sort(reader.fields.begin(), reader.fields.end(),
            [](const auto& a, const auto& b) { return a.key < b.key; });
  for (std::size_t i = 1; i < reader.fields.size(); ++i)
    if (reader.fields[i].key == reader.fields[i - 1].key)
      return error{errc::malformed, where, detail::printable(reader.fields[i].key),
                   "each field once", "this one twice"};
  hf_config config;
  config.where_ = where;
  config.fields_ = std::move(reader.fields);
  return config;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a config.json. Errors: those of read_file() and parse_hf_config().
inline result<hf_config> read_hf_config(const std::string& path) {
  const auto bytes = read_file(path);
  return bytes ? parse_hf_config(*bytes, path) : result<hf_config>(bytes.error());
}

namespace detail {

/// What a config.json has to say for a model type. Values are JSON texts.
struct hf_field {
  std::string key, value;
  std::string absent{};     ///< what Hugging Face assumes without the field; "" if it must be there
  std::string other_key{};  ///< a second place for the same fact
  std::string other_value{};  ///< a second spelling of the same value
};

/// Hugging Face's name of an activation, and its synonym.
constexpr std::pair<std::string_view, std::string_view> hf_activation(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return {"relu", {}};
    case activation_kind::gelu:
      return {"gelu", {}};
    case activation_kind::gelu_tanh:
      return {"gelu_new", "gelu_pytorch_tanh"};
    default:
      return {"silu", "swish"};
  }
}

/// Builds a list of fields.
struct hf_fields {
  std::vector<hf_field> all{};

  void text(const char* key, std::string_view value, std::string_view absent = {},
            std::string_view other = {}) {
    const auto quote = [](std::string_view x) {
      return x.empty() ? std::string() : json_quoted(x);
    };
    all.push_back({key, quote(value), quote(absent), {}, quote(other)});
  }
  void number(const char* key, double value) { all.push_back({key, number_text(value)}); }
  void number(const char* key, double value, double absent) {
    all.push_back({key, number_text(value), number_text(absent)});
  }
  void truth(const char* key, bool value, bool absent) {
    all.push_back({key, value ? "true" : "false", absent ? "true" : "false"});
  }
};

/// The one name of a feed-forward in config.json where Hugging Face has none; only linnet writes
/// it.
inline constexpr std::string_view foreign_ffn = "linnet";

template <class M>
void t5_fields(hf_fields& to, bool untied_by_scale) {
  constexpr t5_shape s = M::shape;
  to.text("model_type", "t5", "t5", "mt5");
  to.number("vocab_size", static_cast<double>(s.vocabulary));
  to.number("d_model", static_cast<double>(s.d_model));
  to.number("d_kv", static_cast<double>(s.d_kv));
  to.number("d_ff", static_cast<double>(s.d_ff));
  to.number("num_layers", static_cast<double>(s.encoder_layers));
  to.number("num_decoder_layers", static_cast<double>(s.decoder_layers),
            static_cast<double>(s.encoder_layers));
  to.number("num_heads", static_cast<double>(s.heads));
  to.number("relative_attention_num_buckets", static_cast<double>(s.buckets), 32);
  to.number("relative_attention_max_distance", static_cast<double>(s.max_distance), 128);
  to.number("layer_norm_epsilon", s.eps, 1e-6);
  using ffn = ffn_facts<typename M::encoder_ffn>;
  if constexpr (std::is_same_v<typename M::encoder_ffn, typename M::decoder_ffn> && ffn::standard) {
    to.text("feed_forward_proj", hf_activation(ffn::activation).first, "relu",
            hf_activation(ffn::activation).second);
  } else if constexpr (std::is_same_v<typename M::encoder_ffn, typename M::decoder_ffn> &&
                       ffn::gated) {
    // There, "gated-gelu" is the tanh form.
    to.text("feed_forward_proj",
            ffn::activation == activation_kind::gelu        ? foreign_ffn
            : ffn::activation == activation_kind::gelu_tanh ? "gated-gelu"
            : ffn::activation == activation_kind::silu      ? "gated-silu"
                                                            : "gated-relu",
            "relu", ffn::activation == activation_kind::gelu_tanh ? "gated-gelu_new" : "");
  } else {
    to.text("feed_forward_proj", foreign_ffn, "relu");
  }
  // Newer files say of an untied head only that its input is not scaled.
  if (!untied_by_scale) to.truth("tie_word_embeddings", M::tied, true);
  if (M::tied) to.truth("scale_decoder_outputs", true, true);
  to.number("decoder_start_token_id", static_cast<double>(M::start), 0);
  to.number("pad_token_id", static_cast<double>(M::start), 0);
}

template <class M>
void llama_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  to.text("model_type", "llama", "llama");
  to.number("vocab_size", static_cast<double>(s.vocabulary));
  to.number("hidden_size", static_cast<double>(s.d_model));
  to.number("intermediate_size", static_cast<double>(s.d_ff));
  to.number("num_hidden_layers", static_cast<double>(s.layers));
  to.number("num_attention_heads", static_cast<double>(s.heads));
  to.number("num_key_value_heads", static_cast<double>(s.kv_heads), static_cast<double>(s.heads));
  to.number("head_dim", static_cast<double>(s.head_width()),
            static_cast<double>(s.d_model / s.heads));
  to.number("max_position_embeddings", static_cast<double>(s.context));
  to.number("rms_norm_eps", s.eps, 1e-6);
  to.number("rope_theta", s.rope_theta, 10000);
  to.all.back().other_key = "rope_parameters.rope_theta";
  for (const char* const scaling : {"rope_parameters", "rope_scaling"}) {
    to.text((scaling + std::string(".rope_type")).c_str(), "default", "default");
    to.all.back().other_key = scaling + std::string(".type");
  }
  using ffn = ffn_facts<typename M::ffn>;
  if constexpr (ffn::gated)
    to.text("hidden_act", hf_activation(ffn::activation).first, "silu",
            hf_activation(ffn::activation).second);
  else
    to.text("hidden_act", foreign_ffn, "silu");
  to.truth("attention_bias", M::biased, false);
  to.truth("mlp_bias", M::biased, false);
  to.truth("tie_word_embeddings", M::tied, false);
}

template <class M>
void gpt2_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  to.text("model_type", "gpt2", "gpt2");
  to.number("vocab_size", static_cast<double>(s.vocabulary));
  to.number("n_positions", static_cast<double>(s.context));
  to.number("n_embd", static_cast<double>(s.d_model));
  to.number("n_layer", static_cast<double>(s.layers));
  to.number("n_head", static_cast<double>(s.heads));
  to.number("n_inner", static_cast<double>(s.d_ff), static_cast<double>(4 * s.d_model));
  to.number("layer_norm_epsilon", s.eps, 1e-5);
  using ffn = ffn_facts<typename M::ffn>;
  if constexpr (ffn::standard)
    to.text("activation_function", hf_activation(ffn::activation).first, "gelu_new",
            hf_activation(ffn::activation).second);
  else
    to.text("activation_function", foreign_ffn, "gelu_new");
  to.truth("scale_attn_weights", true, true);
  to.truth("scale_attn_by_inverse_layer_idx", false, false);
  to.truth("add_cross_attention", false, false);
  to.truth("tie_word_embeddings", M::tied, true);
}

template <class M>
void mamba_fields(hf_fields& to) {
  constexpr decoder_shape s = M::shape;
  using mixer = typename M::attention;
  to.text("model_type", "mamba", "mamba");
  to.number("vocab_size", static_cast<double>(s.vocabulary));
  to.number("hidden_size", static_cast<double>(s.d_model));
  to.number("state_size", static_cast<double>(mixer::state), 16);
  to.number("num_hidden_layers", static_cast<double>(s.layers));
  to.number("conv_kernel", static_cast<double>(mixer::conv), 4);
  to.number("expand", static_cast<double>(mixer::expand), 2);
  const auto rank = static_cast<double>(mixer::template layer<M::self>::rank);
  to.number("time_step_rank", rank, rank);
  to.all.back().other_value = json_quoted("auto");
  to.number("layer_norm_epsilon", s.eps, 1e-5);
  to.text("hidden_act", "silu", "silu", "swish");
  to.truth("use_bias", M::biased, false);
  to.truth("use_conv_bias", true, true);
  to.truth("tie_word_embeddings", M::tied, true);
}

/// What a config.json of `M` says. `file`: the one at hand, if any.
template <class M>
hf_fields fields_of(const hf_config* file) {
  constexpr hf_kind kind = hf_kind_of<M>();
  static_assert(kind != hf_kind::none,
                "linnet: this model type has no counterpart at Hugging Face");
  hf_fields fields;
  if constexpr (kind == hf_kind::t5) {
    const std::string* const scaled = file ? file->find("scale_decoder_outputs") : nullptr;
    t5_fields<M>(fields, !M::tied && scaled && *scaled == "false");
  } else if constexpr (kind == hf_kind::llama) {
    llama_fields<M>(fields);
  } else if constexpr (kind == hf_kind::mamba) {
    mamba_fields<M>(fields);
  } else {
    gpt2_fields<M>(fields);
  }
  return fields;
}

inline result<void> check_fields(const hf_config& config, const hf_fields& fields) {
  for (const hf_field& field : fields.all) {
    const std::string expected = field.value + " (the model type)";
    bool present = false;
    for (const std::string& key : {field.key, field.other_key}) {
      const std::string* const got = key.empty() ? nullptr : config.find(key);
      if (!got) continue;
      present = true;
      if (*got != field.value && (field.other_value.empty() || *got != field.other_value))
        return error{errc::mismatch, config.where(), key, expected, *got};
    }
    if (present || field.absent == field.value) continue;
    if (field.absent.empty())
      return error{errc::missing, config.where(), field.key, expected, "no such field"};
    return error{errc::mismatch, config.where(), field.key, expected,
                 "no such field, which means " + field.absent};
  }
  return {};
}

}  // namespace detail

/// Compares a config.json with model type `M`. The first field that differs is the error
/// (errc::mismatch, errc::missing), with the file's value and the type's. Fields that do not change
/// what the weights compute, such as dropout rates, are not compared.
template <class M>
result<void> check_config(const hf_config& config) LINNET_TRY {
  return detail::check_fields(config, detail::fields_of<M>(&config));
}
LINNET_OR_OUT_OF_MEMORY(config.where())

/// The config.json of model type `M` that Transformers reads.
template <class M>
std::string make_hf_config() {
  constexpr hf_kind kind = hf_kind_of<M>();
  constexpr std::string_view classes[] = {"", "T5ForConditionalGeneration", "LlamaForCausalLM",
                                          "GPT2LMHeadModel", "MambaForCausalLM"};
  std::string text = "{\n  \"architectures\": [\n    " +
                     detail::json_quoted(classes[static_cast<int>(kind)]) + "\n  ]";
  for (const detail::hf_field& field : detail::fields_of<M>(nullptr).all)
    if (field.key.find('.') == field.key.npos && field.key != "scale_decoder_outputs")
      text += ",\n  " + detail::json_quoted(field.key) + ": " + field.value;
  if constexpr (kind == hf_kind::t5)
    text += ",\n  \"eos_token_id\": 1,\n  \"is_encoder_decoder\": true";
  return text + "\n}\n";
}

LINNET_NAMESPACE_END
