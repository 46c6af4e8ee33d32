// SPDX-License-Identifier: MIT
// Weights in safetensors files under linnet's names: every kind of model and storage comes back bit
// by bit, and files of other models are refused before a weight is touched.

#include "io/models.hpp"

namespace test::weights_file_test {

namespace ln = linnet;

namespace {

/// Saves, loads into fresh weights and compares; returns the file's bytes.
template <class M, class T>
std::string round_trip(const ln::weights<M, T>& w) {
  const test::scratch_folder folder;
  const std::string path = folder.path("w.safetensors");
  LINNET_REQUIRE_OK(ln::save_safetensors(w, path));
  ln::weights<M, T> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(test::same_bytes(w, back));
  const std::string file = test::contents(path);
  ln::weights<M, T> from_memory;
  LINNET_REQUIRE_OK(ln::load_safetensors(from_memory, test::bytes(file)));
  BOOST_TEST(test::same_bytes(w, from_memory));
  return file;
}

using variant = ln::t5<test::t5_shape_1_0, ln::encoder_stack<ln::ffn::skip>,
                       ln::decoder_stack<ln::ffn::reparam<3, ln::expansion{1.5}>>>;
using small = ln::decoder<test::mha_shape>;

/// A feed-forward policy from outside the library.
struct own_ffn : ln::ffn::policy {
  static std::string name() { return "own"; }
  template <ln::index D, ln::index F, bool Bias>
  using layer = ln::chain<ln::named<"first", ln::linear<D, F, Bias>>,
                          ln::named<"second", ln::linear<F, D, Bias>>>;
};

/// Other kinds of other people: their tensors are equal, their names differ.
struct other_ffn : own_ffn {
  static std::string name() { return "other"; }
};
struct unnamed_ffn : ln::ffn::relu {};
struct own_attention : ln::attention::full {
  static std::string name() { return "own"; }
};
struct unnamed_attention : ln::attention::full {};

}  // namespace

using ln::detail::names_itself;
static_assert(names_itself<own_ffn>() && names_itself<other_ffn>() && !names_itself<unnamed_ffn>());
static_assert(names_itself<ln::attention::full>() && names_itself<own_attention>());
static_assert(!names_itself<unnamed_attention>() && !names_itself<ln::attention::policy>());
static_assert(names_itself<ln::attention::prefix>() && names_itself<ln::sharing::all>());

BOOST_AUTO_TEST_SUITE(weights_file)

BOOST_AUTO_TEST_CASE(own_kinds_are_told_apart) {
  const std::string file = round_trip(test::distinct<small::with_ffn<own_ffn>>());
  ln::weights<small::with_ffn<other_ffn>> w;
  BOOST_TEST(test::message(ln::load_safetensors(w, test::bytes(file), {}, "f")) ==
             "f: ffn: expected other (the model type), got own");
  ln::weights<small::with_attention<own_attention>> own;
  const std::string full = round_trip(test::distinct<small>());
  BOOST_TEST(test::message(ln::load_safetensors(own, test::bytes(full), {}, "f")) ==
             "f: attention: expected own (the model type), got full");
}

BOOST_AUTO_TEST_CASE(every_family_round_trips) {
  (void)round_trip(test::distinct<test::llama_gqa>());
  (void)round_trip(test::distinct<test::gpt2>());
  (void)round_trip(test::distinct<test::t5_1_0>());
  const std::string states = round_trip(test::distinct<test::mamba>());
  const auto mamba = ln::parse_safetensors(test::bytes(states));
  LINNET_REQUIRE_OK(mamba);
  BOOST_TEST(mamba->find("blocks.2.attention.A_log")->description() == "F32 [48, 5]");
  BOOST_TEST(mamba->find("blocks.2.attention.D")->description() == "F32 [48]");
  BOOST_TEST(mamba->find("blocks.2.attention.conv.weight")->description() == "F32 [48, 4]");
  BOOST_TEST(mamba->metadata().at("attention") == "mamba<5, 4, 2>");
  (void)round_trip(test::distinct<test::t5_1_1, double>());
  (void)round_trip(
      test::distinct<ln::decoder<test::mha_shape, own_ffn, ln::position::sinusoidal>>());
  (void)round_trip(test::distinct<ln::rwkv4<test::mha_shape>>());
  (void)round_trip(test::distinct<ln::rwkv7<test::mha_shape>>());
  using between_bytes = ln::byte_pooled<test::mha_shape, ln::pooling::paper>;
  const std::string bytes = round_trip(test::distinct<between_bytes>());
  const auto pooled = ln::parse_safetensors(test::bytes(bytes));
  LINNET_REQUIRE_OK(pooled);
  BOOST_TEST(pooled->find("embedder.blocks.1.ffn.wo.weight")->description() == "F32 [16, 256]");
  BOOST_TEST(pooled->find("head.blocks.1.attention.norm.weight")->description() == "F32 [64]");
  BOOST_TEST(pooled->metadata().at("family") == "byte_pooled");
  BOOST_TEST(pooled->metadata().at("byte_between") == "64");
  ln::weights<ln::byte_pooled<test::mha_shape, ln::pooling::of<ln::byte_pooling::paper().under(
                                                   ln::byte_rules::repository)>>>
      other_rules;
  BOOST_TEST(!ln::load_safetensors(other_rules, test::bytes(bytes)));
  const std::string file = round_trip(test::distinct<variant>());
  const auto parsed = ln::parse_safetensors(test::bytes(file));
  LINNET_REQUIRE_OK(parsed);
  BOOST_TEST(parsed->find("encoder.blocks.0.ffn.wi.weight") == nullptr);
  BOOST_TEST(parsed->find("decoder.blocks.2.ffn.w2.weight")->description() == "F32 [36, 36]");
  BOOST_TEST(parsed->find("encoder.relative_bias.weight")->description() == "F32 [32, 4]");
  BOOST_TEST(parsed->find("decoder.norm.weight")->description() == "F32 [24]");
  BOOST_TEST(parsed->metadata().at("format") == "linnet");
  BOOST_TEST(parsed->metadata().at("decoder_ffn") == "reparam 3 expansion 1.5");
  BOOST_TEST(parsed->metadata().at("encoder_ffn") == "skip");
  BOOST_TEST(parsed->metadata().at("eps") == "1e-06");
}

BOOST_AUTO_TEST_CASE(storage_types_round_trip) {
  const auto w = test::distinct<test::llama_gqa>(1.0f / 1024);
  const auto narrow = ln::quantize<ln::storage::bf16>(w);
  BOOST_TEST(ln::parse_safetensors(test::bytes(round_trip(narrow)))
                 .value()
                 .find("embedding.weight")
                 ->description() == "BF16 [41, 24]");
  const auto codes = ln::quantize<ln::storage::int8>(w);
  const std::string file = round_trip(codes);
  const auto parsed = ln::parse_safetensors(test::bytes(file));
  LINNET_REQUIRE_OK(parsed);
  BOOST_TEST(parsed->find("embedding.weight")->description() == "I8 [41, 24]");
  BOOST_TEST(parsed->find("embedding.weight.scales")->description() == "F32 [41]");
  BOOST_TEST(parsed->find("norm.weight")->description() == "F32 [24]");
  BOOST_TEST(parsed->metadata().at("storage") == "int8");

  const auto group = ln::quantize<ln::storage::int4<8>>(w);
  const std::string grouped = round_trip(group);
  const auto four = ln::parse_safetensors(test::bytes(grouped));
  LINNET_REQUIRE_OK(four);
  BOOST_TEST(four->find("embedding.weight")->description() == "U8 [41, 12]");
  BOOST_TEST(four->find("embedding.weight.scales")->description() == "F32 [41, 3]");
  (void)round_trip(ln::quantize<ln::storage::f16>(w));
  (void)round_trip(ln::quantize<ln::storage::nf4>(w));
  (void)round_trip(ln::quantize<ln::storage::fp4<8>>(w));
  (void)round_trip(ln::quantize<ln::storage::ternary>(w));
  const auto three =
      ln::parse_safetensors(test::bytes(round_trip(ln::quantize<ln::storage::int3<0>>(w))));
  LINNET_REQUIRE_OK(three);
  BOOST_TEST(three->find("embedding.weight")->description() == "U8 [41, 9]");
  BOOST_TEST(three->find("embedding.weight.scales")->description() == "F32 [41]");
  const std::string five = round_trip(ln::quantize<ln::storage::int5<>>(w));
  (void)round_trip(ln::quantize<ln::storage::q8_0>(w));
  (void)round_trip(ln::quantize<ln::storage::q4_0>(w));
  (void)round_trip(ln::quantize<ln::storage::q4_1>(w));
  (void)round_trip(ln::quantize<ln::storage::fp8_e4m3>(w));
  (void)round_trip(ln::quantize<ln::storage::fp8_e5m2>(w));
  (void)round_trip(ln::quantize<ln::storage::int8_per<ln::storage::granularity::row,
                                                      ln::storage::symmetry::asymmetric>>(w));

  // A file in one real type loads into another; codes and reals do not mix.
  const test::scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_safetensors(w, folder.path("f32")));
  ln::weights<ln::quantized<test::llama_gqa, ln::storage::bf16>> as_bf16;
  LINNET_REQUIRE_OK(ln::load_safetensors(as_bf16, folder.path("f32")));
  BOOST_TEST(test::same_bytes(as_bf16, narrow));
  ln::weights<test::llama_gqa> as_f32;
  BOOST_TEST(test::message(ln::load_safetensors(as_f32, *parsed)) ==
             "safetensors: storage: expected f32 (the model type), got int8");
  ln::weights<ln::quantized<test::llama_gqa, ln::storage::int8>> as_codes;
  BOOST_TEST(test::message(ln::load_safetensors(as_codes, folder.path("f32"))) ==
             folder.path("f32") + ": storage: expected int8 (the model type), got f32");
  const auto says = [](auto& to, const std::string& bytes) {
    return test::message(ln::load_safetensors(to, test::bytes(bytes)));
  };
  BOOST_TEST(says(as_codes, grouped) ==
             "safetensors: storage: expected int8 (the model type), got int4");
  ln::weights<ln::quantized<test::llama_gqa, ln::storage::int4<16>>> other_groups;
  BOOST_TEST(says(other_groups, grouped) ==
             "safetensors: storage_group: expected 16 (the model type), got 8");
  ln::weights<ln::quantized<test::llama_gqa, ln::storage::int3<>>> three_bits;
  BOOST_TEST(says(three_bits, grouped) ==
             "safetensors: storage: expected int3 (the model type), got int4");
  // A file that does not say what it stores is refused by its tensors.
  const auto wider = ln::parse_safetensors(test::bytes(five));
  LINNET_REQUIRE_OK(wider);
  LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("five"), test::tensors_of(*wider)));
  BOOST_TEST(test::message(ln::load_safetensors(three_bits, folder.path("five"))) ==
             folder.path("five") +
                 ": embedding.weight: expected U8 [41, 9] (the model type), got U8 [41, 15]");
  LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("mute"), test::tensors_of(*parsed)));
  BOOST_TEST(test::message(ln::load_safetensors(as_f32, folder.path("mute"))) ==
             folder.path("mute") +
                 ": embedding.weight: expected real [41, 24] (the model type), got I8 [41, 24]");
}

BOOST_AUTO_TEST_CASE(codes_that_quantize_never_makes) {
  const test::scratch_folder folder;
  const auto codes = ln::quantize<ln::storage::int8>(test::distinct<small>());
  LINNET_REQUIRE_OK(ln::save_safetensors(codes, folder.path("q")));
  const auto good = ln::read_safetensors(folder.path("q"));
  LINNET_REQUIRE_OK(good);
  ln::weights<ln::quantized<small, ln::storage::int8>> w;
  const auto with = [&](std::string_view name, std::string_view value) {
    std::string values;
    auto tensors = test::tensors_of(*good);
    for (auto& t : tensors)
      if (t.name == name) {
        values.assign(reinterpret_cast<const char*>(t.data.data()), t.data.size());
        t.data = test::bytes(values.replace(0, value.size(), value));
      }
    LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("bad"), tensors));
    const std::string got = test::message(ln::load_safetensors(w, folder.path("bad")));
    return got.substr(got.find(": ") + 2);
  };
  BOOST_TEST(with("embedding.weight", "\x80") ==
             "embedding.weight: expected codes from -127 to 127, got another value");
  const auto nan = test::raw(std::uint32_t{0x7fc00000});
  const std::string scales = "embedding.weight.scales";
  BOOST_TEST(with(scales, nan) == scales + ": expected positive, finite scales, got another value");
  BOOST_TEST(with(scales, test::raw(0.0f)) ==
             scales + ": expected positive, finite scales, got another value");
  BOOST_TEST(with(scales, test::raw(-1.0f)) ==
             scales + ": expected positive, finite scales, got another value");

  // Codes of another type are not these codes, whatever their size.
  auto tensors = test::tensors_of(*good);
  for (auto& t : tensors)
    if (t.name == "embedding.weight") t.type = ln::dtype::u8;
  LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("bad"), tensors));
  const std::string refusal = test::message(ln::load_safetensors(w, folder.path("bad")));
  BOOST_TEST(refusal.find("embedding.weight: expected I8 [") != refusal.npos, refusal);
  BOOST_TEST(refusal.find("got U8 [") != refusal.npos, refusal);
}

// Blocks of ggml have any codes, and scales of either sign, but in half precision.
BOOST_AUTO_TEST_CASE(scales_of_ggml) {
  using S = ln::storage::q4_1;
  const test::scratch_folder folder;
  const std::string path = folder.path("w");
  ln::weights<ln::quantized<small, S>> w;
  auto four = ln::quantize<S>(test::distinct<small>());
  auto& embedding = four.tree().embedding;
  for (const float good : {-1.0f, 0.0f, 65504.0f, 0x1p-24f, -0x1.004p-3f}) {
    embedding.scales[1] = embedding.zeros[1] = good;
    LINNET_REQUIRE_OK(ln::save_safetensors(four, path));
    LINNET_REQUIRE_OK(ln::load_safetensors(w, path));
    BOOST_TEST(test::same_bytes(w, four));
  }
  for (const float bad : {65536.0f, 0x1p-25f, 1.0001f})
    for (float* const at : {embedding.scales + 1, embedding.zeros + 1}) {
      const float good = std::exchange(*at, bad);
      BOOST_TEST(test::message(ln::save_safetensors(four, folder.path("bad"))) ==
                 folder.path("bad") + ": embedding.weight." +
                     (at == embedding.scales + 1 ? "scales" : "minima") +
                     ": expected finite numbers that half precision holds, got another value");
      *at = good;
    }
  embedding.zeros[0] = std::nanf("");
  BOOST_TEST(ln::first_nonfinite(four) == "embedding.weight.minima");
  ln::weights<ln::quantized<small, ln::storage::q8_0>> eight;
  eight.tree().embedding.data[0] = -128;
  LINNET_REQUIRE_OK(ln::save_safetensors(eight, path));
}

// Scales and zero points that quantize() never makes are neither saved nor loaded.
BOOST_AUTO_TEST_CASE(bad_scales_and_zero_points) {
  using S = ln::storage::int8_per<ln::storage::granularity::row, ln::storage::symmetry::asymmetric>;
  const test::scratch_folder folder;
  const std::string good = folder.path("good"), bad = folder.path("bad");
  ln::weights<ln::quantized<small, S>> w;
  const auto refuses = [&](bool scales, float value) {
    const std::string said =
        std::string(scales ? "embedding.weight.scales: expected positive, finite scales"
                           : "embedding.weight.zeros: expected zero points from 0 to 255") +
        ", got another value";
    auto codes = ln::quantize<S>(test::distinct<small>());
    LINNET_REQUIRE_OK(ln::save_safetensors(codes, good));
    auto& embedding = codes.tree().embedding;
    (scales ? embedding.scales : embedding.zeros)[1] = value;
    const auto saved = ln::save_safetensors(codes, bad);
    BOOST_TEST(test::message(saved) ==
               bad + ": " +
                   (ln::is_finite(value)
                        ? said
                        : said.substr(0, said.find(':')) +
                              ": expected finite numbers, got a NaN or an infinity"));
    BOOST_TEST((!saved && saved.error().code == ln::errc::invalid));
    BOOST_TEST(!std::filesystem::exists(bad));
    // From elsewhere.
    const auto file = ln::read_safetensors(good);
    LINNET_REQUIRE_OK(file);
    auto tensors = test::tensors_of(*file);
    std::string values;
    for (auto& t : tensors)
      if (t.name == said.substr(0, said.find(':'))) {
        values.assign(reinterpret_cast<const char*>(t.data.data()), t.data.size());
        t.data = test::bytes(values.replace(4, 4, test::raw(value)));
      }
    LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("other"), tensors));
    BOOST_TEST(test::message(ln::load_safetensors(w, folder.path("other"))) ==
               folder.path("other") + ": " + said);
  };
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float zero : {-1.0f, 256.0f, infinity}) refuses(false, zero);
  for (const float scale : {-1.0f, 0.0f, infinity, std::nanf("")}) refuses(true, scale);
}

BOOST_AUTO_TEST_CASE(other_models_are_refused_by_what_they_say) {
  const test::scratch_folder folder;
  const std::string path = folder.path("w");
  LINNET_REQUIRE_OK(ln::save_safetensors(test::distinct<small>(), path));
  const auto refuses = [&]<class M>(ln::weights<M> w) {
    return test::message(ln::load_safetensors(w, path)).substr(path.size() + 2);
  };
  static constexpr auto change = [](auto member, auto value) {
    ln::decoder_shape s = test::mha_shape;
    s.*member = value;
    return s;
  };
  // The same tensors in the same shapes, but another function.
  BOOST_TEST(refuses(ln::weights<ln::decoder<change(&ln::decoder_shape::eps, 1e-5)>>()) ==
             "eps: expected 1e-05 (the model type), got 1e-06");
  BOOST_TEST(refuses(ln::weights<ln::decoder<change(&ln::decoder_shape::rope_theta, 5e5)>>()) ==
             "rope_theta: expected 500000 (the model type), got 10000");
  BOOST_TEST(refuses(ln::weights<ln::decoder<test::mha_shape, ln::position::rope_half>>()) ==
             "position: expected rope_half (the model type), got rope");
  BOOST_TEST(refuses(ln::weights<ln::decoder<test::mha_shape, ln::ffn::gated_gelu>>()) ==
             "ffn: expected gated gelu_tanh (the model type), got gated silu");
  static constexpr ln::decoder_shape fewer_heads{.d_model = 16,
                                                 .d_ff = 26,
                                                 .heads = 2,
                                                 .kv_heads = 2,
                                                 .layers = 2,
                                                 .vocabulary = 41,
                                                 .context = 32,
                                                 .eps = 1e-6};
  BOOST_TEST(refuses(ln::weights<ln::decoder<fewer_heads>>()) ==
             "heads: expected 2 (the model type), got 4");
  BOOST_TEST(refuses(ln::weights<test::t5_1_0>()) ==
             "d_model: expected 24 (the model type), got 16");
  BOOST_TEST(refuses(ln::weights<ln::decoder<test::mha_shape, ln::tie::untied>>()) ==
             "head: expected untied (the model type), got tied");
}

BOOST_AUTO_TEST_CASE(other_tensors_are_refused_and_nothing_is_touched) {
  const test::scratch_folder folder;
  const std::string path = folder.path("w");
  LINNET_REQUIRE_OK(ln::save_safetensors(test::distinct<small>(), path));
  const auto good = ln::read_safetensors(path);
  LINNET_REQUIRE_OK(good);
  auto w = test::distinct<small>(2.0f);
  const auto before = w.clone();
  const auto with = [&](auto&& change) {
    auto tensors = test::tensors_of(*good);
    change(tensors);
    LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("bad"), tensors));
    const auto result = ln::load_safetensors(w, folder.path("bad"));
    BOOST_TEST(test::same_bytes(w, before));
    return test::message(result).substr(folder.path("bad").size() + 2);
  };
  const auto find = [](auto& tensors, std::string_view name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&](const auto& t) { return t.name == name; });
  };
  BOOST_TEST(with([&](auto& t) { t.erase(find(t, "norm.weight")); }) ==
             "norm.weight: expected real [16] (the model type), got no such tensor");
  BOOST_TEST(with([&](auto& t) { find(t, "norm.weight")->name = "norm.wait"; }) ==
             "norm.weight: expected real [16] (the model type), got no such tensor");
  BOOST_TEST(with([&](auto& t) {
               find(t, "norm.weight")->shape = {16, 1};
             }) == "norm.weight: expected real [16] (the model type), got F32 [16, 1]");
  BOOST_TEST(with([&](auto& t) {
               find(t, "blocks.1.ffn.up.weight")->shape = {16, 26};
             }) ==
             "blocks.1.ffn.up.weight: expected real [26, 16] (the model type), got F32 [16, 26]");
  BOOST_TEST(with([&](auto& t) { find(t, "norm.weight")->type = ln::dtype::i32; }) ==
             "norm.weight: expected real [16] (the model type), got I32 [16]");
  BOOST_TEST(with([&](auto& t) {
               t.push_back({"extra", ln::dtype::f32, {0}, {}});
             }) == "extra: expected only tensors of the model type, got F32 [0]");
}

BOOST_AUTO_TEST_CASE(notes) {
  const test::scratch_folder folder;
  // What could not be read again is not written.
  const auto refuses = [&](const ln::file_metadata& all) {
    const auto saved = ln::save_safetensors(test::distinct<small>(), folder.path("bad"),
                                            ln::naming::canonical{}, all);
    BOOST_TEST((!saved && saved.error().code == ln::errc::invalid));
    BOOST_TEST(!std::filesystem::exists(folder.path("bad")));
    return test::message(saved).substr(folder.path("bad").size() + 2);
  };
  BOOST_TEST(refuses({{"who", "caf\xe9"}}) ==
             "__metadata__: who: expected texts in UTF-8, got other bytes");
  BOOST_TEST(refuses({{"long", std::string(600'000, 'x')}})
                 .starts_with("header: expected at most 524288 bytes, got "));
  LINNET_REQUIRE_OK(ln::save_safetensors(test::distinct<small>(), folder.path("w"),
                                         ln::naming::canonical{}, {{"x", std::string(2000, ' ')}}));
  BOOST_TEST(ln::read_safetensors(folder.path("w")).value().metadata().at("x").size() == 2000u);
  LINNET_REQUIRE_OK(ln::save_safetensors(test::distinct<small>(), folder.path("w"),
                                         ln::naming::canonical{}, {{"step", "17"}}));
  BOOST_TEST(ln::read_safetensors(folder.path("w")).value().metadata().at("step") == "17");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::weights_file_test
