// SPDX-License-Identifier: MIT
// zoo eval: a model that was trained here judged by small tests written for the purpose, on several
// threads, interrupted and gone on with; real weights where there are some.

#include <cmath>
#include <filesystem>
#include <fstream>

#include "program.hpp"

namespace test::evaluating {

namespace {

namespace fs = std::filesystem;

/// A folder as `zoo eval` wants it, of the fixtures.
void lay_out(const test::scratch_folder& folder) {
  const auto put = [&](const std::string& fixture, const std::string& name) {
    fs::create_directories(fs::path(folder.path(name)).parent_path());
    fs::copy_file(test::golden("eval_tasks/" + fixture), folder.path(name));
  };
  put("arc_easy.json", "arc_easy/test.json");
  put("winogrande.json", "winogrande/dev.json");
  put("hellaswag.txt", "hellaswag/hellaswag_val_full.txt");
  put("mmlu.csv", "mmlu/test__birds_test.csv");
  put("blimp.jsonl", "blimp/made_up.jsonl");
  put("lambada.jsonl", "lambada/lambada_test.jsonl");
  put("gsm8k.jsonl", "gsm8k/test.jsonl");
  fs::create_directories(folder.path("wikitext2"));
  std::ofstream(folder.path("wikitext2/test.txt"))
      << " \n = Linnet = \n \n The linnet is a bird . \n \n = = Song = = \n \n It sings . \n"
         " \n = Finch = \n \n A finch is one too . \n";
}

std::string trained(const test::scratch_folder& folder, const std::string& model) {
  const std::string text = folder.path("text"), weights = folder.path(model);
  std::ofstream out(text);
  for (int i = 0; i < 1200; ++i) out << "the linnet sings song " << i << ".\n";
  out.close();
  test::zoo_prints({"train", text, "--model", model, "--steps", "3", "--batch", "1", "--threads",
                    "1", "--out", weights});
  return weights;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_evaluating)

BOOST_AUTO_TEST_CASE(all_tests_on_a_byte_model) {
  const test::scratch_folder folder, results;
  const std::string weights = trained(results, "byte-decoder");
  lay_out(folder);
  const auto run = [&](const std::string& out, const char* threads,
                       const std::vector<std::string>& more = {}) {
    std::vector<std::string> all{"eval",      "--weights", weights, "--data",         folder.path(),
                                 "--threads", threads,     "--out", results.path(out)};
    all.insert(all.end(), more.begin(), more.end());
    return test::zoo_prints(all);
  };
  const std::string said = run("one", "1");
  for (const char* word :
       {"byte-decoder, ", "256 tokens of context", "\narc_easy ", "\nwinogrande ", "\nhellaswag ",
        "\nmmlu ", "\nblimp ", "\nlambada ", "\ngsm8k ", "\nwikitext2 ", "bits/byte", "3-4"})
    BOOST_CHECK_MESSAGE(said.find(word) != said.npos, "no " << word << " in\n" << said);
  const std::string json = test::contents(results.path("one")),
                    items = test::contents(results.path("one.items.jsonl"));
  const auto found = nlohmann::json::parse(json);
  const auto& tests = found["tests"];
  BOOST_CHECK_EQUAL(tests.size(), 8);
  BOOST_CHECK_EQUAL(tests["arc_easy"]["items"], 2);
  BOOST_CHECK_CLOSE(tests["arc_easy"]["chance"].get<double>(), 100 * (1 / 4. + 1 / 3.) / 200, 1e-9);
  BOOST_CHECK_EQUAL(tests["blimp"]["groups"].size(), 3);
  BOOST_CHECK_EQUAL(tests["blimp"]["chance"], 0.5);
  BOOST_CHECK_EQUAL(tests["wikitext2"]["items"], 2);  // articles; sections are none
  BOOST_CHECK_EQUAL(tests["wikitext2"]["tokens"], tests["wikitext2"]["bytes"]);
  const double bits = tests["wikitext2"]["bits_per_byte"]["value"];
  BOOST_CHECK(bits > 1 && bits < 12);

  // The same bits from more threads.
  BOOST_CHECK(run("three", "3") == said);
  BOOST_CHECK(test::contents(results.path("three")) == json);
  BOOST_CHECK(test::contents(results.path("three.items.jsonl")) == items);
  // The same answers one at a time.
  run("alone", "1", {"--batch", "1"});
  const auto alone = nlohmann::json::parse(test::contents(results.path("alone")))["tests"];
  for (const char* const name : {"arc_easy", "hellaswag", "mmlu", "blimp"})
    BOOST_CHECK_SMALL(alone[name]["continuation"]["confidence"]["value"].get<double>() -
                          tests[name]["continuation"]["confidence"]["value"].get<double>(),
                      1e-5);
  BOOST_CHECK_EQUAL(alone["gsm8k"], tests["gsm8k"]);
  // Examples before each question: MMLU's of its dev files, the others' of the test itself.
  fs::copy_file(test::golden("eval_tasks/mmlu.csv"), folder.path("mmlu/dev__birds_dev.csv"));
  const std::string shown = run("shots", "2", {"--tasks", "arc_easy,mmlu,gsm8k", "--shots", "1"});
  BOOST_CHECK_MESSAGE(shown.find("1 examples each") != shown.npos, shown);
  const auto shots = nlohmann::json::parse(test::contents(results.path("shots")))["tests"];
  for (const char* const name : {"arc_easy", "mmlu"})
    BOOST_CHECK(shots[name]["continuation"]["confidence"] !=
                tests[name]["continuation"]["confidence"]);
  test::check_refused({"eval", "--weights", weights, "--data", folder.path(), "--tasks", "arc_easy",
                       "--shots", "2"},
                      "expected at least 2 beside the item itself, got 1");
  // A run that was interrupted anywhere, in the middle of a line too, ends as if it had not been.
  for (const std::size_t end :
       {items.find('\n') + 1, items.size() / 3, items.size() / 2 + 7, items.size() - 1,
        std::size_t{5}, items.find("{\"test\":\"gsm8k\",\"item\":1")}) {
    std::ofstream(results.path("cut.items.jsonl"), std::ios::binary) << items.substr(0, end);
    BOOST_CHECK(run("cut", "2") == said);
    BOOST_CHECK(test::contents(results.path("cut")) == json);
    BOOST_CHECK(test::contents(results.path("cut.items.jsonl")) == items);
  }
  // What is finished is not computed again: what the file says is believed.
  std::string changed = items;
  const std::size_t at = changed.find("\"wikitext2\",\"item\":0,\"figures\":[");
  BOOST_REQUIRE(at != changed.npos);
  changed.insert(changed.find('[', at) + 1, "1");
  std::ofstream(results.path("cut.items.jsonl"), std::ios::binary) << changed;
  BOOST_CHECK(run("cut", "2") != said);
  // But only if it is of the same run.
  const auto refused = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all{"eval",  "--weights",        weights, "--data", folder.path(),
                                 "--out", results.path("one")};
    all.insert(all.end(), more.begin(), more.end());
    test::check_refused(all, "is of another model");
  };
  refused({"--limit", "1"});
  refused({"--context", "64"});
  refused({"--batch", "7"});
  refused({"--tasks", "blimp"});
  std::ofstream(folder.path("lambada/lambada_test.jsonl")) << "{\"text\":\"two words\"}\n";
  refused({});

  // A part of the tests, a part of the items, a text of one's own, a shorter context.
  const auto some = run("some", "1",
                        {"--tasks", "winogrande,arc_easy", "--limit", "1", "--context", "64",
                         "--text", results.path("text")});
  BOOST_CHECK(some.find("64 tokens of context") != some.npos);
  const auto part = nlohmann::json::parse(test::contents(results.path("some")))["tests"];
  BOOST_CHECK_EQUAL(part.size(), 3);
  BOOST_CHECK_EQUAL(part["winogrande"]["items"], 1);
  BOOST_CHECK(part["winogrande"]["whole"]["standard_error"].is_null());
  BOOST_CHECK_EQUAL(part["text"]["items"], 1);
}

BOOST_AUTO_TEST_CASE(a_packed_test_is_left_out_unless_it_is_asked_for) {
  const test::scratch_folder folder, results;
  const std::string weights = trained(results, "byte-decoder");
  lay_out(folder);
  fs::rename(folder.path("hellaswag/hellaswag_val_full.txt"),
             folder.path("hellaswag/hellaswag_val_full.txt.bz2"));
  fs::rename(folder.path("blimp/made_up.jsonl"), folder.path("blimp/BLiMP.zip"));
  const test::outcome o = test::zoo(
      {"eval", "--weights", weights, "--data", folder.path(), "--limit", "1", "--threads", "1"});
  BOOST_TEST(o.status == 0, o.err);
  for (const std::string name : {"hellaswag", "blimp"}) {
    BOOST_TEST(o.err.find(name + " is left out: ") != o.err.npos, o.err);
    BOOST_TEST(o.out.find("\n" + name) == o.out.npos, o.out);
    test::check_refused({"eval", "--weights", weights, "--data", folder.path(), "--tasks", name},
                        "unpack");
  }
  for (const char* const name : {"\narc_easy ", "\nlambada ", "\ngsm8k "})
    BOOST_TEST(o.out.find(name) != o.out.npos, o.out);
}

BOOST_AUTO_TEST_CASE(real_weights) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const std::string data = fs::path(weights).parent_path().parent_path().string();
  const test::scratch_folder folder;
  const std::string said =
      test::zoo_prints({"eval", "--model", "stories260k", "--weights", weights, "--tokenizer",
                        test::data_file("stories260K/tok512.bin"), "--data", data, "--tasks",
                        "tinystories,blimp,arc_easy", "--limit", "40", "--threads", "2", "--out",
                        folder.path("out")});
  const auto tests = nlohmann::json::parse(test::contents(folder.path("out")))["tests"];
  BOOST_CHECK_EQUAL(tests["blimp"]["whole"]["accuracy"],
                    tests["blimp"]["continuation"]["accuracy"]);
  BOOST_CHECK(said.find("40 of 2,376 items") != said.npos);

  // The first story alone, and the first three in windows: nats per token of an independent
  // implementation in numpy (double), with a tokenizer of its own.
  const std::string all =
      test::contents(test::data_file("tinystories/tiny_stories_train_head.txt"));
  std::vector<std::string> stories(1);
  for (std::size_t i = 0; stories.size() < 4; ++i) {
    if (all[i] == '\n' && all[i + 1] != '\n' && all[i - 1] != '\n')
      stories.emplace_back();
    else
      stories.back() += all[i];
  }
  const auto nats = [&](const std::string& text, const char* name) {
    std::ofstream(folder.path(name)) << text;
    const std::string shown =
        test::zoo_prints({"eval", "--model", "stories260k", "--weights", weights, "--tokenizer",
                          test::data_file("stories260K/tok512.bin"), "--text", folder.path(name),
                          "--out", folder.path("nats")});
    const auto found = nlohmann::json::parse(test::contents(folder.path("nats")))["tests"][name];
    BOOST_CHECK(shown.find(" ± n/a") != shown.npos);  // one document has no error
    BOOST_CHECK(found["bits_per_token"]["standard_error"].is_null());
    std::filesystem::remove(folder.path("nats.items.jsonl"));
    return found["bits_per_token"]["value"].get<double>() * std::log(2.0);
  };
  BOOST_CHECK_SMALL(nats(stories[0], "one") - 1.2878, 1e-4);
  BOOST_CHECK_SMALL(nats(stories[1], "two") - 1.6261, 1e-4);
  BOOST_CHECK_SMALL(
      nats(stories[0] + "\n\n" + stories[1] + "\n\n" + stories[2], "three") - 1.4688533, 1e-5);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder, results;
  const std::string weights = trained(results, "byte-decoder"), t5 = trained(results, "byte-t5");
  lay_out(folder);
  const auto refused = [&](const std::vector<std::string>& more, const std::string& words) {
    std::vector<std::string> all{"eval", "--weights", weights};
    all.insert(all.end(), more.begin(), more.end());
    test::check_refused(all, words);
  };
  refused({}, "nothing to evaluate");
  refused({"--tasks", "blimp"}, "--data");
  refused({"--data", folder.path("absent")}, "does not exist");
  refused({"--data", folder.path(), "--tasks", "blmp"}, "did you mean blimp?");
  refused({"--data", folder.path(), "--tasks", "tinystories"}, "no such folder");
  refused({"--data", folder.path(), "--tasks", "blimp,blimp"}, "twice");
  refused({"--data", results.path()}, "nothing to evaluate");
  refused({"--data", folder.path(), "--context", "257"}, "more than the model's 256");
  refused({"--data", folder.path(), "--limit", "-1"}, "--limit");
  refused({"--data", folder.path(), "--batch", "0"}, "--batch");
  refused({"--data", folder.path(), "--out", folder.path("none/out")}, "no directory");
  refused({"--data", folder.path(), "--model", "gpt2-small"}, "--tokenizer is required");
  refused({"--data", folder.path(), "--model", "t5-mini"}, "encoder-decoder");
  test::check_refused({"eval", "--weights", t5, "--data", folder.path()}, "encoder-decoder");
  std::ofstream(folder.path("arc_easy/test.json")) << "[{\"answer\":\"answer1\"}]";
  refused({"--data", folder.path(), "--tasks", "arc_easy"},
          "arc_easy/test.json:1: instruction: expected a value, got none");
  fs::rename(folder.path("hellaswag/hellaswag_val_full.txt"),
             folder.path("hellaswag/hellaswag_val_full.txt.bz2"));
  refused({"--data", folder.path(), "--tasks", "hellaswag"}, "bunzip2");
  fs::remove(folder.path("blimp/made_up.jsonl"));
  refused({"--data", folder.path(), "--tasks", "blimp"}, "unzip");
  std::ofstream(folder.path("wikitext2/test.txt"), std::ios::trunc);
  refused({"--data", folder.path(), "--tasks", "wikitext2"}, "nothing to evaluate");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::evaluating
