// SPDX-License-Identifier: MIT
// Hugging Face directories: names, layouts, aliases and config.json, against the fixtures that
// Transformers wrote.

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::hugging_face_test {

namespace ln = linnet;

namespace {

/// A fixture loads, saves to the very bytes that Transformers wrote, and loads again.
template <class M>
ln::weights<M> load_golden(const std::string& name) {
  ln::weights<M> w;
  LINNET_REQUIRE_OK(ln::load_hugging_face(w, test::golden(name)));
  const test::scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_hugging_face(w, folder.path()));
  BOOST_TEST((test::contents(folder.path("model.safetensors")) ==
              test::contents(test::golden(name) + "/model.safetensors")));
  ln::weights<M> back;
  LINNET_REQUIRE_OK(ln::load_hugging_face(back, folder.path()));
  BOOST_TEST(test::same_bytes(w, back));
  return w;
}

/// A copy of a fixture whose parts can be changed.
class directory {
 public:
  explicit directory(const std::string& name)
      : config(test::contents(test::golden(name) + "/config.json")) {
    auto file = ln::read_safetensors(test::golden(name) + "/model.safetensors");
    LINNET_REQUIRE_OK(file);
    original = std::move(*file);
    tensors = test::tensors_of(original);
  }
  ln::named_tensor& tensor(std::string_view name) {
    const auto at =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
    BOOST_REQUIRE_MESSAGE(at != tensors.end(), "no tensor " << name);
    return *at;
  }
  void erase(std::string_view name) {
    tensors.erase(tensors.begin() + (&tensor(name) - tensors.data()));
  }
  void copy(std::string_view name, const std::string& other) {
    ln::named_tensor t = tensor(name);
    t.name = other;
    tensors.push_back(t);
  }
  /// Loads what is here now; the message without the folder's name.
  template <class M>
  std::string load(ln::weights<M>& w) {
    LINNET_REQUIRE_OK(ln::write_file(folder.path("config.json"), test::bytes(config)));
    LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("model.safetensors"), tensors));
    const std::string got = test::message(ln::load_hugging_face(w, folder.path()));
    return got.starts_with(folder.path()) ? got.substr(folder.path().size() + 1) : got;
  }

  test::scratch_folder folder;
  std::string config;
  ln::safetensors original;
  std::vector<ln::named_tensor> tensors;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(hugging_face)

BOOST_AUTO_TEST_CASE(fixtures_round_trip) {
  (void)load_golden<test::llama_gqa>("llama_gqa_untied");
  (void)load_golden<test::llama_gqa_interleaved>("llama_gqa_untied");
  (void)load_golden<test::llama_mha>("llama_mha_tied");
  (void)load_golden<test::llama_mqa>("llama_mqa_tied");
  (void)load_golden<test::gpt2>("gpt2");
  (void)load_golden<test::gpt2_inner>("gpt2_inner");
  (void)load_golden<test::mamba>("mamba");
  (void)load_golden<test::mamba_untied>("mamba_untied");
  (void)load_golden<test::t5_1_0>("t5_v1_0");
  (void)load_golden<test::t5_long>("t5_v1_0_long");
  (void)load_golden<test::t5_1_1>("t5_v1_1");
}

BOOST_AUTO_TEST_CASE(llama_pairs_are_reordered_for_interleaved_rotation) {
  const auto half = load_golden<test::llama_gqa>("llama_gqa_untied");
  const auto pairs = load_golden<test::llama_gqa_interleaved>("llama_gqa_untied");
  for (const auto& tensor : ln::detail::leaves_of(half)) {
    const auto a = test::floats(half, tensor.name), b = test::floats(pairs, tensor.name);
    const bool rotated =
        tensor.name.ends_with("attention.q.weight") || tensor.name.ends_with("attention.k.weight");
    bool equal = true;
    for (ln::index n = 0; n < tensor.rows; ++n) {
      const ln::index h = 6, head = n / h, r = n % h;  // b's row 2i is a's row i, 2i+1 is i + h/2
      const ln::index from = rotated ? head * h + (r % 2 == 0 ? r / 2 : h / 2 + r / 2) : n;
      for (ln::index j = 0; j < tensor.columns; ++j)
        equal =
            equal && b[test::at(n * tensor.columns + j)] == a[test::at(from * tensor.columns + j)];
    }
    BOOST_TEST(equal, tensor.name);
  }
}

BOOST_AUTO_TEST_CASE(gpt2_is_transposed_and_unpacked) {
  const auto w = load_golden<test::gpt2>("gpt2");
  const auto file = ln::read_safetensors(test::golden("gpt2") + "/model.safetensors");
  LINNET_REQUIRE_OK(file);
  const auto packed =
      file->values<float>("transformer.h.1.attn.c_attn.weight").value();  // [24, 72]
  const auto packed_bias = file->values<float>("transformer.h.1.attn.c_attn.bias").value();
  const auto wide = file->values<float>("transformer.h.1.mlp.c_fc.weight").value();  // [24, 96]
  ln::index part = 0;
  for (const std::string name : {"q", "k", "v"}) {
    const auto weight = test::floats(w, "blocks.1.attention." + name + ".weight");
    const auto bias = test::floats(w, "blocks.1.attention." + name + ".bias");
    bool equal = true;
    for (ln::index n = 0; n < 24; ++n) {
      equal = equal && bias[test::at(n)] == packed_bias[test::at(24 * part + n)];
      for (ln::index j = 0; j < 24; ++j)
        equal = equal && weight[test::at(n * 24 + j)] == packed[test::at(j * 72 + 24 * part + n)];
    }
    BOOST_TEST(equal, name);
    ++part;
  }
  const auto wi = test::floats(w, "blocks.1.ffn.wi.weight");
  bool equal = true;
  for (ln::index n = 0; n < 96; ++n)
    for (ln::index j = 0; j < 24; ++j)
      equal = equal && wi[test::at(n * 24 + j)] == wide[test::at(j * 96 + n)];
  BOOST_TEST(equal);
}

BOOST_AUTO_TEST_CASE(names_in_both_directions) {
  const auto check = []<class M>(ln::weights<M> w, ln::hf_kind kind, bool gated) {
    BOOST_TEST((ln::hf_kind_of<M>() == kind));
    for (const auto& tensor : ln::detail::leaves_of(w)) {
      const std::string foreign = ln::hugging_face_name(kind, tensor.name);
      BOOST_TEST(foreign != tensor.name);
      const std::string back = ln::linnet_name(kind, foreign, gated);
      BOOST_TEST((back == tensor.name || foreign.find("c_attn") != foreign.npos),
                 tensor.name << " " << back);
    }
  };
  check(ln::weights<test::t5_1_0>(), ln::hf_kind::t5, false);
  check(ln::weights<test::t5_1_1>(), ln::hf_kind::t5, true);
  check(ln::weights<test::llama_gqa>(), ln::hf_kind::llama, true);
  check(ln::weights<test::mixtral>(), ln::hf_kind::mixtral, true);
  BOOST_TEST(ln::hugging_face_name(ln::hf_kind::mixtral, "blocks.11.ffn.experts.10.up.weight") ==
             "model.layers.11.block_sparse_moe.experts.10.w3.weight");
  static_assert(ln::hf_kind_of<ln::decoder<test::gqa_shape, ln::ffn::experts<4, 1>>>() ==
                ln::hf_kind::none);
  check(ln::weights<test::gpt2>(), ln::hf_kind::gpt2, false);
  check(ln::weights<test::mamba_untied>(), ln::hf_kind::mamba, false);
  BOOST_TEST(ln::hugging_face_name(ln::hf_kind::mamba, "blocks.1.attention.A_log") ==
             "backbone.layers.1.mixer.A_log");
  static_assert(
      ln::hf_kind_of<ln::decoder<test::mamba_shape, ln::mixer::mamba<5>, ln::position::none>>() ==
      ln::hf_kind::none);
  static_assert(ln::hf_kind_of<ln::decoder<test::mamba_shape, ln::mixer::mamba<5>, ln::ffn::skip,
                                           ln::norm::layer_norm, ln::position::none>>() ==
                ln::hf_kind::none);
  BOOST_TEST(ln::hugging_face_name(ln::hf_kind::t5, "encoder.blocks.11.ffn.w1.weight") ==
             "encoder.blocks.11.ffn.w1.weight");
  BOOST_TEST(ln::linnet_name(ln::hf_kind::t5, "encoder.block.x.layer.0.layer_norm.weight") == "");
  BOOST_TEST(ln::linnet_name(ln::hf_kind::llama, "model.layers.11.mlp.up_proj.weight") ==
             "blocks.11.ffn.up.weight");
  static_assert(ln::hf_kind_of<ln::decoder<test::mha_shape, ln::position::none>>() ==
                ln::hf_kind::none);
  static_assert(ln::hf_kind_of<ln::decoder<test::gqa_shape, ln::norm::layer_norm,
                                           ln::position::learned, ln::bias::all>>() ==
                ln::hf_kind::none);
  static_assert(ln::hf_kind_of<ln::zoo::gpt2_small>() == ln::hf_kind::gpt2);
  static_assert(ln::hf_kind_of<ln::zoo::stlm_50m>() == ln::hf_kind::llama);
  static_assert(ln::hf_kind_of<ln::zoo::stlm_50m_mod>() == ln::hf_kind::none);
}

// Mixtral's names and numbers are those of Transformers; what its files say comes back.
BOOST_AUTO_TEST_CASE(mixtral) {
  using published = ln::decoder<ln::decoder_shape{.d_model = 4096,
                                                  .d_ff = 14336,
                                                  .heads = 32,
                                                  .kv_heads = 8,
                                                  .layers = 32,
                                                  .vocabulary = 32000,
                                                  .context = 131072,
                                                  .rope_theta = 1e6},
                                ln::ffn::experts<8, 2>, ln::position::rope_half, ln::tie::untied>;
  static_assert(published::parameters() == 46'702'792'704);
  const auto verdict = [](const std::string& text) {
    const auto config = ln::parse_hf_config(test::bytes(text), "c");
    return test::message(ln::check_config<published>(*config));
  };
  BOOST_TEST(verdict(R"({"model_type": "mixtral"})") == "success");
  BOOST_TEST(
      verdict(R"({"model_type": "mixtral", "num_local_experts": 4})").find("num_local_experts") !=
      std::string::npos);
  BOOST_TEST(verdict(R"({"model_type": "mixtral", "num_experts_per_tok": 1})")
                 .find("num_experts_per_tok") != std::string::npos);
  BOOST_TEST(
      verdict(R"({"model_type": "mixtral", "sliding_window": 4096})").find("sliding_window") !=
      std::string::npos);
  BOOST_TEST(verdict(R"({"model_type": "llama"})") != "success");

  ln::weights<test::mixtral> w, back;
  ln::initialize(w, ln::seed{5});
  const test::scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_hugging_face(w, folder.path()));
  LINNET_REQUIRE_OK(ln::load_hugging_face(back, folder.path()));
  BOOST_TEST(test::same_bytes(w, back));
  BOOST_TEST(test::contents(folder.path("config.json")).find("\"MixtralForCausalLM\"") !=
             std::string::npos);
  const auto file = ln::read_safetensors(folder.path("model.safetensors"));
  LINNET_REQUIRE_OK(file);
  for (const auto& [theirs, ours] :
       {std::pair("gate", "router"), std::pair("experts.3.w1", "experts.3.gate"),
        std::pair("experts.0.w2", "experts.0.down"), std::pair("experts.2.w3", "experts.2.up")}) {
    const auto there =
        file->values<float>("model.layers.1.block_sparse_moe." + std::string(theirs) + ".weight");
    LINNET_REQUIRE_OK(there);
    BOOST_TEST(std::ranges::equal(
        *there, test::floats(w, "blocks.1.ffn." + std::string(ours) + ".weight")));
  }
}

BOOST_AUTO_TEST_CASE(t5_aliases) {
  directory d("t5_v1_0_long");
  ln::weights<test::t5_long> w, plain;
  BOOST_TEST(d.load(plain) == "success");
  for (const char* alias :
       {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"})
    d.copy("shared.weight", alias);
  d.copy("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
         "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight");
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));

  // A copy that differs would mean an untied model.
  const std::string other(d.tensor("shared.weight").data.size(), '\1');
  d.tensor("lm_head.weight").data = test::bytes(other);
  BOOST_TEST(d.load(w) ==
             "model.safetensors: lm_head.weight: expected the same values as shared.weight "
             "(one tensor in the model type), got others");
  d.erase("lm_head.weight");

  // One copy alone is enough, whichever it is.
  d.erase("shared.weight");
  d.erase("encoder.embed_tokens.weight");
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));
  d.erase("decoder.embed_tokens.weight");
  BOOST_TEST(d.load(w) ==
             "model.safetensors: shared.weight: expected real [19, 16] (the model type), got no "
             "such tensor");
}

// The copy of a tied tensor in another type: equal values are one tensor, whatever the type.
BOOST_AUTO_TEST_CASE(a_tied_head_in_another_type) {
  directory d("llama_mha_tied");
  ln::weights<test::llama_mha> w, plain;
  const std::string name = "model.embed_tokens.weight";
  std::string wide, narrow, exact;
  for (const float x : d.original.values<float>(name).value()) {
    const auto code = ln::storage::bf16::encode(x);
    narrow += test::raw(code);
    wide += test::raw(static_cast<float>(ln::storage::bf16::decode(code)));
    exact += test::raw(static_cast<double>(ln::storage::bf16::decode(code)));
  }
  d.tensor(name).data = test::bytes(wide);
  BOOST_TEST(d.load(plain) == "success");
  d.copy(name, "lm_head.weight");
  d.tensor("lm_head.weight").type = ln::dtype::bf16;
  d.tensor("lm_head.weight").data = test::bytes(narrow);
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));
  d.tensor("lm_head.weight").type = ln::dtype::f64;
  d.tensor("lm_head.weight").data = test::bytes(exact);
  BOOST_TEST(d.load(w) == "success");
  d.tensor("lm_head.weight").data = test::bytes(exact.replace(0, 1, "\1"));
  BOOST_TEST(d.load(w) ==
             "model.safetensors: lm_head.weight: expected the same values as "
             "model.embed_tokens.weight (one tensor in the model type), got others");
}

BOOST_AUTO_TEST_CASE(shards) {
  directory d("t5_v1_1");
  ln::weights<test::t5_1_1> w, plain;
  BOOST_TEST(d.load(plain) == "success");
  std::filesystem::remove(d.folder.path("model.safetensors"));
  const auto write = [&](const std::string& name, auto first, auto last) {
    LINNET_REQUIRE_OK(
        ln::write_safetensors(d.folder.path(name), std::vector(first, last), {{"format", "pt"}}));
  };
  const auto half = d.tensors.begin() + 20;
  const std::string a = "model-00001-of-00002.safetensors", b = "model-00002-of-00002.safetensors";
  write(a, d.tensors.begin(), half);
  write(b, half, d.tensors.end());
  nlohmann::json map;
  for (auto t = d.tensors.begin(); t != d.tensors.end(); ++t) map[t->name] = t < half ? a : b;
  const auto load = [&](const std::string& text) {
    LINNET_REQUIRE_OK(
        ln::write_file(d.folder.path("model.safetensors.index.json"), test::bytes(text)));
    const std::string got = test::message(ln::load_hugging_face(w, d.folder.path()));
    return got.starts_with(d.folder.path()) ? got.substr(d.folder.path().size() + 1) : got;
  };
  const auto index = [](const nlohmann::json& of) {
    return nlohmann::json{{"metadata", {{"total_size", 7}}}, {"weight_map", of}}.dump();
  };
  BOOST_TEST(load(index(map)) == "success");
  BOOST_TEST(test::same_bytes(w, plain));

  const std::string said = "model.safetensors.index.json: ";
  const auto changed = [&](const std::string& key, const nlohmann::json& value) {
    nlohmann::json other = map;
    other[key] = value;
    return load(index(other));
  };
  const std::string right = map["shared.weight"], wrong = right == a ? b : a;
  BOOST_TEST(changed("shared.weight", wrong) ==
             said + "shared.weight: expected it in " + wrong + ", got it in " + right);
  BOOST_TEST(changed("more.weight", b) ==
             said + "more.weight: expected it in " + b + ", got no such tensor");
  BOOST_TEST(changed("more.weight", "absent.safetensors").starts_with("absent.safetensors: "));
  for (const char* name : {"../x.safetensors", "/etc/passwd", "", ".", "c:\\x"})
    BOOST_TEST(changed("more.weight", name) ==
               said + "more.weight: expected the name of a file beside the index, got " +
                   ln::detail::json_quoted(name));
  BOOST_TEST(changed("more.weight", "\x1b[31m").ends_with("beside the index, got \"?[31m\""));
  BOOST_TEST(changed("more.weight", 3).ends_with("a file beside the index, got 3"));
  BOOST_TEST(changed("more.weight", {1}).ends_with("the name of a file, got an array"));
  auto fewer = map;
  fewer.erase("lm_head.weight");
  BOOST_TEST(load(index(fewer)) == said + "lm_head.weight: expected no such tensor, got it in " +
                                       map["lm_head.weight"].get<std::string>());
  BOOST_TEST(load("{}") == said + "weight_map: expected an object, got none");
  BOOST_TEST(load("[]") == said + "content: expected a JSON object, got an array");
  BOOST_TEST(load(R"({"weight_map": []})") ==
             said + "weight_map: expected an object, got an array");
  BOOST_TEST(load(R"({"weight_map": {"a": "x", "a": "x"}})") ==
             said + "a: expected each name once, got this one twice");
  BOOST_TEST(load("{").starts_with(said + "content: expected JSON"));
  // A model.safetensors goes before, as with Transformers.
  write("model.safetensors", d.tensors.begin(), d.tensors.end());
  BOOST_TEST(load("{") == "success");
}

BOOST_AUTO_TEST_CASE(untied_t5_has_its_own_head) {
  directory d("t5_v1_1");
  ln::weights<test::t5_1_1> w;
  d.copy("shared.weight", "encoder.embed_tokens.weight");
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(!test::same_bits(test::floats(w, "head.weight"), test::floats(w, "embedding.weight")));
  d.erase("lm_head.weight");
  BOOST_TEST(d.load(w) ==
             "model.safetensors: lm_head.weight: expected real [43, 18] (the model type), got no "
             "such tensor");
}

BOOST_AUTO_TEST_CASE(gpt2_without_prefix_and_with_masks) {
  directory d("gpt2");
  ln::weights<test::gpt2> w, plain;
  BOOST_TEST(d.load(plain) == "success");
  for (auto& t : d.tensors) t.name = t.name.substr(std::string_view("transformer.").size());
  const std::string mask(32 * 32, '\1');
  d.tensors.push_back({"h.0.attn.bias", ln::dtype::boolean, {1, 1, 32, 32}, test::bytes(mask)});
  d.tensors.push_back({"h.1.attn.masked_bias", ln::dtype::f32, {}, test::bytes(mask).first(4)});
  d.copy("wte.weight", "lm_head.weight");
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));
  d.tensors.push_back({"h.0.attn.biases", ln::dtype::boolean, {1, 1, 32, 32}, test::bytes(mask)});
  BOOST_TEST(d.load(w) ==
             "model.safetensors: h.0.attn.biases: expected only tensors of the model type, got "
             "BOOL [1, 1, 32, 32]");
}

// The file of the backbone alone has no prefix; filters have three dimensions.
BOOST_AUTO_TEST_CASE(mamba_without_prefix) {
  directory d("mamba");
  ln::weights<test::mamba> w, plain;
  BOOST_TEST(d.load(plain) == "success");
  for (auto& t : d.tensors) t.name = t.name.substr(std::string_view("backbone.").size());
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));
  d.tensor("layers.2.mixer.conv1d.weight").shape = {48, 4};
  BOOST_TEST(d.load(w) ==
             "model.safetensors: layers.2.mixer.conv1d.weight: expected real [48, 1, 4] (the model "
             "type), got F32 [48, 4]");
}

BOOST_AUTO_TEST_CASE(llama_leftovers) {
  directory d("llama_mha_tied");
  ln::weights<test::llama_mha> w, plain;
  BOOST_TEST(d.load(plain) == "success");
  const std::string frequencies(8, '\0');
  d.tensors.push_back({"model.layers.1.self_attn.rotary_emb.inv_freq",
                       ln::dtype::f32,
                       {2},
                       test::bytes(frequencies)});
  d.copy("model.embed_tokens.weight", "lm_head.weight");
  BOOST_TEST(d.load(w) == "success");
  BOOST_TEST(test::same_bytes(w, plain));
  d.tensors.push_back(
      {"model.layers.2.input_layernorm.weight", ln::dtype::f32, {2}, test::bytes(frequencies)});
  BOOST_TEST(d.load(w) ==
             "model.safetensors: model.layers.2.input_layernorm.weight: expected only tensors of "
             "the model type, got F32 [2]");
}

BOOST_AUTO_TEST_CASE(tensor_mismatches) {
  directory d("llama_mha_tied");
  auto w = test::distinct<test::llama_mha>();
  const auto before = w.clone();
  d.tensor("model.norm.weight").shape = {4, 4};
  BOOST_TEST(
      d.load(w) ==
      "model.safetensors: model.norm.weight: expected real [16] (the model type), got F32 [4, 4]");
  d.tensor("model.norm.weight").shape = {16};
  d.tensor("model.norm.weight").type = ln::dtype::u32;
  BOOST_TEST(
      d.load(w) ==
      "model.safetensors: model.norm.weight: expected real [16] (the model type), got U32 [16]");
  d.erase("model.norm.weight");
  BOOST_TEST(d.load(w) ==
             "model.safetensors: model.norm.weight: expected real [16] (the model type), got no "
             "such tensor");
  BOOST_TEST(test::same_bytes(w, before));
}

BOOST_AUTO_TEST_CASE(element_types) {
  directory d("gpt2_inner");
  ln::weights<test::gpt2_inner> exact, w;
  BOOST_TEST(d.load(exact) == "success");
  // The same file in F64, BF16 and F16; the last two lose digits, and say how many.
  const auto convert = [&](ln::dtype type, auto encode) {
    directory converted("gpt2_inner");
    std::vector<std::string> values;
    for (auto& t : converted.tensors) {
      std::string& text = values.emplace_back();
      for (const double x : d.original.values<double>(t.name).value()) text += test::raw(encode(x));
      t.type = type;
    }
    for (std::size_t i = 0; i < values.size(); ++i)
      converted.tensors[i].data = test::bytes(values[i]);
    BOOST_TEST(converted.load(w) == "success");
  };
  convert(ln::dtype::f64, [](double x) { return x; });
  BOOST_TEST(test::same_bytes(w, exact));
  convert(ln::dtype::bf16, [](double x) { return ln::storage::bf16::encode(x); });
  for (const auto& tensor : ln::detail::leaves_of(exact)) {
    const auto a = test::floats(exact, tensor.name), b = test::floats(w, tensor.name);
    for (std::size_t i = 0; i < a.size(); ++i)
      BOOST_REQUIRE_EQUAL(b[i], ln::storage::bf16::decode(ln::storage::bf16::encode(a[i])));
  }
  // Truncation to F16 of normal numbers, by hand.
  convert(ln::dtype::f16, [](double x) {
    int exponent = 0;
    const double fraction = std::frexp(std::abs(x), &exponent);
    if (exponent < -13) return std::uint16_t{0};
    return static_cast<std::uint16_t>((x < 0 ? 0x8000 : 0) | (exponent + 14) << 10 |
                                      (static_cast<int>(fraction * 2048) & 1023));
  });
  for (const auto& tensor : ln::detail::leaves_of(exact)) {
    const auto a = test::floats(exact, tensor.name), b = test::floats(w, tensor.name);
    for (std::size_t i = 0; i < a.size(); ++i)
      BOOST_REQUIRE_LE(std::abs(a[i] - b[i]), std::abs(a[i]) * 0.001f + 6.2e-5f);
  }
}

BOOST_AUTO_TEST_CASE(gradients_of_a_fixture) {
  // A prefix picks tensors out of a file: the goldens' gradients, in the layout of the weights.
  ln::weights<test::gpt2, double> g;
  const auto file = ln::read_safetensors(test::golden("gpt2") + "/expected.safetensors");
  LINNET_REQUIRE_OK(file);
  LINNET_REQUIRE_OK(ln::load_safetensors(g, *file, ln::naming::hugging_face{}, "grad."));
  const auto bias = file->values<double>("grad.transformer.h.0.attn.c_attn.bias").value();
  const auto k = test::leaf(g, "blocks.0.attention.k.bias");
  BOOST_TEST(ln::detail::load_as<double>(k.data) == bias[24]);
}

BOOST_AUTO_TEST_CASE(policies_that_hugging_face_does_not_know) {
  using ln::hf_kind, ln::hf_kind_of;
  constexpr ln::t5_shape s = test::t5_shape_1_0;
  constexpr ln::decoder_shape mha = test::mha_shape;
  static_assert(hf_kind_of<ln::t5<s, ln::ffn::swiglu>>() == hf_kind::t5);
  static_assert(hf_kind_of<ln::t5<s, ln::ffn::skip>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::t5<s, ln::encoder_stack<ln::ffn::gelu>>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::t5<s, ln::ffn::reparam<2>>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::decoder<mha, ln::ffn::gated_gelu>>() == hf_kind::llama);
  static_assert(hf_kind_of<ln::decoder<mha, ln::ffn::relu>>() == hf_kind::none);
  static_assert(hf_kind_of<test::gpt2>() == hf_kind::gpt2);
  static_assert(hf_kind_of<test::gpt2::with_ffn<ln::ffn::swiglu>>() == hf_kind::none);
}

BOOST_AUTO_TEST_CASE(absent_files) {
  const test::scratch_folder folder;
  ln::weights<test::gpt2> w;
  BOOST_TEST(test::message(ln::load_hugging_face(w, folder.path())) ==
             folder.path("config.json") +
                 ": expected a readable file, got No such file or directory");
  LINNET_REQUIRE_OK(
      ln::write_file(folder.path("config.json"), test::bytes(ln::make_hf_config<test::gpt2>())));
  BOOST_TEST(test::message(ln::load_hugging_face(w, folder.path())) ==
             folder.path("model.safetensors") +
                 ": expected a readable file, got No such file or directory");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hugging_face_test
