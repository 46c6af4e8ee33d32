// SPDX-License-Identifier: MIT
// config.json: every field that decides what a model computes is compared with the type, and bad
// files are refused one by one.

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::hf_config_test {

namespace ln = linnet;

namespace {

/// What check_config() says of a text.
template <class M>
std::string verdict(const std::string& text) {
  const auto config = ln::parse_hf_config(test::bytes(text), "c");
  return config ? test::message(ln::check_config<M>(*config)) : config.error().message();
}

struct change {
  std::string from, to, message;  ///< `to` in place of `from`, and what is said of it
};

template <class M>
void refuses(const std::string& fixture, std::initializer_list<change> changes) {
  const std::string good = test::contents(test::golden(fixture) + "/config.json");
  BOOST_TEST(verdict<M>(good) == "success");
  for (const change& c : changes) {
    BOOST_TEST_CONTEXT(fixture << ": " << c.from << " -> " << c.to)
    BOOST_TEST(verdict<M>(test::replaced(good, c.from, c.to)) ==
               (c.message == "success" ? c.message : "c: " + c.message));
  }
}

/// A config.json with the value of a field of the outermost object set, or without it for "".
std::string with(const std::string& config, const std::string& key, const std::string& value) {
  auto fields = nlohmann::ordered_json::parse(config);
  fields.erase(key);
  if (!value.empty()) fields[key] = nlohmann::ordered_json::parse(value);
  return fields.dump();
}

/// Leaves fields out one by one: accepted where the value is the default, else refused by name.
template <class M>
void leaves_out(const std::string& fixture,
                std::initializer_list<std::pair<const char*, const char*>> defaults) {
  const std::string good = test::contents(test::golden(fixture) + "/config.json");
  const auto config = ln::parse_hf_config(test::bytes(good), "c");
  LINNET_REQUIRE_OK(config);
  for (const auto& [key, value] : defaults) {
    const std::string* const said = config->find(key);
    const std::string got = verdict<M>(with(good, key, ""));
    const std::string want = !said || *said == value
                                 ? "success"
                                 : "c: " + std::string(key) + ": expected " + *said +
                                       " (the model type), got no such field, which means " + value;
    BOOST_TEST_CONTEXT(fixture << ": " << key) BOOST_TEST(got == want);
  }
}

struct field_value {
  const char *key, *value;
  bool taken;
};

/// Sets fields one by one in a fixture's config.json, or in the one that linnet writes.
template <class M>
void takes(const std::string& fixture, std::initializer_list<field_value> values) {
  const std::string good = fixture.empty() ? ln::make_hf_config<M>()
                                           : test::contents(test::golden(fixture) + "/config.json");
  for (const auto& [key, value, taken] : values) {
    const std::string got = verdict<M>(with(good, key, value));
    BOOST_TEST_CONTEXT(fixture << ": " << key << ": " << value << ": " << got)
    BOOST_TEST((taken ? got == "success" : got.starts_with("c: ") && got.find(key) != got.npos));
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(hf_config)

BOOST_AUTO_TEST_CASE(t5) {
  refuses<test::t5_1_0>(
      "t5_v1_0",
      {
          {"\"model_type\": \"t5\"", "\"model_type\": \"llama\"",
           "model_type: expected \"t5\" (the model type), got \"llama\""},
          {"\"model_type\": \"t5\"", "\"model_type\": \"mt5\"",
           "model_type: expected \"t5\" (the model type), got \"mt5\""},
          {"\"model_type\": \"t5\",", "", "success"},
          {"\"vocab_size\": 37", "\"vocab_size\": 38",
           "vocab_size: expected 37 (the model type), got 38"},
          {"\"d_model\": 24", "\"d_model\": 240", "d_model: expected 24 (the model type), got 240"},
          {"\"d_model\": 24,", "",
           "d_model: expected 24 (the model type), got no such field, which means 512"},
          {"\"d_model\": 24", "\"d_model\": null",
           "d_model: expected 24 (the model type), got no such field, which means 512"},
          {"\"d_kv\": 6", "\"d_kv\": 12", "d_kv: expected 6 (the model type), got 12"},
          {"\"d_kv\": 6", "\"d_kv\": 6.5", "d_kv: expected 6 (the model type), got 6.5"},
          {"\"d_kv\": 6", "\"d_kv\": 6.0", "success"},
          {"\"d_kv\": 6", "\"d_kv\": \"6\"", "d_kv: expected 6 (the model type), got \"6\""},
          {"\"d_kv\": 6", "\"d_kv\": [6]", "d_kv: expected 6 (the model type), got [...]"},
          {"\"d_kv\": 6", "\"d_kv\": {\"d_kv\": 6}",
           "d_kv: expected 6 (the model type), got {...}"},
          {"\"d_kv\": 6", "\"d_kv\": -6", "d_kv: expected 6 (the model type), got -6"},
          {"\"d_kv\": 6", "\"d_kv\": 18446744073709551622",
           "d_kv: expected 6 (the model type), got 18446744073709551616"},
          {"\"d_ff\": 40", "\"d_ff\": 41", "d_ff: expected 40 (the model type), got 41"},
          {"\"num_layers\": 2", "\"num_layers\": 3",
           "num_layers: expected 2 (the model type), got 3"},
          {"\"num_decoder_layers\": 3", "\"num_decoder_layers\": 2",
           "num_decoder_layers: expected 3 (the model type), got 2"},
          {"\"num_decoder_layers\": 3,", "",
           "num_decoder_layers: expected 3 (the model type), got no such field, which means 2"},
          {"\"num_heads\": 4", "\"num_heads\": 3", "num_heads: expected 4 (the model type), got 3"},
          {"\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 16",
           "relative_attention_num_buckets: expected 32 (the model type), got 16"},
          {"\"relative_attention_num_buckets\": 32,", "", "success"},
          {"\"relative_attention_max_distance\": 128", "\"relative_attention_max_distance\": 256",
           "relative_attention_max_distance: expected 128 (the model type), got 256"},
          {"\"relative_attention_max_distance\": 128,", "", "success"},
          {"1e-06", "1e-05", "layer_norm_epsilon: expected 1e-06 (the model type), got 1e-05"},
          {"1e-06", "0.000001", "success"},
          {"\"feed_forward_proj\": \"relu\"", "\"feed_forward_proj\": \"gated-gelu\"",
           "feed_forward_proj: expected \"relu\" (the model type), got \"gated-gelu\""},
          {"\"feed_forward_proj\": \"relu\",", "", "success"},
          {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
           "tie_word_embeddings: expected true (the model type), got false"},
          {"\"tie_word_embeddings\": true,", "", "success"},
          {"\"scale_decoder_outputs\": true", "\"scale_decoder_outputs\": false",
           "scale_decoder_outputs: expected true (the model type), got false"},
          {"\"scale_decoder_outputs\": true,", "", "success"},
          {"\"decoder_start_token_id\": 0", "\"decoder_start_token_id\": 2",
           "decoder_start_token_id: expected 0 (the model type), got 2"},
          {"\"pad_token_id\": 0", "\"pad_token_id\": 1",
           "pad_token_id: expected 0 (the model type), got 1"},
          {"\"dropout_rate\": 0.0", "\"dropout_rate\": 0.1", "success"},
      });
  refuses<test::t5_1_1>(
      "t5_v1_1",
      {
          {"\"gated-gelu\"", "\"relu\"",
           "feed_forward_proj: expected \"gated-gelu\" (the model type), got \"relu\""},
          {"\"gated-gelu\"", "\"gated-silu\"",
           "feed_forward_proj: expected \"gated-gelu\" (the model type), got \"gated-silu\""},
          {"\"feed_forward_proj\": \"gated-gelu\",", "",
           "feed_forward_proj: expected \"gated-gelu\" (the model type), got no such field, which "
           "means \"relu\""},
          // Older files say tie_word_embeddings: false, newer ones scale_decoder_outputs: false.
          {"\"scale_decoder_outputs\": false", "\"scale_decoder_outputs\": true",
           "tie_word_embeddings: expected false (the model type), got true"},
          {"\"scale_decoder_outputs\": false,\n  \"tie_word_embeddings\": true",
           "\"tie_word_embeddings\": false", "success"},
          {"\"scale_decoder_outputs\": false,\n  \"tie_word_embeddings\": true,", "",
           "tie_word_embeddings: expected false (the model type), got no such field, which means "
           "true"},
      });
}

BOOST_AUTO_TEST_CASE(llama) {
  const std::string rope =
      "\"rope_parameters\": {\n    \"rope_theta\": 10000.0,\n    \"rope_type\": \"default\"\n  },";
  refuses<test::llama_gqa>(
      "llama_gqa_untied",
      {
          {"\"model_type\": \"llama\"", "\"model_type\": \"gpt2\"",
           "model_type: expected \"llama\" (the model type), got \"gpt2\""},
          {"\"vocab_size\": 41", "\"vocab_size\": 14",
           "vocab_size: expected 41 (the model type), got 14"},
          {"\"hidden_size\": 24", "\"hidden_size\": 25",
           "hidden_size: expected 24 (the model type), got 25"},
          {"\"intermediate_size\": 44", "\"intermediate_size\": 45",
           "intermediate_size: expected 44 (the model type), got 45"},
          {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4",
           "num_hidden_layers: expected 3 (the model type), got 4"},
          {"\"num_attention_heads\": 4", "\"num_attention_heads\": 6",
           "num_attention_heads: expected 4 (the model type), got 6"},
          {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4",
           "num_key_value_heads: expected 2 (the model type), got 4"},
          {"\"num_key_value_heads\": 2,", "",
           "num_key_value_heads: expected 2 (the model type), got no such field, which means 4"},
          {"\"head_dim\": 6", "\"head_dim\": 8", "head_dim: expected 6 (the model type), got 8"},
          {"\"head_dim\": 6,", "", "success"},
          {"\"max_position_embeddings\": 32", "\"max_position_embeddings\": 64",
           "max_position_embeddings: expected 32 (the model type), got 64"},
          {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-06",
           "rms_norm_eps: expected 1e-05 (the model type), got 1e-06"},
          {"\"rms_norm_eps\": 1e-05,", "",
           "rms_norm_eps: expected 1e-05 (the model type), got no such field, which means 1e-06"},
          {"\"rope_theta\": 10000.0", "\"rope_theta\": 500000.0",
           "rope_parameters.rope_theta: expected 10000 (the model type), got 500000"},
          {"\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"",
           "rope_parameters.rope_type: expected \"default\" (the model type), got \"llama3\""},
          {rope, "", "success"},
          {rope, "\"rope_theta\": 10000, \"rope_scaling\": null,", "success"},
          {rope, "\"rope_theta\": 1000000.0,",
           "rope_theta: expected 10000 (the model type), got 1000000"},
          {rope, "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0},",
           "rope_scaling.type: expected \"default\" (the model type), got \"linear\""},
          {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"",
           "hidden_act: expected \"silu\" (the model type), got \"gelu\""},
          {"\"attention_bias\": false", "\"attention_bias\": true",
           "attention_bias: expected false (the model type), got true"},
          {"\"mlp_bias\": false", "\"mlp_bias\": true",
           "mlp_bias: expected false (the model type), got true"},
          {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true",
           "tie_word_embeddings: expected false (the model type), got true"},
          {"\"tie_word_embeddings\": false,", "", "success"},
      });
  refuses<test::llama_mqa>(
      "llama_mqa_tied",
      {{"\"head_dim\": 8,", "",
        "head_dim: expected 8 (the model type), got no such field, which means 6"},
       {"\"tie_word_embeddings\": true,", "",
        "tie_word_embeddings: expected true (the model type), got no such field, which means "
        "false"}});
}

BOOST_AUTO_TEST_CASE(gpt2) {
  refuses<test::gpt2>(
      "gpt2",
      {
          {"\"model_type\": \"gpt2\"", "\"model_type\": \"t5\"",
           "model_type: expected \"gpt2\" (the model type), got \"t5\""},
          {"\"vocab_size\": 41", "\"vocab_size\": 42",
           "vocab_size: expected 41 (the model type), got 42"},
          {"\"n_embd\": 24", "\"n_embd\": 48", "n_embd: expected 24 (the model type), got 48"},
          {"\"n_layer\": 2", "\"n_layer\": 12", "n_layer: expected 2 (the model type), got 12"},
          {"\"n_head\": 4", "\"n_head\": 2", "n_head: expected 4 (the model type), got 2"},
          {"\"n_positions\": 32", "\"n_positions\": 1024",
           "n_positions: expected 32 (the model type), got 1024"},
          {"\"n_inner\": null", "\"n_inner\": 95", "n_inner: expected 96 (the model type), got 95"},
          {"\"n_inner\": null", "\"n_inner\": 96", "success"},
          {"\"layer_norm_epsilon\": 1e-05", "\"layer_norm_epsilon\": 1e-06",
           "layer_norm_epsilon: expected 1e-05 (the model type), got 1e-06"},
          {"\"gelu_new\"", "\"gelu\"",
           "activation_function: expected \"gelu_new\" (the model type), got \"gelu\""},
          {"\"gelu_new\"", "\"gelu_pytorch_tanh\"", "success"},
          {"\"scale_attn_weights\": true", "\"scale_attn_weights\": false",
           "scale_attn_weights: expected true (the model type), got false"},
          {"\"scale_attn_by_inverse_layer_idx\": false",
           "\"scale_attn_by_inverse_layer_idx\": true",
           "scale_attn_by_inverse_layer_idx: expected false (the model type), got true"},
          {"\"add_cross_attention\": false", "\"add_cross_attention\": true",
           "add_cross_attention: expected false (the model type), got true"},
          {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
           "tie_word_embeddings: expected true (the model type), got false"},
      });
  refuses<test::gpt2_inner>(
      "gpt2_inner", {{"\"n_inner\": 50", "\"n_inner\": null",
                      "n_inner: expected 50 (the model type), got no such field, which means 96"}});
}

BOOST_AUTO_TEST_CASE(mamba) {
  refuses<test::mamba>(
      "mamba", {
                   {"\"model_type\": \"mamba\"", "\"model_type\": \"mamba2\"",
                    "model_type: expected \"mamba\" (the model type), got \"mamba2\""},
                   {"\"vocab_size\": 41", "\"vocab_size\": 42",
                    "vocab_size: expected 41 (the model type), got 42"},
                   {"\"hidden_size\": 24", "\"hidden_size\": 48",
                    "hidden_size: expected 24 (the model type), got 48"},
                   {"\"state_size\": 5,", "",
                    "state_size: expected 5 (the model type), got no such field, which means 16"},
                   {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2",
                    "num_hidden_layers: expected 3 (the model type), got 2"},
                   {"\"conv_kernel\": 4", "\"conv_kernel\": 3",
                    "conv_kernel: expected 4 (the model type), got 3"},
                   {"\"expand\": 2", "\"expand\": 3", "expand: expected 2 (the model type), got 3"},
                   {"\"time_step_rank\": 2", "\"time_step_rank\": 3",
                    "time_step_rank: expected 2 (the model type), got 3"},
                   {"\"time_step_rank\": 2", "\"time_step_rank\": \"auto\"", "success"},
                   {"\"layer_norm_epsilon\": 1e-05", "\"layer_norm_epsilon\": 1e-06",
                    "layer_norm_epsilon: expected 1e-05 (the model type), got 1e-06"},
                   {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"",
                    "hidden_act: expected \"silu\" (the model type), got \"gelu\""},
                   {"\"use_bias\": false", "\"use_bias\": true",
                    "use_bias: expected false (the model type), got true"},
                   {"\"use_conv_bias\": true", "\"use_conv_bias\": false",
                    "use_conv_bias: expected true (the model type), got false"},
                   {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
                    "tie_word_embeddings: expected true (the model type), got false"},
               });
}

BOOST_AUTO_TEST_CASE(defaults) {
  // As in the configuration classes of Transformers 5.23.
  leaves_out<test::t5_1_0>("t5_v1_0", {{"vocab_size", "32128"},
                                       {"d_model", "512"},
                                       {"d_kv", "64"},
                                       {"d_ff", "2048"},
                                       {"num_layers", "6"},
                                       {"num_decoder_layers", "2"},  // as many as num_layers
                                       {"num_heads", "8"},
                                       {"relative_attention_num_buckets", "32"},
                                       {"relative_attention_max_distance", "128"},
                                       {"layer_norm_epsilon", "1e-06"},
                                       {"feed_forward_proj", "\"relu\""},
                                       {"scale_decoder_outputs", "true"},
                                       {"tie_word_embeddings", "true"},
                                       {"decoder_start_token_id", "0"},
                                       {"pad_token_id", "0"}});
  leaves_out<test::t5_1_1>("t5_v1_1",
                           {{"num_decoder_layers", "2"}, {"feed_forward_proj", "\"relu\""}});
  leaves_out<test::llama_mqa>("llama_mqa_tied", {{"vocab_size", "32000"},
                                                 {"hidden_size", "4096"},
                                                 {"intermediate_size", "11008"},
                                                 {"num_hidden_layers", "32"},
                                                 {"num_attention_heads", "32"},
                                                 {"num_key_value_heads", "4"},
                                                 {"head_dim", "6"},
                                                 {"max_position_embeddings", "2048"},
                                                 {"rms_norm_eps", "1e-06"},
                                                 {"hidden_act", "\"silu\""},
                                                 {"attention_bias", "false"},
                                                 {"mlp_bias", "false"},
                                                 {"tie_word_embeddings", "false"}});
  leaves_out<test::gpt2>("gpt2", {{"vocab_size", "50257"},
                                  {"n_positions", "1024"},
                                  {"n_embd", "768"},
                                  {"n_layer", "12"},
                                  {"n_head", "12"},
                                  {"n_inner", "96"},
                                  {"layer_norm_epsilon", "1e-05"},
                                  {"activation_function", "\"gelu_new\""},
                                  {"scale_attn_weights", "true"},
                                  {"scale_attn_by_inverse_layer_idx", "false"},
                                  {"add_cross_attention", "false"},
                                  {"tie_word_embeddings", "true"}});
  leaves_out<test::mamba>("mamba", {{"vocab_size", "50280"},
                                    {"hidden_size", "768"},
                                    {"state_size", "16"},
                                    {"num_hidden_layers", "32"},
                                    {"conv_kernel", "4"},
                                    {"expand", "2"},
                                    {"intermediate_size", "48"},  // expand times hidden_size
                                    {"time_step_rank", "2"},      // a sixteenth of hidden_size
                                    {"layer_norm_epsilon", "1e-05"},
                                    {"hidden_act", "\"silu\""},
                                    {"use_bias", "false"},
                                    {"use_conv_bias", "true"},
                                    {"tie_word_embeddings", "true"}});
  // Other values than the defaults: what is left out is then wrong.
  leaves_out<test::mamba_untied>("mamba_untied", {{"conv_kernel", "4"},
                                                  {"expand", "2"},
                                                  {"use_bias", "false"},
                                                  {"tie_word_embeddings", "true"}});
  // mT5's own: the same fields mean something else when they are left out.
  const std::string mt5 =
      with(test::contents(test::golden("t5_v1_1") + "/config.json"), "model_type", "\"mt5\"");
  BOOST_TEST(verdict<test::t5_1_1>(mt5) == "success");
  BOOST_TEST(verdict<test::t5_1_1>(with(mt5, "feed_forward_proj", "")) == "success");
  BOOST_TEST(verdict<test::t5_1_1>(with(mt5, "d_ff", "")) ==
             "c: d_ff: expected 34 (the model type), got no such field, which means 1024");
  const auto silent = [](const std::string& config) {  // about the head
    return with(with(config, "scale_decoder_outputs", ""), "tie_word_embeddings", "");
  };
  BOOST_TEST(verdict<test::t5_1_1>(silent(mt5)) == "success");
}

BOOST_AUTO_TEST_CASE(values) {
  // A field, a value, and whether the model type computes with it.
  takes<test::t5_1_0>("t5_v1_0", {{"dense_act_fn", "\"gelu\"", false},
                                  {"dense_act_fn", "\"relu2\"", false},
                                  {"dense_act_fn", "null", true},
                                  {"is_gated_act", "true", false},
                                  {"is_gated_act", "null", true},
                                  {"feed_forward_proj", "\"gated-relu\"", false},
                                  {"hidden_size", "24", true},
                                  {"hidden_size", "48", false},
                                  {"head_dim", "12", false},
                                  {"num_hidden_layers", "3", false},
                                  {"num_attention_heads", "3", false},
                                  {"tie_encoder_decoder", "true", false},
                                  {"tie_encoder_decoder", "false", true},
                                  {"layer_norm_epsilon", "9.999999974752427e-07", true},
                                  {"layer_norm_epsilon", "1.0000001e-06", false},
                                  {"layer_norm_epsilon", "-1e-06", false},
                                  {"layer_norm_epsilon", "1e300", false},
                                  {"layer_norm_epsilon", "\"1e-06\"", false},
                                  {"quantization_config", "{\"bits\": 4}", false},
                                  {"quantization_config", "null", true},
                                  {"classifier_dropout", "0.5", true}});
  takes<test::t5_1_1>("t5_v1_1", {{"dense_act_fn", "\"gelu\"", false},
                                  {"dense_act_fn", "\"gelu_pytorch_tanh\"", true},
                                  {"feed_forward_proj", "\"gated-gelu_new\"", true},
                                  {"feed_forward_proj", "\"gated-gelu_python\"", false},
                                  {"feed_forward_proj", "\"gelu_new\"", false},
                                  {"is_gated_act", "false", false},
                                  {"model_type", "\"mt5\"", true}});
  using exact =
      ln::t5<test::t5_shape_1_1, ln::ffn::gated<ln::activation_kind::gelu>, ln::tie::untied>;
  takes<exact>("", {{"dense_act_fn", "\"gelu_new\"", false},
                    {"feed_forward_proj", "\"gated-gelu_python\"", true},
                    {"feed_forward_proj", "\"linnet\"", false},
                    {"feed_forward_proj", "\"gated-gelu\"", false},
                    {"scale_decoder_outputs", "false", true},
                    {"scale_decoder_outputs", "true", false}});
  takes<test::llama_gqa>(
      "llama_gqa_untied",
      {{"rms_norm_eps", "9.999999747378752e-06", true},
       {"rms_norm_eps", "1.00001e-05", false},
       {"rope_theta", "10000", true},
       {"rope_theta", "10001", false},
       {"partial_rotary_factor", "1.0", true},
       {"partial_rotary_factor", "0.5", false},
       {"rope_parameters", "null", true},
       {"rope_parameters", "[10000]", false},
       {"rope_parameters", "{\"rope_theta\": 500000.0}", false},
       {"rope_parameters", "{\"partial_rotary_factor\": 0.5}", false},
       {"rope_parameters", "{\"type\": \"yarn\"}", false},
       {"rope_parameters", "{\"full_attention\": {\"rope_theta\": 500000.0}}", false},
       {"rope_scaling", "{\"rope_type\": \"default\"}", true},
       {"rope_scaling", "{\"rope_theta\": 500000.0}", false},
       {"rope_scaling", "{\"rope_type\": \"dynamic\", \"factor\": 2.0}", false},
       {"rope_scaling", "{\"factor\": 2.0}", false},
       {"rope_scaling", "\"linear\"", false},
       {"hidden_act", "\"swish\"", true},
       {"hidden_act", "\"gelu_new\"", false},
       {"pretraining_tp", "2", true},
       {"quantization_config", "{}", false}});
  takes<test::gpt2>("gpt2", {{"layer_norm_epsilon", "9.999999747378752e-06", true},
                             {"hidden_size", "48", false},
                             {"num_attention_heads", "4", true},
                             {"num_attention_heads", "2", false},
                             {"num_hidden_layers", "3", false},
                             {"max_position_embeddings", "64", false},
                             {"activation_function", "\"gelu_fast\"", true},
                             {"activation_function", "\"quick_gelu\"", false},
                             {"reorder_and_upcast_attn", "true", true},
                             {"quantization_config", "{}", false}});
  takes<test::mamba>("mamba", {{"layer_norm_epsilon", "9.999999747378752e-06", true},
                               {"intermediate_size", "96", false},
                               {"hidden_act", "\"swish\"", true},
                               {"hidden_act", "\"relu\"", false},
                               {"residual_in_fp32", "false", true},
                               {"quantization_config", "{}", false}});
}

BOOST_AUTO_TEST_CASE(own_files_fit) {
  const auto fits = []<class M>(M) {
    BOOST_TEST(verdict<M>(ln::make_hf_config<M>()) == "success");
  };
  fits(test::llama_gqa());
  fits(test::llama_mqa());
  fits(test::gpt2_inner());
  fits(test::mamba_untied());
  fits(test::t5_1_0());
  fits(test::t5_1_1());
  fits(ln::zoo::stlm_50m());
  fits(ln::t5<test::t5_shape_1_0, ln::ffn::swiglu>());
  fits(ln::t5<test::t5_shape_1_0, ln::ffn::gated<ln::activation_kind::gelu>>());
}

BOOST_AUTO_TEST_CASE(no_tensor_is_touched) {
  const test::scratch_folder folder;
  const std::string config = test::contents(test::golden("gpt2") + "/config.json");
  LINNET_REQUIRE_OK(
      ln::write_file(folder.path("config.json"),
                     test::bytes(test::replaced(config, "\"n_head\": 4", "\"n_head\": 2"))));
  // model.safetensors is not even there.
  auto w = test::distinct<test::gpt2>();
  const auto before = w.clone();
  BOOST_TEST(test::message(ln::load_hugging_face(w, folder.path())) ==
             folder.path("config.json") + ": n_head: expected 4 (the model type), got 2");
  BOOST_TEST(test::same_bytes(w, before));
}

BOOST_AUTO_TEST_CASE(bad_files) {
  const std::string fields = "{\"d_model\":1", digits(100000, '1');
  const std::pair<std::string, const char*> table[] = {
      {"", "c: content: expected JSON, got an error at byte 1"},
      {"{", "c: content: expected JSON, got an error at byte 2"},
      {"nonsense", "c: content: expected JSON, got an error at byte 2"},
      {"[]", "c: content: expected a JSON object, got an array"},
      {"17", "c: content: expected a JSON object, got 17"},
      {"null", "c: content: expected a JSON object, got null"},
      {fields + ",\"d_model\":1}", "c: d_model: expected each field once, got this one twice"},
      {fields + ",\"d_model\":{}}", "c: d_model: expected each field once, got this one twice"},
      {"{\"rope_parameters\":{\"rope_theta\":1,\"rope_theta\":2}}",
       "c: rope_parameters.rope_theta: expected each field once, got this one twice"},
      {fields + ",\"eps\":NaN}", "c: content: expected JSON, got an error at byte 20"},
      {fields + ",\"eps\":Infinity}", "c: content: expected JSON, got an error at byte 20"},
      {fields + ",\"eps\":1e999}",
       "c: content: expected JSON, got a number too large for a double"},
      {fields + "} {}", "c: content: expected JSON, got an error at byte 15"},
      {fields + ",}", "c: content: expected JSON, got an error at byte 14"},
      {fields + "\xff}", "c: content: expected JSON, got an error at byte 13"},
      {fields + ",\"a\":" + std::string(31, '['),
       "c: content: expected JSON, got an error at byte 49"},
      {fields + ",\"a\":" + std::string(32, '['),
       "c: content: expected at most 32 levels, got more"},
      {fields + std::string(1025, '\t'),
       "c: content: expected at most 1024 blanks in a row, got more"},
      {fields + ",\"a\":" + digits + "}",
       "c: content: expected JSON, got a number too large for a double"},
      {fields + ",\"a\":\"" + digits + "}",
       "c: content: expected JSON, got an error at byte 100020"},
      {std::string(200000, ' '), "c: content: expected at most 131072 bytes, got 200000"},
  };
  for (const auto& [text, message] : table) {
    const std::size_t before = test::bytes_asked_for();
    std::string got = test::message(ln::parse_hf_config(test::bytes(text), "c"));
    BOOST_TEST(test::bytes_asked_for() - before <= text.size() + (16u << 20));
    got = got.substr(0, got.find(", after "));
    BOOST_TEST_CONTEXT(text.substr(0, 60)) BOOST_TEST(got == message);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hf_config_test
