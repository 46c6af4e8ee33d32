// SPDX-License-Identifier: MIT
// zoo train, finetune and distil of encoders: masked tokens of any tokenizer, to a folder that zoo
// embed takes.

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

// Another text is learned by all weights and by low-rank deltas, and a student learns the teacher's
// probabilities, or its states behind filters.
BOOST_AUTO_TEST_CASE(an_encoder_is_tuned_and_teaches) {
  const std::string first = folder.path("first"),
                    other = written("other.txt", 1'500, "a wren answers ");
  test::zoo_prints(train(first, "120", {"--rate", "0.01", "--length", "24"}, tiny));
  const auto arguments = [&](const std::string& command, const std::string& out,
                             const std::vector<std::string>& more) {
    std::vector<std::string> all{command, command == "distil" ? "--teacher-weights" : "--weights",
                                 first,   "--out",
                                 out,     "--batch",
                                 "2",     "--threads",
                                 "1",     "--length",
                                 "24"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto run = [&](const std::string& command, const std::string& out,
                       const std::vector<std::string>& more) {
    const std::string said = test::zoo_prints(arguments(command, out, more));
    BOOST_CHECK_MESSAGE(said.find("zoo embed takes it") != said.npos, said);
    return bits_of(said);
  };
  const auto apart = [&](const std::string& a, const std::string& b) {
    const auto x = vectors_of(a, {"a wren answers"}).at(0),
               y = vectors_of(b, {"a wren answers"}).at(0);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += std::abs(x[i] - y.at(i));
    return sum;
  };

  const std::string begun = folder.path("begun"), tuned = folder.path("tuned"),
                    adapted = folder.path("adapted");
  const double before = run("finetune", begun, {"--text", other, "--steps", "1", "--rate", "1e-7"}),
               after = run("finetune", tuned, {"--text", other, "--steps", "60", "--rate", "0.01"});
  BOOST_CHECK_MESSAGE(after < before - 1, after << " after " << before);
  BOOST_CHECK_EQUAL(described(tuned)["model"], tiny);
  BOOST_CHECK_EQUAL(described(tuned)["marks"], described(first)["marks"]);
  BOOST_CHECK_SMALL(apart(begun, first), 1e-4);
  BOOST_CHECK_GT(apart(tuned, first), 1e-2);

  // Put off, deltas end with the same bits; they are merged, so that zoo embed reads them.
  const std::vector<std::string> deltas{"--text", other,  "--steps", "60",
                                        "--rate", "0.03", "--lora",  "4"};
  const double by_deltas = run("finetune", adapted, deltas);
  BOOST_CHECK_MESSAGE(by_deltas < before - 0.3, by_deltas << " after " << before);
  BOOST_CHECK(fs::exists(adapted + "/adapter/adapter_config.json"));
  BOOST_CHECK_GT(apart(adapted, first), 1e-2);
  BOOST_CHECK(test::contents(adapted + "/report.html").find("<td>lora_rank</td>") !=
              std::string::npos);
  const std::string put_off = folder.path("put_off");
  std::vector<std::string> late = deltas;
  late.insert(late.end(), {"--minutes", "1e-6"});
  test::zoo_prints(arguments("finetune", put_off, late));
  late = deltas;
  late.push_back("--resume");
  run("finetune", put_off, late);
  BOOST_CHECK(test::contents(put_off + "/model.safetensors") ==
              test::contents(adapted + "/model.safetensors"));

  // With alpha 0 a narrower student learns what the teacher says alone.
  const std::string narrow = "encoder:layers=1,d_model=8,heads=2,context=32,d_ff=16",
                    student = folder.path("student"), matched = folder.path("matched");
  const auto taught = [&](const std::string& steps, const std::string& out,
                          const std::vector<std::string>& more) {
    std::vector<std::string> all{"--text", text,   "--model", narrow,
                                 "--rate", "0.02", "--steps", steps};
    all.insert(all.end(), more.begin(), more.end());
    return run("distil", out, all);
  };
  const std::vector<std::string> alone{"--alpha", "0", "--temperature", "1"};
  const double fresh = taught("1", folder.path("fresh"), alone),
               learned = taught("150", student, alone);
  BOOST_CHECK_MESSAGE(learned < fresh - 1, learned << " after " << fresh);
  BOOST_CHECK_EQUAL(described(student)["teacher"], tiny);
  BOOST_CHECK_EQUAL(described(student)["model"], narrow + ",vocabulary=304");
  BOOST_CHECK_EQUAL(vectors_of(student, {"a text"}).at(0).size(), 8u);
  const double by_states = taught("150", matched, {"--match", "ted", "--filter-steps", "5"});
  BOOST_CHECK_MESSAGE(by_states < fresh - 1, by_states << " after " << fresh);
  BOOST_CHECK(test::contents(matched + "/report.html").find("<h2>Filters</h2>") !=
              std::string::npos);

  const auto refused = [&](const std::string& command, const std::vector<std::string>& more,
                           const std::string& words) {
    std::vector<std::string> all{"--text", text};
    all.insert(all.end(), more.begin(), more.end());
    check_refused(arguments(command, folder.path("refused"), all), words);
  };
  for (const std::string kind : {"prompt", "prefix", "bottleneck"})
    refused("finetune", {"--" + kind, "4"}, "--" + kind + ": an encoder's vectors");
  refused("finetune", {"--objective", "spans"}, "an encoder learns masked");
  refused("finetune", {"--model", "encoder:layers=3"}, "not the encoder:layers=3");
  refused("distil", {"--model", "decoder"}, "another family");
  refused("distil", {"--model", "encoder:layers=2", "--match", "ted"},
          "2 layers, more than the 1 of its teacher");
  check_refused({"finetune", "--model", "minilm", "--text", text, "--out", folder.path("refused")},
                "--model minilm: its files have no head of masked tokens");
  check_refused({"distil", "--teacher", "minilm", "--model", narrow, "--text", text, "--out",
                 folder.path("refused")},
                "--teacher minilm: its files have no head of masked tokens");
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
