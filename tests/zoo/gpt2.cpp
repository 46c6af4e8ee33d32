// SPDX-License-Identifier: MIT
// zoo eval of gpt2-small, whose weights are random, with GPT-2's tokenizer: a directory in Hugging
// Face's names with merges beside it, and a GGUF file that has its own tokenizer.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <linnet/gguf.hpp>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
#include <sstream>

#include "program.hpp"

namespace test::gpt2 {

namespace {

namespace fs = std::filesystem;
namespace ln = linnet;
using model = ln::zoo::gpt2_small;

/// What a tokenizer of GPT-2 is in a GGUF file, from OpenAI's two files.
std::vector<ln::gguf_entry> tokenizer_entries(const std::string& ids, const std::string& merges) {
  const auto numbers = nlohmann::json::parse(test::contents(ids));
  std::vector<std::string> tokens(numbers.size()), pairs;
  for (const auto& [text, id] : numbers.items()) tokens.at(id.get<std::size_t>()) = text;
  std::istringstream lines(test::contents(merges));
  std::string line;
  std::getline(lines, line);  // the version
  while (std::getline(lines, line)) pairs.push_back(line);
  constexpr std::uint32_t end = 50256;
  constexpr std::int32_t normal = 1, control = 3;
  std::vector<std::int32_t> types(tokens.size(), normal);
  types.at(end) = control;
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("gpt-2")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", pairs},
          {"tokenizer.ggml.bos_token_id", end},
          {"tokenizer.ggml.eos_token_id", end}};
}

/// Weights of GPT-2's usual size that half precision holds, so that both files have the same.
ln::weights<model> some_weights() {
  ln::weights<model> w;
  BOOST_REQUIRE(w.valid());
  std::uint32_t state = 1;
  w.visit([&](const auto&, const ln::tensor_info& info, auto& leaf) {
    float* to = nullptr;
    float unit = 0x1p-10f;
    if constexpr (requires { leaf.data; })
      to = leaf.data;
    else
      to = leaf, unit = 0x1p-6f;  // norms and biases
    for (ln::index i = 0; i < info.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      to[i] = unit * static_cast<float>(static_cast<int>(state >> 26) - 32);
    }
  });
  return w;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_gpt)

BOOST_AUTO_TEST_CASE(both_files_are_judged_with_gpt2s_tokenizer) {
  const std::string merges = test::data_file("tokenizer_gpt2/vocab.bpe"),
                    ids = test::data_file("tokenizer_gpt2/encoder.json");
  if (merges.empty() || ids.empty()) return;
  const test::scratch_folder folder;
  const std::string directory = folder.path("gpt2"), gguf = folder.path("gpt2.gguf"),
                    text = folder.path("text");
  fs::create_directory(directory);
  fs::copy_file(merges, directory + "/merges.txt");
  std::ofstream(text) << "Once upon a time, there was a little girl named Lily.";
  // The end of a text, and the text in the ids of OpenAI's tokenizer.
  const std::vector<ln::token> all{50256, 7454, 2402, 257,  640,  11,    612,
                                   373,   257,  1310, 2576, 3706, 20037, 13};
  const ln::index n = std::ssize(all) - 1;
  double bits = 0;
  {
    ln::packed<model> packed;
    {
      const ln::weights<model> w = some_weights();
      LINNET_REQUIRE_OK(ln::save_hugging_face(w, directory));
      LINNET_REQUIRE_OK(ln::save_gguf(w, gguf, ln::ggml_type::f16, tokenizer_entries(ids, merges)));
      packed = ln::pack(w);
    }
    auto judge = ln::evaluator<model>::open(packed, {.batch = 1, .target = n});
    LINNET_REQUIRE_OK(judge);
    bits = judge->loss({all.data(), all.data() + 1, 1, n}).mean() / std::log(2.0);
  }
  BOOST_TEST(std::abs(bits - std::log2(50257.0)) > 0.01);  // no even chances
  const auto judged = [&](std::vector<std::string> more, const std::string& tokenizer) {
    const std::string out = folder.path("out");
    std::vector<std::string> words{"eval", "--model", "gpt2-small", "--text", text, "--context",
                                   "32",   "--batch", "1",          "--out",  out};
    words.insert(words.end(), more.begin(), more.end());
    test::zoo_prints(words);
    const auto json = nlohmann::json::parse(test::contents(out));
    fs::remove(out + ".items.jsonl");
    BOOST_TEST(json["tokenizer"] == tokenizer);
    BOOST_TEST(json["tests"]["text"]["tokens"] == n);
    const double value = json["tests"]["text"]["bits_per_token"]["value"];
    BOOST_TEST(std::abs(value - bits) < 1e-5 * bits);
    return value;
  };
  const double of_directory = judged({"--weights", directory}, directory + "/merges.txt");
  BOOST_TEST(judged({"--weights", gguf}, gguf) == of_directory);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gpt2
