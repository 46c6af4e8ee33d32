// SPDX-License-Identifier: MIT
// zoo train --text of encoders: masked tokens of any tokenizer, to a folder that zoo embed takes.

#include <algorithm>
#include <cmath>
#include <sstream>

#include "workshop.hpp"

namespace test::encoders {

using test::check_refused, test::bits_of;
namespace fs = std::filesystem;

/// One type for bytes and for merges that are learned.
constexpr const char* tiny =
    "encoder:layers=1,d_model=16,heads=2,context=32,vocabulary=304,d_ff=24";

namespace {

nlohmann::json described(const std::string& folder) {
  return nlohmann::json::parse(test::contents(folder + "/zoo.json"));
}

/// The vectors of texts that zoo embed prints.
std::vector<std::vector<double>> vectors_of(const std::string& folder,
                                            const std::vector<std::string>& texts,
                                            const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"embed", "--weights", folder, "--threads", "1"};
  for (const std::string& text : texts) arguments.insert(arguments.end(), {"--text", text});
  arguments.insert(arguments.end(), more.begin(), more.end());
  std::istringstream lines(test::zoo_prints(arguments));
  std::vector<std::vector<double>> all;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<double>& vector = all.emplace_back();
    for (double x = 0; numbers >> x;) vector.push_back(x);
  }
  return all;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(zoo_encoders, test::training_workshop)

BOOST_AUTO_TEST_CASE(an_encoder_learns_masked_tokens_and_gives_vectors) {
  const std::string out = folder.path("bytes"),
                    said = test::zoo_prints(
                        train(out, "120", {"--rate", "0.01", "--length", "24"}, tiny));
  BOOST_CHECK_MESSAGE(said.find("bits per masked byte") != said.npos, said);
  BOOST_CHECK_MESSAGE(said.find("zoo embed takes it") != said.npos, said);
  BOOST_CHECK_LT(bits_of(said), 4.5);  // a byte that nothing is known of has 8
  BOOST_CHECK(fs::exists(out + "/model.safetensors") && !fs::exists(out + "/training.ckpt"));
  // Marks are four ids behind the bytes; the objective is the one that encoders have.
  const auto told = described(out);
  BOOST_CHECK_EQUAL(told["model"], tiny);
  BOOST_CHECK(!told.contains("objective"));
  BOOST_CHECK_EQUAL(told["marks"].dump(),
                    R"({"first":257,"last":258,"mask":259,"padding":256,"vocabulary":260})");
  // The page has the curves, and a held-out text with gaps and what the model puts there.
  const std::string html = test::contents(out + "/report.html");
  for (const char* const part :
       {"held out", "optimizer steps", "bits per masked byte", "a held-out text with gaps"})
    BOOST_CHECK_MESSAGE(html.find(part) != html.npos, "the report has no " << part);
  const std::size_t sample = html.find("class=\"samples\"");
  BOOST_REQUIRE(sample != html.npos);
  const std::string shown = html.substr(sample);
  BOOST_CHECK_MESSAGE(shown.find("\xe2\x80\xa6") != shown.npos, shown);
  BOOST_CHECK_MESSAGE(shown.find("linn") != shown.npos || shown.find("sing") != shown.npos, shown);

  // A text's vector has length 1, and is the same alone and beside a longer one.
  const auto two = vectors_of(out, {"the linnet", "the linnet sings, and sings again"}),
             one = vectors_of(out, {"the linnet"});
  BOOST_REQUIRE(two.size() == 2 && one.size() == 1 && one[0].size() == 16);
  double square = 0, apart = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    square += two[0][i] * two[0][i];
    BOOST_CHECK_SMALL(two[0][i] - one[0][i], 1e-6);
    apart += std::abs(two[0][i] - two[1][i]);
  }
  BOOST_CHECK_SMALL(square - 1, 1e-5);
  BOOST_CHECK_GT(apart, 1e-3);
  // A text that is longer than the context is cut.
  BOOST_CHECK_EQUAL(vectors_of(out, {std::string(100, 'x')}).size(), 1u);

  for (const char* const command : {"generate", "chat"})
    check_refused({command, "--weights", out}, "holds an encoder, which writes nothing");
  check_refused({"eval", "--weights", out, "--text", text}, "zoo embed takes it");
  check_refused({"finetune", "--weights", out, "--text", text, "--out", folder.path("more")},
                "which zoo finetune does not take");
  check_refused({"distil", "--teacher-weights", out, "--model", "decoder", "--text", text, "--out",
                 folder.path("more")},
                "which zoo distil does not take");
  check_refused({"compress", "--weights", out, "--storage", "int8", "--method", "rtn", "--out",
                 folder.path("small")},
                "holds an encoder of masked tokens");
}

// Put off behind each step, a training ends with the same bits, also where texts are mixed.
BOOST_AUTO_TEST_CASE(a_training_that_is_put_off_goes_on_to_the_same_bits) {
  written("texts/a.txt", 300, "one two three ");
  written("texts/b.txt", 300, "apples and pears ");
  const auto arguments = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> all = train(
        out, "3", {"--tokenizer", "bpe:300", "--dropout", "0.1", "--mix", "a.txt=3,b.txt=1"}, tiny);
    *std::find(all.begin(), all.end(), text) = folder.path("texts");
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string whole = folder.path("whole"), out = folder.path("out");
  test::zoo_prints(arguments(whole, {}));
  for (int n = 0; n < 2; ++n) {
    const std::string said = test::zoo_prints(arguments(out, {"--minutes", "1e-6", "--resume"}));
    BOOST_CHECK_MESSAGE(said.find("--resume goes on from there") != said.npos, said);
  }
  BOOST_CHECK(fs::exists(out + "/training.ckpt"));
  test::zoo_prints(arguments(out, {"--resume"}));
  BOOST_CHECK(test::contents(out + "/model.safetensors") ==
              test::contents(whole + "/model.safetensors"));
  BOOST_CHECK_EQUAL(described(out)["result"]["bits"], described(whole)["result"]["bits"]);
  BOOST_CHECK_EQUAL(described(out)["result"]["steps"], 3);
  BOOST_CHECK_EQUAL(vectors_of(out, {"one two"}).at(0).size(), 16u);
}

// A preset with other numbers, here one without a head of masked tokens, and a BERT's tokenizer,
// whose marks are its own.
BOOST_AUTO_TEST_CASE(a_preset_learns_with_the_marks_of_its_tokenizer) {
  const auto kinds =
      nlohmann::json::parse(test::contents(LINNET_TEST_DIR "/golden/tokenizers/kinds.json"));
  const auto bert = std::find_if(kinds.begin(), kinds.end(),
                                 [](const auto& one) { return one["kind"] == "bert"; });
  BOOST_REQUIRE(bert != kinds.end());
  const std::string json = folder.path("tokenizer.json"), out = folder.path("bert");
  std::ofstream(json) << (*bert)["file"].dump();
  const std::string shape = "minilm:layers=1,d_model=8,heads=2,d_ff=16,context=32";
  test::zoo_prints(train(out, "2", {"--tokenizer", json, "--length", "16"}, shape));
  const auto told = described(out), marks = told["marks"];
  BOOST_CHECK_EQUAL(marks["padding"], 0);
  BOOST_CHECK_EQUAL(marks["first"], 2);
  BOOST_CHECK_EQUAL(marks["last"], 3);
  BOOST_CHECK_EQUAL(marks["mask"], 4);
  BOOST_CHECK_EQUAL(told["model"], shape + ",vocabulary=" + marks["vocabulary"].dump());
  BOOST_CHECK_EQUAL(told["tokenizer"], "tokenizer.json");
  BOOST_CHECK_EQUAL(vectors_of(out, {"a text"}).at(0).size(), 8u);
}

BOOST_AUTO_TEST_CASE(what_cannot_be_trained_is_refused_before_anything_is_compiled) {
  const test::with_variable none("CXX", "/bin/false");
  const auto refused = [&](const std::string& model, const std::vector<std::string>& more,
                           const std::string& words) {
    check_refused(train(folder.path("out"), "3", more, model), words);
  };
  refused(tiny, {"--objective", "spans"}, "an encoder learns masked");
  refused("decoder", {"--objective", "masked"}, "is for encoders");
  refused("t5", {"--objective", "masked"}, "is for encoders");
  refused("encoder:heads=3", {}, "do not fit");
  refused("encoder:sharing=all", {}, "decoder:sharing=all");
  refused("bert-base:norm=rms", {}, "encoder:norm=rms");
  refused("encoder:width=3", {}, "has no width");
  refused("encoder:vocabulary=258", {}, "needs 260 ids");
  refused(tiny, {"--length", "33"}, "context of 32");
  refused(tiny, {"--length", "2"}, "at least 3 tokens");
  refused("minilm", {"--ffn", "skip-encoder"}, "encoder-only");
  check_refused({"generate", "--model", "encoder:layers=2", "--weights", text}, "is an encoder");
  // A folder of another model, and one whose marks are not there.
  fs::create_directory(folder.path("other"));
  const auto with = [&](const std::string& model) {
    std::ofstream(folder.path("other/zoo.json"))
        << R"({"format":"linnet zoo","model":")" + model +
               R"(","ffn":"standard","optimizer":"adamw","compute":"f32","tokenizer":"bytes"})";
    return std::vector<std::string>{"embed", "--weights", folder.path("other"), "--text", "x"};
  };
  check_refused(with("decoder:vocabulary=256"), "which is no encoder");
  check_refused(with("encoder:vocabulary=260"), "expected padding, first, last, mask");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoders
