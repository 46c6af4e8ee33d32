// SPDX-License-Identifier: MIT
// Weights from and to GGUF files: the golden models as llama.cpp's converter writes them, round
// trips, and files of other models.

#include <linnet/gguf.hpp>

#include "io/models.hpp"
#include "support/allocations.hpp"
#include "support/models.hpp"

namespace test::gguf_model_test {

namespace {

using llama_mqa_interleaved = ln::decoder<mqa_shape>;
using headless_bert = bert::with_head<ln::head::none>;
using pooled_bert = bert::with_head<ln::head::pooler>;

std::string golden_gguf(const std::string& name) { return golden("gguf/" + name + ".gguf"); }

/// Packs a file tensor by tensor: what pack() makes of its weights, in memory for these and for the
/// largest tensor. Weights and packed weights at a time would not fit into it.
template <class M, class T = float>
void check_packed(const std::string& path) {
  ln::weights<M, T> w;
  LINNET_REQUIRE_OK(ln::load_gguf(w, path));
  const auto all = ln::pack(w);
  index most = 0;
  w.visit([&](const auto&, const ln::tensor_info& info, const auto& leaf) {
    const auto part = [](index n, auto* values) {
      return values ? ln::round_up(n * index{sizeof *values}, ln::alignment) : 0;
    };
    if constexpr (requires { leaf.scales; })
      most = (std::max)(most, part(info.size(), leaf.data) + part(info.size() / 32, leaf.scales) +
                                  part(info.size() / 32, leaf.zeros));
    else
      most = (std::max)(most, part(info.size(), leaf));
  });
  std::vector<std::byte> room(at(ln::packed<M, T>::bytes() + most + ln::alignment));
  BOOST_TEST(most < std::ssize(w.block()));
  const ln::memory_scope scope(room);
  const std::size_t peak = peak_of([&] {
    const auto p = ln::pack_gguf<M, T>(path);
    LINNET_REQUIRE_OK(p);
    BOOST_TEST(std::ranges::equal(p->block(), all.block()), path);
  });
  BOOST_TEST(peak < 65536u, peak);
}

/// Loads a golden model as GGUF and from Hugging Face's files: equal weights.
template <class M, class T = float>
void check_same_as_hugging_face(const std::string& gguf, const std::string& hugging_face) {
  ln::weights<M, T> a, b;
  const std::size_t peak = peak_of([&] { LINNET_REQUIRE_OK(ln::load_gguf(a, golden_gguf(gguf))); });
  BOOST_TEST(peak < 65536u, peak);
  LINNET_REQUIRE_OK(ln::load_hugging_face(b, golden(hugging_face)));
  BOOST_TEST(std::ranges::equal(a.block(), b.block()), gguf);
  check_packed<M, T>(golden_gguf(gguf));
}

/// A file's metadata and tensors, to be changed and written again.
struct changeable {
  explicit changeable(const std::string& path) {
    const auto file = ln::read_gguf(path);
    LINNET_REQUIRE_OK(file);
    for (const ln::gguf_value& value : file->metadata()) metadata.emplace_back(value);
    for (const ln::gguf_tensor& one : file->tensors()) {
      auto floats_of = file->values(one.name);
      LINNET_REQUIRE_OK(floats_of);
      values.push_back(*std::move(floats_of));
      tensors.push_back(
          {std::string(one.name), one.type, {one.shape().begin(), one.shape().end()}, {}});
    }
  }
  std::vector<ln::gguf_entry> metadata;
  std::vector<std::vector<float>> values;
  std::vector<ln::gguf_named_tensor> tensors;

  void set(const ln::gguf_entry& to) {
    drop(to.key);
    metadata.push_back(to);
  }
  void drop(const std::string& key) {
    std::erase_if(metadata, [&](const auto& one) { return one.key == key; });
  }
  std::size_t at(const std::string& name) const {
    const auto found = std::ranges::find(tensors, name, &ln::gguf_named_tensor::name);
    BOOST_REQUIRE(found != tensors.end());
    return static_cast<std::size_t>(found - tensors.begin());
  }
  void write(const std::string& path) {
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].values = values[i];
    LINNET_REQUIRE_OK(ln::write_gguf(path, metadata, tensors));
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(gguf_model)

BOOST_AUTO_TEST_CASE(goldens) {
  check_same_as_hugging_face<llama_mqa>("llama", "llama_mqa_tied");
  check_same_as_hugging_face<llama_mqa_interleaved>("llama", "llama_mqa_tied");
  check_same_as_hugging_face<gpt2_inner>("gpt2", "gpt2_inner");
  check_same_as_hugging_face<t5_long>("t5", "t5_v1_0_long");
  check_same_as_hugging_face<headless_bert>("bert", "bert");
  check_same_as_hugging_face<gpt2_inner, double>("gpt2", "gpt2_inner");
  check_same_as_hugging_face<ln::quantized<gpt2_inner, ln::storage::bf16>>("gpt2", "gpt2_inner");
}

BOOST_AUTO_TEST_CASE(round_trips) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto check = [&](auto model) {
    using M = decltype(model);
    const auto w = distinct<M>();
    ln::weights<M> again;
    LINNET_REQUIRE_OK(ln::save_gguf(w, path));
    LINNET_REQUIRE_OK(ln::load_gguf(again, path));
    BOOST_TEST(std::ranges::equal(w.block(), again.block()));
    check_packed<M>(path);
  };
  check(llama_gqa{});  // untied
  check(llama_gqa_interleaved{});
  check(gpt2_inner{});
  check(t5_1_1{});
  check(headless_bert{});
  check(pooled_bert{});
  check(bert_sequence{});
  // Heads that a type has not are left out.
  ln::weights<bert_sequence::with_head<ln::head::none>> without;
  LINNET_REQUIRE_OK(ln::load_gguf(without, path));
  BOOST_TEST(std::ranges::equal(without.block(),
                                distinct<bert_sequence>().block().first(without.block().size())));

  // Both orders of rotary pairs are one in the file.
  ln::weights<llama_gqa> half = distinct<llama_gqa>();
  ln::weights<llama_gqa_interleaved> interleaved, from_file;
  LINNET_REQUIRE_OK(ln::save_gguf(half, path));
  const std::string bytes_of_half = contents(path);
  LINNET_REQUIRE_OK(ln::load_gguf(interleaved, path));
  LINNET_REQUIRE_OK(ln::save_gguf(interleaved, path));
  BOOST_TEST((contents(path) == bytes_of_half));
  BOOST_TEST(!std::ranges::equal(half.block(), interleaved.block()));

  const auto file = ln::read_gguf(path);
  LINNET_REQUIRE_OK(file);
  BOOST_TEST(*file->get<std::string_view>("general.architecture") == "llama");
  BOOST_TEST(*file->get<std::string_view>("tokenizer.ggml.model") == "no_vocab");
  BOOST_TEST(*file->get<int>("llama.attention.head_count_kv") == 2);
  BOOST_TEST(file->find("blk.2.ffn_down.weight")->description() == "F32 [24, 44]");
}

// llama.cpp does not load a T5 without it.
BOOST_AUTO_TEST_CASE(t5_names_a_context_length) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto written = [&](std::vector<ln::gguf_entry> notes) {
    LINNET_REQUIRE_OK(ln::save_gguf(distinct<t5_1_1>(), path, ln::ggml_type::f32, notes));
    const auto file = ln::read_gguf(path);
    LINNET_REQUIRE_OK(file);
    return *file->get<int>("t5.context_length");
  };
  BOOST_TEST(written({}) == 512);
  BOOST_TEST(written({{"t5.context_length", 64u}}) == 64);
}

// Matrices of whole blocks become blocks; what is loaded again has their values.
BOOST_AUTO_TEST_CASE(blocks) {
  constexpr ln::decoder_shape shape{.d_model = 64,
                                    .d_ff = 48,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .layers = 1,
                                    .vocabulary = 5,
                                    .context = 4};
  using M = ln::decoder<shape, ln::position::rope_half>;
  ln::weights<M> w, again;
  ln::initialize(w, ln::seed{3});
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  std::vector<ln::gguf_entry> notes{{"tokenizer.ggml.model", "gpt2"}, {"general.name", "x"}};
  for (const auto type : {ln::ggml_type::q8_0, ln::ggml_type::q4_1, ln::ggml_type::f16}) {
    LINNET_REQUIRE_OK(ln::save_gguf(w, path, type, notes));
    const auto file = ln::read_gguf(path);
    LINNET_REQUIRE_OK(file);
    BOOST_TEST(*file->get<std::string_view>("tokenizer.ggml.model") == "gpt2");
    BOOST_TEST((file->find("token_embd.weight")->type == type));
    BOOST_TEST((file->find("blk.0.ffn_down.weight")->type ==
                (type == ln::ggml_type::f16 ? type : ln::ggml_type::f32)));  // rows of 48
    BOOST_TEST((file->find("output_norm.weight")->type == ln::ggml_type::f32));
    LINNET_REQUIRE_OK(ln::load_gguf(again, path));
    const auto embedding = file->values("token_embd.weight");
    LINNET_REQUIRE_OK(embedding);
    BOOST_TEST(std::ranges::equal(*embedding, floats(again, "embedding.weight")));
    double most = 0;
    const auto x = floats(w, "blocks.0.attention.q.weight");
    const auto y = floats(again, "blocks.0.attention.q.weight");
    for (std::size_t i = 0; i < x.size(); ++i)
      most = (std::max)(most, std::abs(static_cast<double>(x[i] - y[i])));
    BOOST_TEST(most > 0);
    BOOST_TEST(most < (type == ln::ggml_type::q4_1 ? 0.05 : 0.005));
  }
  BOOST_TEST(message(ln::save_gguf(w, path, ln::ggml_type::q6_k)) ==
             path + ": type: expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1, got Q6_K");
}

// The real file of all-MiniLM-L6-v2 keeps its numbers; LINNET_DATA has it in the folder minilm.
BOOST_AUTO_TEST_CASE(minilm) {
  const char* const data = std::getenv("LINNET_DATA");
  const std::string from = (data ? data : ".") + std::string("/minilm");
  if (!std::filesystem::is_regular_file(from + "/model.safetensors")) {
    without_data.insert(boost::unit_test::framework::current_test_case().p_id);
    return;
  }
  using M = ln::zoo::minilm_l6::with_head<ln::head::none>;
  const scratch_folder folder;
  ln::weights<M> w, again;
  LINNET_REQUIRE_OK(ln::load_hugging_face(w, from));
  LINNET_REQUIRE_OK(ln::save_gguf(w, folder.path("m.gguf")));
  LINNET_REQUIRE_OK(ln::load_gguf(again, folder.path("m.gguf")));
  BOOST_TEST(std::ranges::equal(w.block(), again.block()));
}

// RoBERTa is llama.cpp's BERT: its file begins with the first token's position, as the converter's.
BOOST_AUTO_TEST_CASE(positions_of_roberta) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto check = [&](auto model) {
    using M = decltype(model);
    const auto w = distinct<M>();
    ln::weights<M> again;
    LINNET_REQUIRE_OK(ln::save_gguf(w, path));
    LINNET_REQUIRE_OK(ln::load_gguf(again, path));
    const auto file = ln::read_gguf(path);
    LINNET_REQUIRE_OK(file);
    BOOST_TEST(*file->get<std::string_view>("general.architecture") == "bert");
    BOOST_TEST(*file->get<int>("bert.context_length") == 24);
    BOOST_TEST(*file->get<int>("tokenizer.ggml.token_type_count") == 1);
    BOOST_TEST(file->find("position_embd.weight")->description() == "F32 [24, 12]");
    const auto positions = file->values("position_embd.weight");
    LINNET_REQUIRE_OK(positions);
    const ln::index before = M::shape.position_offset * M::d;
    w.visit([&](const ln::parameter_path& at, const auto&, const auto& leaf) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, const float*>)
        if (at.str() == "position.weight")
          BOOST_TEST(std::equal(positions->begin(), positions->end(), leaf + before));
    });
    ln::index differing = 0;
    for (std::size_t i = 0; i < w.block().size(); ++i)
      differing += w.block()[i] != again.block()[i];
    BOOST_TEST(differing > 0);
    BOOST_TEST(differing <= before * ln::index{sizeof(float)});  // those of padding alone
    check_packed<M>(path);
  };
  check(roberta::with_head<ln::head::none>{});
  check(roberta_sequence{});

  // The golden model gives the same states from both files.
  using M = roberta::with_head<ln::head::none>;
  ln::weights<M> w, again;
  LINNET_REQUIRE_OK(ln::load_hugging_face(w, golden("roberta")));
  LINNET_REQUIRE_OK(ln::save_gguf(w, path));
  LINNET_REQUIRE_OK(ln::load_gguf(again, path));
  const std::vector<ln::token> ids{0, 7, 30, 2};
  const auto states_of = [&](const ln::weights<M>& of) {
    const auto packed = ln::pack(of);
    auto run = ln::embedder<M>::open(packed, {.target = 4});
    LINNET_REQUIRE_OK(run);
    const auto states = run->hidden({.tokens = ids.data(), .batch = 1, .length = 4});
    return std::vector<float>(states.begin(), states.end());
  };
  BOOST_TEST(states_of(w).size() == 48u);
  BOOST_TEST((states_of(w) == states_of(again)));
}

// What llama.cpp reads of an encoder beside its tensors.
BOOST_AUTO_TEST_CASE(metadata_of_encoders) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto saved = [&](const auto& w, std::vector<ln::gguf_entry> notes = {}) {
    LINNET_REQUIRE_OK(ln::save_gguf(w, path, ln::ggml_type::f32, std::move(notes)));
    auto file = ln::read_gguf(path);
    LINNET_REQUIRE_OK(file);
    return *std::move(file);
  };
  const auto pooling = [](const ln::gguf& file) { return *file.get<int>("bert.pooling_type"); };
  const ln::gguf plain = saved(distinct<headless_bert>());
  BOOST_TEST(*plain.get<bool>("bert.attention.causal") == false);
  BOOST_TEST(*plain.get<int>("tokenizer.ggml.token_type_count") == 2);
  BOOST_TEST(pooling(plain) == 1);
  BOOST_TEST(!plain.value("bert.classifier.output_labels"));
  BOOST_TEST(pooling(saved(distinct<headless_bert>(), {{"bert.pooling_type", 2u}})) == 2);
  const ln::gguf classes = saved(distinct<bert_sequence>());
  BOOST_TEST(pooling(classes) == 4);
  BOOST_TEST(classes.strings("bert.classifier.output_labels")->size() == 3);
  BOOST_TEST(classes.find("cls.output.weight")->description() == "F32 [3, 12]");
}

constexpr ln::decoder_shape block_shape{.d_model = 64,
                                        .d_ff = 96,
                                        .heads = 2,
                                        .kv_heads = 2,
                                        .layers = 1,
                                        .vocabulary = 40,
                                        .context = 4};
using block_llama = ln::decoder<block_shape, ln::position::rope_half>;
using block_gpt2 = gpt2_of<block_shape>;
using block_bert = ln::encoder<
    ln::encoder_shape{
        .d_model = 64, .d_ff = 96, .heads = 2, .layers = 1, .vocabulary = 40, .context = 4},
    ln::head::none>;

// Quantized and saved is saved quantized: both are llama.cpp's rounding.
BOOST_AUTO_TEST_CASE(rounded_before_or_while_saved) {
  namespace storage = ln::storage;
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto check = [&]<class M, class S>(M, S, ln::ggml_type type) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{4});
    LINNET_REQUIRE_OK(ln::save_gguf(w, path, type));
    const std::string want = contents(path);
    LINNET_REQUIRE_OK(ln::save_gguf(ln::quantize<S>(w), path));
    BOOST_TEST((contents(path) == want), S::name);
  };
  check(block_llama{}, storage::q8_0{}, ln::ggml_type::q8_0);
  check(block_llama{}, storage::q4_0{}, ln::ggml_type::q4_0);
  check(block_llama{}, storage::q4_1{}, ln::ggml_type::q4_1);
  check(block_gpt2{}, storage::q4_1{}, ln::ggml_type::q4_1);
  check(block_bert{}, storage::q8_0{}, ln::ggml_type::q8_0);
}

// Blocks made elsewhere are kept: they are saved byte for byte, and stand for the floats that an
// f32 model loads.
BOOST_AUTO_TEST_CASE(blocks_are_kept) {
  namespace storage = ln::storage;
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const auto blocks = ln::read_gguf(golden_gguf("blocks"));
  LINNET_REQUIRE_OK(blocks);
  const auto check = [&]<class M, class S>(M, S) {
    using Q = ln::quantized<M, S>;
    ln::weights<M> w, floats;
    ln::weights<Q> kept;
    ln::initialize(w, ln::seed{4});
    LINNET_REQUIRE_OK(ln::save_gguf(ln::quantize<S>(w), path));
    std::string file = contents(path);
    // All golden blocks of finite numbers, over and over, instead of what the file holds.
    const auto parsed = ln::parse_gguf(bytes(file), path);
    LINNET_REQUIRE_OK(parsed);
    std::size_t replaced = 0;
    for (const ln::gguf_tensor& tensor : parsed->tensors()) {
      if (tensor.type == ln::ggml_type::f32) continue;
      const auto size = static_cast<std::size_t>(ln::bytes_per_block(tensor.type));
      const std::string name(ln::name_of(tensor.type));
      const ln::gguf_tensor& from = *blocks->find(name);
      const auto values = blocks->values(name);
      LINNET_REQUIRE_OK(values);
      const std::size_t count = from.data.size() / size;
      const auto finite = [&](std::size_t b) {
        return std::ranges::all_of(std::span(*values).subspan(32 * b, 32),
                                   [](float x) { return ln::is_finite(x); });
      };
      char* const to =
          file.data() + (reinterpret_cast<const char*>(tensor.data.data()) - file.data());
      for (std::size_t i = 0; i < tensor.data.size() / size; ++i) {
        std::size_t b = replaced++ % count;
        while (!finite(b)) b = (b + 1) % count;
        std::memcpy(to + i * size, from.data.data() + b * size, size);
      }
    }
    BOOST_TEST(replaced > 400);
    LINNET_REQUIRE_OK(ln::load_gguf(kept, bytes(file)));
    LINNET_REQUIRE_OK(ln::save_gguf(kept, path));
    check_packed<Q>(path);
    BOOST_TEST((contents(path) == file), storage::name_of<S>());
    LINNET_REQUIRE_OK(ln::load_gguf(floats, bytes(file)));
    BOOST_TEST(std::ranges::equal(decoded<M>(kept).block(), floats.block()));
    // A file of linnet's keeps them, too.
    const std::string own = folder.path("x.safetensors");
    ln::weights<Q> again;
    LINNET_REQUIRE_OK(ln::save_safetensors(kept, own));
    LINNET_REQUIRE_OK(ln::load_safetensors(again, own));
    BOOST_TEST(std::ranges::equal(kept.block(), again.block()));
  };
  check(block_llama{},
        storage::per_role<storage::q4_1, storage::embedding<storage::q8_0>,
                          storage::head<storage::q8_0>, storage::ffn_down<storage::q4_0>>{});
  check(block_gpt2{}, storage::q8_0{});
}

BOOST_AUTO_TEST_CASE(blocks_of_other_types) {
  namespace storage = ln::storage;
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  ln::weights<block_llama> w;
  ln::initialize(w, ln::seed{4});
  auto four = ln::quantize<storage::q4_1>(w);
  const std::vector<std::byte> before(four.block().begin(), four.block().end());
  for (const auto& [type, got] :
       {std::pair(ln::ggml_type::f32, "F32"), {ln::ggml_type::q4_0, "Q4_0"}}) {
    LINNET_REQUIRE_OK(ln::save_gguf(w, path, type));
    BOOST_TEST(message(ln::load_gguf(four, path)) ==
               path +
                   ": token_embd.weight: expected Q4_1 (the model type; load others into the "
                   "f32 model and quantize() it), got " +
                   got + " [40, 64]");
    BOOST_TEST(std::ranges::equal(four.block(), before));
  }
  // The file has one tensor for q, k and v.
  ln::weights<block_gpt2> g;
  ln::initialize(g, ln::seed{4});
  using mixed = storage::per_role<storage::q4_1, storage::attention_k<storage::q8_0>>;
  BOOST_TEST(message(ln::save_gguf(ln::quantize<mixed>(g), path)) ==
             path +
                 ": blk.0.attn_qkv.weight: expected one storage type for all matrices that the "
                 "file joins here, got several");
}

namespace {

/// Loads changed files of `M`: each is refused, and no weight is written.
template <class M>
struct refuser {
  explicit refuser(const std::string& name)
      : good(golden_gguf(name)),
        w(distinct<M>()),
        before(w.block().begin(), w.block().end()),
        path(folder.path("x.gguf")) {}
  scratch_folder folder;
  changeable good;
  ln::weights<M> w;
  std::vector<std::byte> before;
  std::string path;

  template <class Change>
  void operator()(const std::string& expected, Change&& change) {
    changeable file = good;
    change(file);
    file.write(path);
    BOOST_TEST(message(ln::load_gguf(w, path)) == path + ": " + expected);
    BOOST_TEST(std::ranges::equal(w.block(), before), expected);
    BOOST_TEST(message(ln::pack_gguf<M>(path)) == path + ": " + expected);
  }
  void with(const ln::gguf_entry& one, const std::string& expected) {
    (*this)(one.key + ": expected " + expected, [&](changeable& f) { f.set(one); });
  }
  void without(const std::string& key, const std::string& expected) {
    (*this)(key + ": expected " + expected, [&](changeable& f) { f.drop(key); });
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(refusals_of_encoders) {
  refuser<headless_bert> refused("bert");
  const auto with = [&](const ln::gguf_entry& one, const std::string& expected) {
    refused.with(one, expected);
  };
  const auto without = [&](const std::string& key, const std::string& expected) {
    refused.without(key, expected);
  };
  with({"general.architecture", "nomic-bert"}, "bert (the model type), got string nomic-bert");
  with({"bert.block_count", 3u}, "2 (the model type), got u32 3");
  with({"bert.context_length", 512u}, "24 (the model type), got u32 512");
  with({"bert.embedding_length", 16u}, "12 (the model type), got u32 16");
  with({"bert.feed_forward_length", 24u}, "20 (the model type), got u32 24");
  with({"bert.attention.head_count", 2u}, "3 (the model type), got u32 2");
  with({"bert.attention.layer_norm_epsilon", 1e-12f}, "0.003 (the model type), got f32 1e-12");
  with({"bert.attention.causal", true}, "false (the model type), got bool true");
  with({"bert.attention.causal", 0u}, "false (the model type), got u32 0");
  without("bert.attention.causal",
          "false (the model type), got no such metadata, which means true");
  with({"tokenizer.ggml.token_type_count", 1u}, "2 (the model type), got u32 1");
  without("tokenizer.ggml.token_type_count", "2 (the model type), got no such metadata");
  refused("token_types.weight: expected [2, 12] (the model type), got F32 [3, 12]",
          [](changeable& f) {
            f.tensors[f.at("token_types.weight")].shape = {3, 12};
            f.values[f.at("token_types.weight")].resize(36);
          });
  refuser<pooled_bert> no_pooler("bert");
  no_pooler("cls.weight: expected [12, 12] (the model type), got no such tensor",
            [](changeable&) {});
}

BOOST_AUTO_TEST_CASE(refusals) {
  refuser<llama_mqa> refused("llama");
  const auto with = [&](const ln::gguf_entry& one, const std::string& expected) {
    refused.with(one, expected);
  };
  const auto without = [&](const std::string& key, const std::string& expected) {
    refused.without(key, expected);
  };
  with({"general.architecture", "gpt2"}, "llama (the model type), got string gpt2");
  with({"general.architecture", 1u}, "llama (the model type), got u32 1");
  without("general.architecture", "llama (the model type), got no such metadata");
  with({"split.count", std::uint16_t{2}},
       "1, a model in one file (llama-gguf-split --merge joins parts), got u16 2");
  with({"llama.block_count", 3u}, "2 (the model type), got u32 3");
  with({"llama.block_count", 2.f}, "2 (the model type), got f32 2");
  with({"llama.block_count", std::vector<int>{2}}, "2 (the model type), got an array of 1 i32");
  without("llama.block_count", "2 (the model type), got no such metadata");
  with({"llama.context_length", 64u}, "32 (the model type), got u32 64");
  with({"llama.embedding_length", std::uint64_t{1} << 63},
       "24 (the model type), got u64 9223372036854775808");
  with({"llama.feed_forward_length", -34}, "34 (the model type), got i32 -34");
  with({"llama.attention.head_count", 8u}, "4 (the model type), got u32 8");
  with({"llama.attention.head_count_kv", 4u}, "1 (the model type), got u32 4");
  without("llama.attention.head_count_kv",
          "1 (the model type), got no such metadata, which means 4");
  with({"llama.attention.key_length", 6u}, "8 (the model type), got u32 6");
  without("llama.attention.key_length", "8 (the model type), got no such metadata, which means 6");
  with({"llama.rope.dimension_count", 4u}, "8 (the model type), got u32 4");
  with({"llama.rope.freq_base", 5e5f}, "10000 (the model type), got f32 5e+05");
  with({"llama.rope.freq_base", 10000u}, "10000 (the model type), got u32 10000");
  with({"llama.rope.scaling.type", "yarn"}, "none (the model type), got string yarn");
  with({"llama.rope.scaling.factor", 8.f}, "1 (the model type), got f32 8");
  with({"llama.attention.sliding_window", 16u}, "0 (the model type), got u32 16");
  with({"llama.expert_count", 8u}, "0 (the model type), got u32 8");
  with({"llama.vocab_size", 48u}, "47 (the model type), got u32 48");
  with({"llama.attention.layer_norm_rms_epsilon", 1e-6f}, "1e-05 (the model type), got f32 1e-06");

  const std::string one = "blk.1.ffn_up.weight";
  refused(one + ": expected [34, 24] (the model type), got no such tensor",
          [&](changeable& f) { f.tensors[f.at(one)].name = "other"; });
  refused(one + ": expected [34, 24] (the model type), got F32 [24, 34]", [&](changeable& f) {
    f.tensors[f.at(one)].shape = {24, 34};
  });
  refused(one + ": expected [34, 24] (the model type), got F32 [816]",
          [&](changeable& f) { f.tensors[f.at(one)].shape = {816}; });
  refused("output_norm.weight: expected [24] (the model type), got F32 [1, 24]",
          [&](changeable& f) {
            f.tensors[f.at("output_norm.weight")].shape = {1, 24};
          });
  refused("rope_freqs.weight: expected only tensors of the model type, got F32 [4]",
          [&](changeable& f) {
            f.tensors.push_back({"rope_freqs.weight", ln::ggml_type::f32, {4}, {}});
            f.values.emplace_back(4, 1.f);
          });
  refused(
      "output.weight: expected the same values as token_embd.weight (one tensor in the model "
      "type), got others",
      [&](changeable& f) {
        f.tensors.push_back(f.tensors[f.at("token_embd.weight")]);
        f.tensors.back().name = "output.weight";
        f.values.push_back(f.values[f.at("token_embd.weight")]);
        f.values.back()[40] += 1;
      });
}

// What computes the same is read: other types of numbers, defaults, the tied head written twice.
BOOST_AUTO_TEST_CASE(accepted) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  changeable f(golden_gguf("llama"));
  f.set({"llama.block_count", std::uint64_t{2}});
  f.set({"llama.rope.freq_base", 10000.0});
  f.set({"llama.rope.scaling.type", "none"});
  f.set({"llama.expert_count", 0u});
  for (const char* const key :
       {"llama.rope.freq_base", "llama.rope.dimension_count", "llama.vocab_size"})
    f.drop(key);
  const std::size_t table = f.at("token_embd.weight");
  f.tensors.push_back(f.tensors[table]);
  f.tensors.back().name = "output.weight";
  f.values.push_back(f.values[table]);
  f.write(path);
  ln::weights<llama_mqa> w, expected;
  LINNET_REQUIRE_OK(ln::load_gguf(w, path));
  LINNET_REQUIRE_OK(ln::load_gguf(expected, golden_gguf("llama")));
  BOOST_TEST(std::ranges::equal(w.block(), expected.block()));

  f.values[f.at("blk.1.attn_norm.weight")][3] = std::numeric_limits<float>::infinity();
  f.write(path);
  BOOST_TEST(message(ln::load_gguf(w, path, ln::nonfinite::refuse)) ==
             path + ": blk.1.attn_norm.weight: expected finite numbers, got a NaN or an infinity");
  BOOST_TEST(std::ranges::equal(w.block(), expected.block()));
  LINNET_REQUIRE_OK(ln::load_gguf(w, path));
  const std::string in_memory = contents(path);
  ln::weights<llama_mqa> from_memory;
  LINNET_REQUIRE_OK(ln::load_gguf(from_memory, bytes(in_memory)));
  BOOST_TEST(std::ranges::equal(w.block(), from_memory.block()));
}

// Each allocation fails once; names are longer than what a string holds in itself.
BOOST_AUTO_TEST_CASE(failing_allocations) {
  const scratch_folder folder;
  const std::string path = folder.path("a name that is longer than a small string.gguf");
  const auto w = distinct<llama_mqa>();
  ln::weights<llama_mqa> to;
  check_failing_allocations("save_gguf", [&] { return ln::save_gguf(w, path); });
  check_failing_allocations("load_gguf", [&] { return ln::load_gguf(to, path); });
  check_failing_allocations("pack_gguf", [&] { return ln::pack_gguf<llama_mqa>(path); });
  ln::weights<block_llama> floats;
  auto blocks = ln::quantize<ln::storage::q4_1>(floats);
  const std::string kept = path + ".kept";
  check_failing_allocations("save_gguf of blocks", [&] { return ln::save_gguf(blocks, kept); });
  check_failing_allocations("load_gguf of blocks", [&] { return ln::load_gguf(blocks, kept); });
  const std::string file = contents(path);
  check_failing_allocations("parse_gguf", [&] { return ln::parse_gguf(bytes(file)); });
  const auto parsed = ln::read_gguf(path);
  LINNET_REQUIRE_OK(parsed);
  check_failing_allocations("values", [&] { return parsed->values("token_embd.weight"); });
  const auto refusal = [](const auto& r) {
    BOOST_TEST(!r);
    return r.error().code == ln::errc::out_of_memory ? ln::result<void>(r.error())
                                                     : ln::result<void>();
  };
  ln::weights<gpt2_inner> other;
  check_failing_allocations("a refusal", [&] { return refusal(ln::load_gguf(other, *parsed)); });
  check_failing_allocations("get",
                            [&] { return refusal(parsed->get<int>("general.architecture")); });
  check_failing_allocations("array",
                            [&] { return refusal(parsed->array<int>("general.architecture")); });
  check_failing_allocations("strings",
                            [&] { return refusal(parsed->strings("general.architecture")); });
  check_failing_allocations("a bad file", [&] {
    return refusal(ln::parse_gguf(bytes(std::string_view(file).substr(0, 500)), path));
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gguf_model_test
