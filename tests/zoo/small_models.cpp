// SPDX-License-Identifier: MIT
// Small models that are made here, compressed by what zoo compiles for them.

#include <cmath>
#include <fstream>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
#include <sstream>

#include "program.hpp"

namespace test::small_models {

namespace ln = linnet;
using test::check_refused;

namespace {

constexpr ln::encoder_shape encoder_shape{
    .d_model = 32, .d_ff = 64, .heads = 4, .layers = 2, .vocabulary = 60, .context = 64};
using encoder = ln::encoder<encoder_shape, ln::head::pooler>;
const char* const encoder_name =
    "minilm:d_model=32,d_ff=64,heads=4,layers=2,vocabulary=60,context=64";
constexpr ln::decoder_shape decoder_shape{.d_model = 32,
                                          .d_ff = 64,
                                          .heads = 2,
                                          .kv_heads = 2,
                                          .layers = 1,
                                          .vocabulary = 256,
                                          .context = 64};
using decoder = ln::decoder<decoder_shape>;
const char* const decoder_name =
    "decoder:d_model=32,d_ff=64,heads=2,layers=1,vocabulary=256,context=64";

std::vector<std::string> with(std::vector<std::string> first,
                              const std::vector<std::string>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

/// Writes random weights, matrices ten times as large as usual: their rounding is seen beside the
/// eps of norms.
template <class M>
ln::weights<M> write_weights(const std::string& path) {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{3});
  w.visit([](const auto&, const ln::tensor_info& info, auto& leaf) {
    if constexpr (requires { leaf.data; })
      for (ln::index i = 0; i < info.size(); ++i) leaf.data[i] *= 10;
  });
  LINNET_REQUIRE_OK(ln::save_safetensors(w, path));
  return w;
}

std::vector<double> numbers(const std::string& line) {
  std::istringstream words(line);
  std::vector<double> all;
  for (double x = 0; words >> x;) all.push_back(x);
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_small_models)

// The file of zoo compress is what zoo embed reads, and the cosine that the one reports is that of
// the other's vectors to those of the weights as they were.
BOOST_AUTO_TEST_CASE(what_compress_writes_embed_reads) {
  const test::scratch_folder folder;
  const test::compiling_into there(folder.path());
  const std::string weights = folder.path("weights.safetensors"), out = folder.path("out"),
                    one = folder.path("one"), many = folder.path("many"),
                    tokenizer = folder.path("tokenizer.json");
  const auto w = write_weights<encoder>(weights);
  std::ofstream(tokenizer) << test::contents(std::string(LINNET_TEST_DIR) +
                                             "/fuzz/corpus/hf_tokenizer/bert");
  std::ofstream(one) << "\n  \nabc\n";  // a line that is not blank
  for (int i = 0; i < 60; ++i) std::ofstream(many, std::ios::app) << "a b c? " << i << " d\n\n";
  const std::vector<std::string> common{"compress", "--model",   encoder_name, "--weights",
                                        weights,    "--out",     out,          "--tokenizer",
                                        tokenizer,  "--storage", "int4-g32"};
  const auto run = [&](const std::vector<std::string>& more) {
    return nlohmann::json::parse(
        test::zoo_prints(with(with(common, {"--json", "--evaluate", one}), more)));
  };

  const auto gptq = run({"--method", "gptq", "--calibrate", many});
  BOOST_TEST(gptq["calibration_windows"] == 60);
  const auto r = run({"--method", "rtn"});
  BOOST_TEST(r["bytes"] == (ln::weight_bytes<ln::quantized<encoder, ln::storage::int4<32>>>()));
  BOOST_TEST(r["windows"]["cosine"].size() == 1u);
  BOOST_TEST(r["texts_per_second_after"] > 0);
  BOOST_TEST(!r.contains("bits_per_byte_after"));
  BOOST_TEST(r["cosine_after"] != gptq["cosine_after"]);

  const ln::packed<encoder> p = ln::pack(w);
  auto embedder = ln::embedder<encoder>::open(p, {.target = 64});
  LINNET_REQUIRE_OK(embedder);
  const ln::token ids[] = {2, 1, 3};  // [CLS] [UNK] [SEP], as no piece of the vocabulary is abc
  const auto exact = embedder->embed({.tokens = ids, .batch = 1, .length = 3});
  const std::vector<double> found = numbers(
      test::zoo_prints({"embed", "--weights", out, "--tokenizer", tokenizer, "--text", "abc"}));
  BOOST_REQUIRE(found.size() == exact.size());
  double cosine = 0;
  for (std::size_t i = 0; i < found.size(); ++i) cosine += found[i] * static_cast<double>(exact[i]);
  BOOST_TEST(std::abs(cosine - r["cosine_after"].get<double>()) < 1e-5);
  BOOST_TEST((cosine > 0.9 && cosine < 0.9999));

  const auto refused = [&](const std::vector<std::string>& more, const std::string& words) {
    check_refused(with(common, more), words);
  };
  refused({"--method", "quarot", "--calibrate", many}, "LayerNorms, which see rotations");
  refused({"--method", "gptq", "--calibrate", many, "--length", "65"}, "context of 64");
  refused({"--method", "gptq", "--calibrate", one}, "expected at least 32 rows of inputs");
  std::ofstream(one) << " \n\n";
  refused({"--method", "rtn", "--evaluate", one}, "every line is blank");
  check_refused({"generate", "--weights", out, "--tokenizer", tokenizer}, "which zoo embed runs");
  check_refused({"embed", "--weights", tokenizer, "--text", "a"}, "file of an encoder");
}

// Learning ends with its steps or with the time, whichever is first.
BOOST_AUTO_TEST_CASE(rotations_are_learned_for_as_long_as_asked) {
  const test::scratch_folder folder;
  const test::compiling_into there(folder.path());
  const std::string weights = folder.path("weights.safetensors"), text = folder.path("text");
  (void)write_weights<decoder>(weights);
  std::ofstream(text) << std::string(2000, 'x');
  const std::vector<std::string> common{"compress", "--model",  decoder_name,       "--weights",
                                        weights,    "--out",    folder.path("out"), "--storage",
                                        "int4-g32", "--method", "spinquant",        "--calibrate",
                                        text,       "--json"};
  const auto steps = [&](const std::vector<std::string>& more) {
    return nlohmann::json::parse(test::zoo_prints(with(common, more)))["method_steps"].get<int>();
  };
  BOOST_TEST(steps({"--steps", "2"}) == 2);
  BOOST_TEST(steps({"--steps", "100000", "--minutes", "0.0001"}) < 100000);
  check_refused(with(common, {"--statistics", folder.path("statistics")}),
                "learns anew each time; leave --statistics out");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::small_models
