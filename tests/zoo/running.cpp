// SPDX-License-Identifier: MIT
// Models at work: real weights, training, checkpoints, the report.

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "program.hpp"

namespace test::running {

namespace {

/// A text with some structure, always the same.
std::string made_up_text(std::size_t size) {
  const char* const words[] = {"the",   "linnet", "sings", "in",    "a",
                               "small", "tree",   "and",   "flies", "home"};
  std::string text;
  unsigned state = 1;
  while (text.size() < size) {
    state = state * 1664525 + 1013904223;
    text += words[state >> 24 & 7];
    text += (state >> 16 & 15) == 0 ? ".\n" : " ";
    if ((state >> 10 & 63) == 0) text += words[8 + (state >> 9 & 1)];
  }
  return text;
}

std::string written_text(const test::scratch_folder& folder) {
  const std::string path = folder.path("text.txt");
  std::ofstream(path) << made_up_text(40'000);
  return path;
}

std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t at = text.find(begin);
  BOOST_REQUIRE(at != text.npos);
  return text.substr(at + begin.size(), text.find(end, at + begin.size()) - at - begin.size());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_running)

BOOST_AUTO_TEST_CASE(stories260k_writes_what_llama2c_writes) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const std::string tokenizer = test::data_file("stories260K/tok512.bin");
  const std::string expected =
      test::contents(test::data_file("stories260K/expected_greedy_n200.txt")) + "\n";
  const std::vector<std::string> common{"generate",  "--model",       "stories260k",
                                        "--weights", weights,         "--tokenizer",
                                        tokenizer,   "--temperature", "0"};
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    return test::zoo_prints(more);
  };
  for (const char* threads : {"1", "2", "3"})
    BOOST_CHECK_EQUAL(run({"--prompt", "", "--tokens", "200", "--seed", "7", "--threads", threads}),
                      expected);

  // The text continues itself: the first words as prompt give the same text, and the positions
  // count the prompt.
  const std::string words = "Once upon a time";
  BOOST_REQUIRE(expected.starts_with(words));
  BOOST_CHECK_EQUAL(run({"--prompt", words, "--tokens", "200"}), expected);
  BOOST_CHECK_EQUAL(run({"--prompt", words, "--tokens", "4"}), words + "\n");
  std::vector<std::string> longer = common;
  longer.insert(longer.end(), {"--prompt", words, "--tokens", "3"});
  test::check_refused(longer, "4 tokens, but --tokens is 3");
  // What is reported adds up to what was asked for; the begin token is no part of the text.
  longer.back() = "60";
  BOOST_CHECK(test::zoo(longer).err.starts_with("prompt 4 tokens, new 56 tokens, "));
}

// Weights so large that nothing can be chosen: no text, and a reason, not an empty line.
BOOST_AUTO_TEST_CASE(a_model_that_gives_nothing_says_why) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  std::string bytes = test::contents(weights);
  std::int32_t head[7];  // d_model, d_ff, layers, heads, kv_heads, vocabulary, context
  std::memcpy(head, bytes.data(), sizeof head);
  const auto width = static_cast<std::size_t>(head[0]);
  const std::size_t rotary =
      width / static_cast<std::size_t>(head[3]) * static_cast<std::size_t>(head[6]);
  const float large = 3e38f;  // the final norm, before two tables of rotary positions
  for (std::size_t i = 0; i < width; ++i)
    std::memcpy(bytes.data() + bytes.size() - 4 * (rotary + width - i), &large, sizeof large);
  const test::scratch_folder folder;
  const std::string path = folder.path("large.bin");
  std::ofstream(path) << bytes;
  std::vector<std::string> arguments{"generate",
                                     "--model",
                                     "stories260k",
                                     "--weights",
                                     path,
                                     "--tokenizer",
                                     test::data_file("stories260K/tok512.bin"),
                                     "--tokens",
                                     "9"};
  test::check_refused(arguments, "infinite or not numbers");
  arguments.insert(arguments.end(), {"--beams", "2"});
  test::check_refused(arguments, "the sampler chose no token");
}

BOOST_AUTO_TEST_CASE(stories260k_other_ways) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const auto run = [&](std::vector<std::string> more) {
    const std::vector<std::string> common{"generate",
                                          "--model",
                                          "stories260k",
                                          "--weights",
                                          weights,
                                          "--tokenizer",
                                          test::data_file("stories260K/tok512.bin"),
                                          "--tokens",
                                          "60"};
    more.insert(more.begin(), common.begin(), common.end());
    return test::zoo_prints(more);
  };
  const std::string greedy = run({"--temperature", "0"});
  BOOST_REQUIRE(greedy.starts_with("Once upon a time, there was a "));

  // Up to a stop string, the first of several, inside and across tokens.
  BOOST_CHECK_EQUAL(run({"--temperature", "0", "--stop", " was"}), "Once upon a time, there\n");
  BOOST_CHECK_EQUAL(run({"--temperature", "0", "--stop", "there w", "--stop", "me, th"}),
                    "Once upon a ti\n");
  BOOST_CHECK_EQUAL(run({"--temperature", "0", "--stop", "absent"}), greedy);

  // Only the likeliest passes; what was said is said less.
  BOOST_CHECK_EQUAL(run({"--min-p", "1", "--seed", "3"}), greedy);
  BOOST_CHECK_EQUAL(run({"--temperature", "0", "--repetition-penalty", "1"}), greedy);
  BOOST_CHECK(run({"--temperature", "0", "--repetition-penalty", "3"}) != greedy);

  // One beam samples; several find a text that is as long and not the greedy one.
  BOOST_CHECK_EQUAL(run({"--beams", "4", "--threads", "1"}),
                    run({"--beams", "4", "--threads", "2"}));
  BOOST_CHECK(run({"--beams", "4"}).starts_with("Once upon a time"));
  BOOST_CHECK(run({"--beams", "4"}) != greedy);
  BOOST_CHECK_EQUAL(run({"--beams", "4", "--stop", "upon"}), "Once \n");
}

BOOST_AUTO_TEST_CASE(logits_do_not_depend_on_threads) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const auto run = [&](const char* threads) {
    return test::zoo_prints({"logits", "--model", "stories260k", "--weights", weights, "--tokens",
                             "1,403,407,261,378", "--threads", threads, "--json"});
  };
  const std::string one = run("1");
  BOOST_CHECK_EQUAL(one, run("2"));
  BOOST_CHECK_EQUAL(one, run("4"));
  const auto json = nlohmann::json::parse(one);
  BOOST_CHECK_EQUAL(json.size(), 1);
  BOOST_CHECK_EQUAL(json["logits"].size(), 512);
}

BOOST_AUTO_TEST_CASE(weights_that_are_no_numbers_are_refused) {
  const std::string right = test::data_file("stories260K/stories260K.bin");
  if (right.empty()) return;
  const test::scratch_folder folder;
  const std::string tokenizer = test::data_file("stories260K/tok512.bin"),
                    wrong = folder.path("wrong.bin");
  std::string bytes = test::contents(right);
  const float value = std::numeric_limits<float>::infinity();
  std::memcpy(&bytes[28 + 4 * 200], &value, sizeof value);
  std::ofstream(wrong, std::ios::binary) << bytes;
  const std::vector<std::string> model{"--model", "stories260k", "--weights", wrong};
  for (std::vector<std::string> arguments :
       {std::vector<std::string>{"logits", "--tokens", "1", "--json"},
        {"generate", "--tokenizer", tokenizer},
        {"eval", "--tokenizer", tokenizer, "--text", tokenizer}}) {
    arguments.insert(arguments.end(), model.begin(), model.end());
    test::check_refused(arguments, "embedding.weight");
  }
}

BOOST_AUTO_TEST_CASE(seeds_are_read_whole) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const auto run = [&](const char* seed) {
    return test::zoo_prints({"generate", "--model", "stories260k", "--weights", weights,
                             "--tokenizer", test::data_file("stories260K/tok512.bin"), "--tokens",
                             "30", "--seed", seed});
  };
  BOOST_CHECK_EQUAL(run("010"), run("10"));
  BOOST_CHECK(run("18446744073709551615") != run("18446744073709551614"));
}

BOOST_AUTO_TEST_CASE(generated_text_does_nothing_to_a_terminal) {
  const std::string weights = test::data_file("stories260K/stories260K.bin");
  if (weights.empty()) return;
  const std::string tokenizer = test::data_file("stories260K/tok512.bin"),
                    prompt = "\x1b[31mh\xc3\xa9";
  const std::vector<std::string> arguments{"generate", "--model",     "stories260k", "--weights",
                                           weights,    "--tokenizer", tokenizer,     "--tokens",
                                           "20",       "--prompt",    prompt};
  BOOST_CHECK(test::zoo_prints(arguments).starts_with(prompt));  // a file gets every byte
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    std::vector<const char*> words{ZOO_PROGRAM};
    for (const std::string& a : arguments) words.push_back(a.c_str());
    words.push_back(nullptr);
    execv(words[0], const_cast<char**>(words.data()));
    _exit(127);
  }
  BOOST_REQUIRE_GT(child, 0);
  std::string shown;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(terminal, buffer, sizeof buffer)) > 0;)
    shown.append(buffer, static_cast<std::size_t>(n));
  close(terminal);
  int status = -1;
  waitpid(child, &status, 0);
  BOOST_CHECK_EQUAL(status, 0);
  BOOST_CHECK_MESSAGE(shown.find("[31mh\xc3\xa9") != shown.npos, shown);
  BOOST_CHECK(shown.find('\x1b') == shown.npos);
}

BOOST_AUTO_TEST_CASE(rwkv_gives_the_logits_of_rwkv_cpp) {
  for (const std::string name : {"4v0-660K", "7v0-834K"}) {
    const std::string weights = test::data_file("rwkv_tiny/tiny-rwkv-" + name + "-FP32.bin");
    const std::string expected = test::data_file("rwkv_tiny/expected-logits-" + name + ".bin");
    if (weights.empty()) return;
    const auto json = nlohmann::json::parse(
        test::zoo_prints({"logits", "--model", name == "4v0-660K" ? "rwkv4-660k" : "rwkv7-834k",
                          "--weights", weights, "--tokens", "34,105,110", "--json"}));
    std::vector<float> want(256);
    const std::string bytes = test::contents(expected);
    BOOST_REQUIRE_EQUAL(bytes.size(), 1024u);
    std::memcpy(want.data(), bytes.data(), bytes.size());
    const auto got = json["logits"].get<std::vector<float>>();
    BOOST_REQUIRE_EQUAL(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) BOOST_REQUIRE_SMALL(got[i] - want[i], 2e-5f);
  }
}

BOOST_AUTO_TEST_CASE(trains_saves_and_generates) {
  const test::scratch_folder folder;
  const std::string text = written_text(folder);
  for (const std::string model : {"byte-decoder", "byte-t5"})
    for (const std::string ffn : {"standard", "skip", "1w", "1w-relu", "2w", "3w"}) {
      BOOST_TEST_CONTEXT(model << " " << ffn) {
        const auto train = [&](const char* threads, const std::string& file) {
          return test::zoo_prints({"train", text, "--model", model, "--ffn", ffn, "--steps", "6",
                                   "--batch", "2", "--threads", threads, "--seed", "5", "--out",
                                   folder.path(file)});
        };
        const std::string said = train("1", "one");
        BOOST_CHECK(said.find("6 steps") != said.npos && said.find("bits per byte") != said.npos);
        if (ffn == "3w") {  // the same bytes from any number of threads
          train("2", "two");
          BOOST_CHECK(test::contents(folder.path("one")) == test::contents(folder.path("two")));
        }
        const auto write = [&](const char* threads, const char* seed) {
          return test::zoo_prints({"generate", "--model", model, "--weights", folder.path("one"),
                                   "--prompt", "the linnet ", "--tokens", "40", "--temperature",
                                   "0.8", "--top-k", "50", "--top-p", "0.95", "--seed", seed,
                                   "--threads", threads});
        };
        const std::string written = write("1", "3");
        BOOST_CHECK_EQUAL(written.starts_with("the linnet "), model == "byte-decoder");
        BOOST_CHECK_EQUAL(written, write("2", "3"));
        if (model == "byte-decoder") BOOST_CHECK_EQUAL(written.size(), 41);
        if (ffn == "standard")
          BOOST_CHECK_EQUAL(test::zoo_prints({"generate", "--weights", folder.path("one"),
                                              "--prompt", "the linnet ", "--beams", "3"})
                                .starts_with("the linnet "),
                            model == "byte-decoder");
      }
    }
  test::check_refused({"generate", "--model", "byte-decoder", "--weights", folder.path("one")},
                      "is a byte-t5");
  test::check_refused({"generate", "--weights", folder.path("one"), "--tokens", "65"}, "--tokens");
  test::check_refused({"generate", "--weights", folder.path("one"), "--suffix", "x"},
                      "--prefix and --suffix go with");
}

BOOST_AUTO_TEST_CASE(training_learns) {
  const test::scratch_folder folder;
  const std::string said =
      test::zoo_prints({"train", written_text(folder), "--minutes", "0.17", "--batch", "2",
                        "--threads", "1", "--out", folder.path("model")});
  BOOST_CHECK_LT(std::stod(between(said, "held out ", " bits")), 4.0);  // bytes alone: about 4
  BOOST_CHECK_EQUAL(
      test::zoo_prints({"generate", "--weights", folder.path("model"), "--temperature", "0",
                        "--prompt", "the linnet sin", "--tokens", "15"})
          .size(),
      16);
}

BOOST_AUTO_TEST_CASE(quickstart_prints_a_table_and_writes_a_report) {
  const test::scratch_folder folder;
  const std::string report = folder.path("report.html");
  const std::string said = test::zoo_prints({"quickstart", written_text(folder), "--report", report,
                                             "--steps", "4", "--batch", "1", "--threads", "1"});
  for (const char* row : {"\nstandard  ", "\nstandard, int8  ", "\nskip  ", "\nskip, int8  ",
                          "\n3w  ", "\n3w, collapsed  ", "\n3w, collapsed, int8  "})
    BOOST_CHECK_MESSAGE(said.find(row) != said.npos, "no row" << row);
  for (const char* sample : {"--- standard (", "--- 3w, collapsed, int8 ("})
    BOOST_CHECK_MESSAGE(said.find(sample) != said.npos, "no " << sample);
  BOOST_CHECK_LT(std::stod(between(said, "differ by ", " at most")), 1e-4);

  const std::string html = test::contents(report);
  BOOST_CHECK(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  std::size_t plots = 0;
  for (std::size_t at = 0; (at = html.find("<svg", at)) != html.npos; ++at) ++plots;
  BOOST_CHECK_EQUAL(plots, 5);
  for (const char* outside :
       {"http:", "https:", "<script", "<link", "<img", "url(h", "@import", "nan", "inf\""})
    BOOST_CHECK_MESSAGE(html.find(outside) == html.npos, "the report has " << outside);
}

BOOST_AUTO_TEST_CASE(sweep_compares_all_variants) {
  const test::scratch_folder folder;
  const std::string report = folder.path("report.html");
  for (const std::string model : {"byte-decoder", "byte-t5"}) {
    const std::string said =
        test::zoo_prints({"sweep", written_text(folder), "--model", model, "--report", report,
                          "--steps", "2", "--batch", "1", "--threads", "1"});
    for (const char* row : {"\nstandard ", "\nskip ", "\n1w ", "\n1w-relu ", "\n2w ", "\n3w "})
      BOOST_CHECK_MESSAGE(said.find(row) != said.npos, "no row" << row);
    BOOST_CHECK(test::contents(report).ends_with("</html>\n"));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::running
