// SPDX-License-Identifier: MIT
// Encoders: zoo compress and zoo embed on a small one that is made here.

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
#include <sstream>

#include "program.hpp"

namespace test::encoders {

namespace ln = linnet;
using test::check_refused;

namespace {

/// 32 channels wide, a fourth of it in each of its heads.
constexpr ln::encoder_shape shape{
    .d_model = 32, .d_ff = 64, .heads = 4, .layers = 2, .vocabulary = 60, .context = 64};
const char* const model = "minilm:d_model=32,d_ff=64,heads=4,layers=2,vocabulary=60,context=64";
using small = ln::encoder<shape, ln::head::pooler>;

std::vector<double> numbers(const std::string& line) {
  std::istringstream words(line);
  std::vector<double> all;
  for (double x = 0; words >> x;) all.push_back(x);
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_encoders)

// The file of zoo compress is what zoo embed reads, and the cosine that the one reports is that of
// the other's vectors to those of the weights as they were.
BOOST_AUTO_TEST_CASE(what_compress_writes_embed_reads) {
  const test::scratch_folder folder;
  // Compiled for this test, without optimization and for one level alone.
  const char* const names[] = {"XDG_CACHE_HOME", "CXXFLAGS"};
  const std::string values[] = {folder.path(), "-O0 -DLINNET_ONLY_LEVEL=portable"};
  std::string before[2];
  for (int i = 0; i < 2; ++i) {
    if (const char* const was = std::getenv(names[i])) before[i] = was;
    setenv(names[i], values[i].c_str(), 1);
  }
  const std::string weights = folder.path("weights.safetensors"), out = folder.path("out"),
                    one = folder.path("one"), many = folder.path("many"),
                    tokenizer = folder.path("tokenizer.json");
  ln::weights<small> w;
  ln::initialize(w, ln::seed{3});
  w.visit([](const auto&, const ln::tensor_info& info, auto& leaf) {
    // The usual start is so small that a norm's eps would be all that there is.
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      return;
    else if (info.stored())
      for (ln::index i = 0; i < info.rows * info.columns; ++i) leaf.data[i] *= 10;
  });
  LINNET_REQUIRE_OK(ln::save_safetensors(w, weights));
  std::ofstream(tokenizer) << test::contents(std::string(LINNET_TEST_DIR) +
                                             "/fuzz/corpus/hf_tokenizer/bert");
  std::ofstream(one) << "\n  \nabc\n";  // a line that is not blank
  for (int i = 0; i < 60; ++i) std::ofstream(many, std::ios::app) << "a b c? " << i << " d\n\n";
  const std::vector<std::string> common{"compress", "--model",   model,     "--weights",
                                        weights,    "--out",     out,       "--tokenizer",
                                        tokenizer,  "--storage", "int4-g32"};
  const auto with = [](std::vector<std::string> first, const std::vector<std::string>& more) {
    first.insert(first.end(), more.begin(), more.end());
    return first;
  };
  const auto run = [&](const std::vector<std::string>& more) {
    return nlohmann::json::parse(
        test::zoo_prints(with(with(common, {"--json", "--evaluate", one}), more)));
  };

  const auto gptq = run({"--method", "gptq", "--calibrate", many});
  BOOST_TEST(gptq["calibration_windows"] == 60);
  const auto r = run({"--method", "rtn"});
  BOOST_TEST(r["bytes"] == (ln::weight_bytes<ln::quantized<small, ln::storage::int4<32>>>()));
  BOOST_TEST(r["windows"]["cosine"].size() == 1u);
  BOOST_TEST(r["texts_per_second_after"] > 0);
  BOOST_TEST(!r.contains("bits_per_byte_after"));
  BOOST_TEST(r["cosine_after"] != gptq["cosine_after"]);

  const ln::packed<small> p = ln::pack(w);
  auto embedder = ln::embedder<small>::open(p, {.target = 64});
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
  check_refused({"train", "--model", "minilm", "--text", many, "--out", out}, "unknown model");
  for (int i = 0; i < 2; ++i)
    before[i].empty() ? unsetenv(names[i]) : setenv(names[i], before[i].c_str(), 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoders
