// SPDX-License-Identifier: MIT
// Encoders in Hugging Face's names: with a prefix and without, gamma and beta, heads that a type
// has not, config.json field by field, and what linnet writes. With LINNET_DATA, MiniLM.

#include "io/models.hpp"

namespace test::hf_encoder_test {

namespace {

using plain_bert = ln::encoder<bert_shape_of(2, 2, 3e-3), ln::head::pooler>;
using headless_bert = ln::encoder<bert_shape_of(2, 2, 3e-3), ln::head::none>;
using token_bert = ln::encoder<bert_shape_of(2, 2, 3e-3), ln::head::token_classification<5>>;

/// The tensors of a fixture under other names; `more` owns the bytes of those that are added.
struct changed_file {
  ln::safetensors original;
  std::vector<ln::named_tensor> tensors;
  std::string more = std::string(at(4096), 0);  // zeros of added tensors

  explicit changed_file(const std::string& fixture) {
    auto file = ln::read_safetensors(golden(fixture) + "/model.safetensors");
    LINNET_REQUIRE_OK(file);
    original = *std::move(file);
    tensors = tensors_of(original);
  }
  void rename(std::string_view from, std::string_view to) {
    for (ln::named_tensor& t : tensors)
      if (const auto place = t.name.find(from); place != t.name.npos)
        t.name.replace(place, from.size(), to);
  }
  void add(const std::string& name, std::vector<index> shape, ln::dtype type) {
    index size = ln::size_of(type);
    for (const index n : shape) size *= n;
    BOOST_REQUIRE_LE(at(size), more.size());
    tensors.push_back(
        {name, type, std::move(shape), bytes(std::string_view(more).substr(0, at(size)))});
  }
  template <class M>
  std::string load(ln::weights<M>& w) const {
    const scratch_folder folder;
    LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("m"), tensors));
    return replaced_folder(
        message(ln::load_safetensors(w, folder.path("m"), ln::naming::hugging_face{})),
        folder.path("m"));
  }
  static std::string replaced_folder(std::string text, const std::string& path) {
    return text.starts_with(path) ? "m" + text.substr(path.size()) : text;
  }
};

template <class M>
ln::weights<M> load(const std::string& fixture) {
  ln::weights<M> w;
  LINNET_REQUIRE_OK(ln::load_hugging_face(w, golden(fixture)));
  return w;
}

/// Written, read back, and the same again.
template <class M>
void round_trip() {
  const scratch_folder folder;
  const auto w = distinct<M>();
  LINNET_REQUIRE_OK(ln::save_hugging_face(w, folder.path()));
  ln::weights<M> again;
  LINNET_REQUIRE_OK(ln::load_hugging_face(again, folder.path()));
  BOOST_TEST(same_bytes(w, again));
  LINNET_REQUIRE_OK(ln::save_safetensors(w, folder.path("own")));
  ln::weights<M> own;
  LINNET_REQUIRE_OK(ln::load_safetensors(own, folder.path("own")));
  BOOST_TEST(same_bytes(w, own));
}

/// What check_config() says of a fixture's config.json with one value in place of another.
template <class M>
std::string verdict(const std::string& fixture, std::string_view from, std::string_view to) {
  const std::string text = replaced(contents(golden(fixture) + "/config.json"), from, to);
  const auto config = ln::parse_hf_config(bytes(text), "c");
  return config ? message(ln::check_config<M>(*config)) : config.error().message();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(hf_encoder)

BOOST_AUTO_TEST_CASE(files_round_trip) {
  round_trip<bert>();
  round_trip<bert_sequence>();
  round_trip<distilbert>();
  round_trip<distilbert_sequence>();
  round_trip<albert>();
  round_trip<plain_bert>();
  round_trip<headless_bert>();
  round_trip<token_bert>();
  round_trip<roberta>();
  round_trip<roberta_sequence>();
  round_trip<roberta::with_head<ln::head::pooler>>();
}

// Files of a BertModel have no prefix; old ones say gamma and beta, and list the positions.
BOOST_AUTO_TEST_CASE(other_names) {
  const auto w = load<bert>("bert");
  for (const std::string prefix : {"bert.", ""})
    for (const bool old : {false, true}) {
      changed_file file("bert");
      if (prefix.empty()) file.rename("bert.", "");
      if (old) {
        file.rename("LayerNorm.weight", "LayerNorm.gamma");
        file.rename("LayerNorm.bias", "LayerNorm.beta");
        file.add(prefix + "embeddings.position_ids", {1, 24}, ln::dtype::i64);
        file.add(prefix + "pooler.dense.weight", {12, 12}, ln::dtype::f32);
        file.add("cls.seq_relationship.weight", {2, 12}, ln::dtype::f32);
      }
      ln::weights<bert> again;
      BOOST_TEST(file.load(again) == "success");
      BOOST_TEST(same_bytes(w, again));
    }
  changed_file tied("bert");
  const auto one = std::find_if(tied.tensors.begin(), tied.tensors.end(), [](const auto& t) {
    return t.name == "bert.embeddings.word_embeddings.weight";
  });
  tied.tensors.push_back({"cls.predictions.decoder.weight", one->type, one->shape, one->data});
  ln::weights<bert> again;
  BOOST_TEST(tied.load(again) == "success");
  tied.tensors.pop_back();
  tied.add("cls.predictions.decoder.weight", {31, 12}, ln::dtype::f32);
  BOOST_TEST(tied.load(again) ==
             "m: cls.predictions.decoder.weight: expected the same values as "
             "bert.embeddings.word_embeddings.weight (one tensor in the model type), got others");
}

// A type without the file's head takes the rest; one with another head misses its tensors.
BOOST_AUTO_TEST_CASE(heads) {
  const changed_file file("bert");
  ln::weights<headless_bert> none;
  BOOST_TEST(file.load(none) == "success");
  BOOST_TEST(same_bits(floats(none, "blocks.1.ffn.wo.weight"),
                       floats(load<bert>("bert"), "blocks.1.ffn.wo.weight")));
  ln::weights<plain_bert> pooled;
  BOOST_TEST(file.load(pooled) ==
             "m: bert.pooler.dense.weight: expected real [12, 12] (the model type), got no such "
             "tensor");
  ln::weights<ln::encoder<bert_shape_of(1, 2, 3e-3), ln::head::sequence_classification<2>>> two;
  BOOST_TEST(changed_file("bert_sequence").load(two) ==
             "m: classifier.weight: expected real [2, 12] (the model type), got F32 [3, 12]");
  changed_file stranger("bert");
  stranger.add("bert.encoder.layer.2.output.dense.bias", {12}, ln::dtype::f32);
  ln::weights<bert> w;
  BOOST_TEST(stranger.load(w) ==
             "m: bert.encoder.layer.2.output.dense.bias: expected only tensors of the model type, "
             "got F32 [12]");
}

BOOST_AUTO_TEST_CASE(configs) {
  BOOST_TEST(verdict<bert>("bert", "\"hidden_size\": 12", "\"hidden_size\": 16") ==
             "c: hidden_size: expected 12 (the model type), got 16");
  BOOST_TEST(verdict<bert>("bert", "\"layer_norm_eps\": 0.003", "\"layer_norm_eps\": 1e-12") ==
             "c: layer_norm_eps: expected 0.003 (the model type), got 1e-12");
  BOOST_TEST(verdict<bert>("bert", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"gelu_new\"") ==
             "c: hidden_act: expected \"gelu\" (the model type), got \"gelu_new\"");
  BOOST_TEST(verdict<bert>("bert", "\"type_vocab_size\": 2", "\"type_vocab_size\": 1") ==
             "c: type_vocab_size: expected 2 (the model type), got 1");
  BOOST_TEST(verdict<bert>("bert", "\"is_decoder\": false", "\"is_decoder\": true") ==
             "c: is_decoder: expected false (the model type), got true");
  BOOST_TEST(verdict<bert>("bert", "\"pad_token_id\": 0",
                           "\"position_embedding_type\": \"relative_key\"") ==
             "c: position_embedding_type: expected \"absolute\" (the model type), got "
             "\"relative_key\"");
  BOOST_TEST(
      verdict<bert>("bert", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false") ==
      "c: tie_word_embeddings: expected true (the model type), got false");
  BOOST_TEST(verdict<distilbert>("distilbert", "\"n_layers\": 2", "\"n_layers\": 3") ==
             "c: n_layers: expected 2 (the model type), got 3");
  BOOST_TEST(verdict<albert>("albert", "\"embedding_size\": 8", "\"embedding_size\": 12") ==
             "c: embedding_size: expected 8 (the model type), got 12");
  BOOST_TEST(verdict<albert>("albert", "\"num_hidden_groups\": 1", "\"num_hidden_groups\": 2") ==
             "c: num_hidden_groups: expected 1 (the model type), got 2");
  BOOST_TEST(verdict<distilbert>("distilbert", "\"distilbert\"", "\"bert\"") ==
             "c: model_type: expected \"distilbert\" (the model type), got \"bert\"");
  BOOST_TEST(verdict<roberta>("roberta", "\"pad_token_id\": 1", "\"pad_token_id\": 0") ==
             "c: pad_token_id: expected 1 (the model type), got 0");
  BOOST_TEST(verdict<roberta>("roberta", "\"max_position_embeddings\": 26",
                              "\"max_position_embeddings\": 24") ==
             "c: max_position_embeddings: expected 26 (the model type), got 24");
  BOOST_TEST(verdict<roberta>("roberta", "\"roberta\"", "\"xlm-roberta\"") == "success");
  BOOST_TEST(verdict<roberta>("roberta", "\"roberta\"", "\"bert\"") ==
             "c: model_type: expected \"roberta\" (the model type), got \"bert\"");
  BOOST_TEST(ln::make_hf_config<roberta>().find("RobertaForMaskedLM") != std::string::npos);
  BOOST_TEST(ln::make_hf_config<bert_sequence>().find("BertForSequenceClassification") !=
             std::string::npos);
  BOOST_TEST(ln::make_hf_config<bert_sequence>().find("\"2\": \"LABEL_2\"") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(kinds) {
  using ln::hf_kind, ln::hf_kind_of;
  constexpr ln::encoder_shape s = bert_shape_of(2, 2, 1e-12), untyped = bert_shape_of(2, 0, 1e-12);
  static_assert(hf_kind_of<ln::encoder<s>>() == hf_kind::bert);
  static_assert(hf_kind_of<ln::encoder<s, ln::norm_placement::pre>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<s, ln::attention::linear<>>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<s, ln::position::none>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<s, ln::tie::untied>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<s, ln::sharing::all>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<s, ln::ffn::swiglu>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<untyped>>() == hf_kind::distilbert);
  static_assert(hf_kind_of<ln::encoder<untyped, ln::head::pooler>>() == hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<untyped, ln::head::sequence_classification<2>>>() ==
                hf_kind::none);
  static_assert(hf_kind_of<ln::encoder<bert_shape_of(2, 0, 1e-5)>>() == hf_kind::none);
  static_assert(hf_kind_of<albert>() == hf_kind::albert);
  static_assert(hf_kind_of<roberta>() == hf_kind::roberta);
  static_assert(hf_kind_of<roberta::with_ffn<ln::ffn::gelu_tanh>>() == hf_kind::none);
  static_assert(hf_kind_of<roberta::with_head<ln::head::none>::with_ffn<ln::ffn::gelu_tanh>>() ==
                hf_kind::roberta);
  for (const auto kind : {hf_kind::bert, hf_kind::distilbert, hf_kind::albert, hf_kind::roberta})
    for (const std::string name : {"embedding.weight", "embedding.norm.bias", "head.bias",
                                   "head.dense.weight", "head.norm.bias", "pooler.weight"})
      BOOST_TEST(ln::linnet_name(kind, ln::hugging_face_name(kind, name)) == name);
}

// A file of linnet's own says what the heads are of.
BOOST_AUTO_TEST_CASE(own_files_tell_types_apart) {
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_safetensors(distinct<headless_bert>(), folder.path("w")));
  ln::weights<ln::encoder<bert_shape_of(2, 2, 1e-5), ln::head::none>> other;
  BOOST_TEST(message(ln::load_safetensors(other, folder.path("w"))) ==
             folder.path("w") + ": eps: expected 1e-05 (the model type), got 0.003");
}

// The real file of all-MiniLM-L6-v2, in the folder minilm of LINNET_DATA if it is there.
BOOST_AUTO_TEST_CASE(minilm) {
  const char* const data = std::getenv("LINNET_DATA");
  const std::string folder = (data ? data : ".") + std::string("/minilm");
  if (!std::filesystem::is_regular_file(folder + "/model.safetensors")) {
    without_data.insert(boost::unit_test::framework::current_test_case().p_id);
    return;
  }
  using M = ln::zoo::minilm_l6;
  ln::weights<M> w;
  LINNET_REQUIRE_OK(ln::load_hugging_face(w, folder));
  const auto p = ln::pack(w);
  const auto expected = ln::read_safetensors(golden("minilm") + "/expected.safetensors");
  LINNET_REQUIRE_OK(expected);
  const auto ids = expected->values<token>("input_ids").value();
  std::vector<index> lengths;
  for (const auto n : expected->values<std::int64_t>("lengths").value()) lengths.push_back(n);
  const index batch = std::ssize(lengths), length = std::ssize(ids) / batch;
  const ln::encoder_batch b{
      .tokens = ids.data(), .lengths = lengths.data(), .batch = batch, .length = length};
  auto run = ln::embedder<M>::open(p, {.batch = batch, .target = length});
  LINNET_REQUIRE_OK(run);
  const auto states = expected->values<float>("hidden.states").value();
  double worst = 0;
  (void)run->hidden(b, [&](index layer, std::span<const float> got) {
    for (index row = 0; row < batch * length; ++row)
      for (index j = 0; j < 64 && row % length < lengths[at(row / length)]; ++j)
        worst = (std::max)(worst, distance_of(got[at(row * 384 + 6 * j)],
                                              states[at((layer * batch * length + row) * 64 + j)]));
  });
  BOOST_TEST(worst < 1e-4);
  BOOST_TEST(distance(run->pooled(b), expected->values<float>("pooled").value()) < 1e-4);
  const auto vectors = run->embed(b);
  BOOST_TEST(distance(vectors, expected->values<float>("embedding").value()) < 1e-5);
  double cosine = 0;
  for (std::size_t j = 0; j < 384; ++j)
    cosine += static_cast<double>(vectors[j]) * static_cast<double>(vectors[384 + j]);
  BOOST_TEST(std::abs(cosine - 0.5493) < 1e-4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hf_encoder_test
