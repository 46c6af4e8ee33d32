// SPDX-License-Identifier: MIT
// zoo train --text: any model with any tokenizer, to a folder that generate and eval take.

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <linnet/linnet.hpp>

#include "workshop.hpp"

#ifndef LINNET_MPIEXEC  // the launcher of the MPI that zoo is built with
#define LINNET_MPIEXEC "mpirun"
#endif

namespace test::training {

using test::check_refused;
namespace fs = std::filesystem;
namespace ln = linnet;

/// What all tests but the last train.
constexpr const char* small = test::small_decoder;

constexpr const char* small_copy = "decoder:layers=1,d_model=8,heads=2,context=32,d_ff=16";

using workshop = test::training_workshop;

namespace {

/// Runs a command of a shell in which $ZOO is the program; its status.
int shell(const std::string& command) {
  const int status = std::system(("ZOO=" + test::quoted(ZOO_PROGRAM) + "; " + command).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// The tags of a page that are never closed, or closed without being open.
std::string unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != html.npos; at = html.find('<', at + 1)) {
    const std::size_t end = html.find('>', at);
    if (end == html.npos) return "a tag without end";
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag.starts_with('!') || tag.starts_with("meta") || tag.ends_with('/')) continue;
    const std::string name =
        tag.substr(tag[0] == '/', tag.find_first_of(" \n", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] != '/') {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return tag + " behind " + (open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(zoo_training, workshop)

BOOST_AUTO_TEST_CASE(every_tokenizer_trains_a_folder_that_generates_and_is_judged) {
  const std::string learned = folder.path("bpe"), merges = folder.path("gpt2/vocab.bpe"),
                    pieces = test::data_file("sentencepiece_1k/test_model.model");
  std::vector<std::string> kinds{"bytes", "bpe:300", "gpt2:" + folder.path("gpt2")};
  const bool has_sentencepiece = test::zoo({"generate", "--model", "t5-tiny", "--weights", text,
                                            "--tokenizer", "sentencepiece:" + text})
                                     .err.find("was built without") == std::string::npos;
  if (!pieces.empty() && has_sentencepiece) kinds.push_back("sentencepiece:" + pieces);
  for (const std::string& kind : kinds) {
    BOOST_TEST_CONTEXT(kind) {
      const std::string out = folder.path(kind.substr(0, kind.find(':')));
      const std::string to = kind.starts_with("gpt2") ? out + "-out" : out;
      const double bits =
          bits_of(test::zoo_prints(train(to, "60", {"--tokenizer", kind, "--rate", "0.01"})));
      BOOST_CHECK_LT(bits, kind == "bytes" ? 6.0 : 5.0);
      const std::string wrote = test::zoo_prints(
          {"generate", "--weights", to, "--prompt", "the linnet", "--tokens", "20"});
      BOOST_CHECK_MESSAGE(wrote.starts_with("the linnet"), wrote);
      const std::string results = folder.path("results.json");
      std::remove((results + ".items.jsonl").c_str());
      test::zoo_prints({"eval", "--weights", to, "--text", text, "--limit", "2", "--out", results});
      const auto json = nlohmann::json::parse(test::contents(results));
      BOOST_CHECK_EQUAL(json["model"], small);
      // The training's own figure, of another part of the same text.
      const double judged = json["tests"]["text.txt"]["bits_per_byte"]["value"].get<double>();
      BOOST_CHECK_MESSAGE(std::abs(judged - bits) < 0.25 * bits, judged << " beside " << bits);
      BOOST_CHECK(!fs::exists(to + "/training.ckpt"));
      if (kind == "bytes") {  // and rounded, which is nearly as good
        test::zoo_prints({"eval", "--weights", to, "--text", text, "--limit", "2", "--storage",
                          "int8", "--out", results + ".int8"});
        const auto rounded = nlohmann::json::parse(test::contents(results + ".int8"));
        BOOST_CHECK_EQUAL(rounded["model"], small + std::string(" (storage int8, compute f32)"));
        const double bits8 = rounded["tests"]["text.txt"]["bits_per_byte"]["value"].get<double>();
        BOOST_CHECK(bits8 != judged && std::abs(bits8 - judged) < 0.02);
      }
      if (kind == "bpe:300") {
        fs::create_directory(folder.path("gpt2"));
        fs::copy_file(learned + "/vocab.bpe", merges);
      }
    }
  }
  // The merges that were learned are GPT-2's format: read again, they are the same tokenizer.
  BOOST_CHECK(test::contents(learned + "/model.safetensors") ==
              test::contents(folder.path("gpt2-out/model.safetensors")));
}

BOOST_AUTO_TEST_CASE(a_training_that_was_ended_goes_on_to_the_same_bits) {
  const std::string whole = folder.path("whole"), out = folder.path("out");
  constexpr const char* steps = "300";
  const auto options = [](const std::vector<std::string>& more, const char* dropout = "0.1",
                          const char* objective = "fim") {
    std::vector<std::string> all{"--tokenizer", "bpe:290",     "--dropout",
                                 dropout,       "--objective", objective};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  test::zoo_prints(train(whole, steps, options({})));
  std::string command = "\"$ZOO\"";
  for (const std::string& a : train(out, steps, options({"--save-every", "0", "--resume"})))
    command += ' ' + test::quoted(a);
  const auto ended_by = [&](const std::string& signal) {
    const std::string log = test::quoted(out + "/training.jsonl"),
                      size = "$(cat " + log + " 2>/dev/null | wc -l)";
    return shell("exec 2>/dev/null; before=" + size + "; " + command + " >" +
                 test::quoted(folder.path("said")) + " 2>&1 & pid=$!; before=" + size +
                 "; while [ " + size + " -lt $((before + 4)) ]; do sleep 0.01; done; kill -" +
                 signal + " $pid; wait $pid");
  };
  BOOST_CHECK_EQUAL(ended_by("KILL"), 128 + 9);
  BOOST_REQUIRE(fs::exists(out + "/training.ckpt") && !fs::exists(out + "/model.safetensors"));
  BOOST_CHECK_EQUAL(ended_by("TERM"), 128 + 15);
  const std::string said = test::contents(folder.path("said"));
  BOOST_CHECK_MESSAGE(said.find("--resume goes on") != said.npos, said);
  // What there is can be used, and is not begun anew, nor gone on with by other options.
  BOOST_CHECK_EQUAL(test::zoo({"generate", "--weights", out, "--tokens", "9"}).status, 0);
  check_refused(train(out, steps, options({})), "--resume");
  check_refused(train(out, steps, options({"--resume"}, "0.2")), "begun with dropout 0.1, not 0.2");
  check_refused(train(out, steps, options({"--resume"}, "0.1", "prefix")),
                "begun with objective \"fim\", not \"prefix\"");
  BOOST_CHECK_EQUAL(shell(command + " >/dev/null 2>&1"), 0);
  BOOST_CHECK(test::contents(out + "/model.safetensors") ==
              test::contents(whole + "/model.safetensors"));
  const auto result = [](const std::string& of) {
    return nlohmann::json::parse(test::contents(of + "/zoo.json"))["result"]["bits"].get<double>();
  };
  BOOST_CHECK_EQUAL(result(out), result(whole));
  BOOST_CHECK(!fs::exists(out + "/training.ckpt"));
  // A chat goes on with the text where the tokenizer has no marks of ChatML.
  const std::string talk = folder.path("talk");
  BOOST_CHECK_EQUAL(
      shell("printf 'the linnet\n' | \"$ZOO\" chat --temperature 0 --tokens 9 --weights " +
            test::quoted(whole) + " >" + test::quoted(talk) + " 2>/dev/null"),
      0);
  const std::string written = test::contents(talk);
  BOOST_REQUIRE(written.size() > 1);
  BOOST_CHECK(test::zoo_prints({"generate", "--weights", whole, "--prompt", "the linnet\n",
                                "--temperature", "0"})
                  .starts_with("the linnet\n" + written.substr(0, written.size() - 1)));
  // What it writes between two texts is what it finds likeliest behind them, marked as they are in
  // training: prefix, suffix, middle.
  const auto words = ln::bpe_tokenizer::parse(test::contents(whole + "/vocab.bpe"));
  const auto marks = nlohmann::json::parse(test::contents(whole + "/zoo.json"))["middle_tokens"];
  std::vector<ln::token> ids{marks["prefix"].get<ln::token>()};
  BOOST_REQUIRE(words && words->encode("the lin", ids));
  ids.push_back(marks["suffix"].get<ln::token>());
  BOOST_REQUIRE(words->encode(" sings", ids));
  ids.push_back(marks["middle"].get<ln::token>());
  const std::string tokens = std::to_string(ids.size() + 3);
  std::vector<ln::token> middle;
  for (int i = 0; i < 3; ++i) {
    std::string shown;
    for (const ln::token id : ids) shown += (shown.empty() ? "" : ",") + std::to_string(id);
    const auto numbers = nlohmann::json::parse(
        test::zoo_prints({"logits", "--weights", whole, "--tokens", shown, "--json"}))["logits"];
    const auto best =
        static_cast<ln::token>(std::max_element(numbers.begin(), numbers.end()) - numbers.begin());
    if (best == marks["prefix"] || best == marks["suffix"] || best == marks["middle"]) break;
    ids.push_back(best);
    middle.push_back(best);
  }
  const auto filling = [&](const std::string& of, const std::vector<std::string>& more) {
    std::vector<std::string> all{"generate", "--weights",     of, "--prefix", "the lin", "--suffix",
                                 " sings",   "--temperature", "0"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  BOOST_CHECK_EQUAL(test::zoo_prints(filling(whole, {"--tokens", tokens})),
                    "the lin" + words->decode(middle) + " sings\n");
  check_refused(filling(whole, {"--tokens", "4"}), "--prefix and --suffix: ");
  check_refused(filling(whole, {"--prompt", "x"}), "--prompt");
  // A training that has ended is not repeated.
  const std::string again = test::zoo_prints(train(out, steps, options({"--resume"})));
  BOOST_CHECK_MESSAGE(again.find("trained already") != again.npos, again);
  // The marks are three ids behind the tokenizer's.
  const auto told = nlohmann::json::parse(test::contents(out + "/zoo.json"));
  const auto mark = [&](const char* name) { return told["middle_tokens"][name].get<int>(); };
  BOOST_CHECK_GT(mark("prefix"), 256);
  BOOST_CHECK_EQUAL(mark("suffix"), mark("prefix") + 1);
  BOOST_CHECK_EQUAL(mark("middle"), mark("prefix") + 2);
}

// Processes share each batch: the bits are those of one process with as many parts, also where
// others go on with the training. Without an MPI, one line says so.
BOOST_AUTO_TEST_CASE(processes_train_together_with_the_same_bits) {
  const std::string one = folder.path("one"), two = folder.path("two");
  const auto arguments = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> all = train(out, "4", {"--dropout", "0.1", "--length", "16"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const test::outcome alone = test::zoo(arguments(one, {"--parts", "2"}));
  if (alone.err.find("built without an MPI") != alone.err.npos)
    return check_refused(arguments(one, {"--parts", "2"}), "so it trains in one process");
  BOOST_REQUIRE_MESSAGE(alone.status == 0, alone.err);
  const auto ranks = [&](int n, const std::vector<std::string>& more) {
    std::vector<std::string> all{"OMPI_ALLOW_RUN_AS_ROOT=1",
                                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                 "OMPI_MCA_rmaps_base_oversubscribe=1",
                                 LINNET_MPIEXEC,
                                 "-n",
                                 std::to_string(n),
                                 ZOO_PROGRAM};
    all.insert(all.end(), more.begin(), more.end());
    return test::run_program("/usr/bin/env", all);
  };
  // A step by two processes, whose parts zoo.json keeps; then one by one process, and so on.
  const auto ended = [&] {
    return test::contents(two + "/zoo.json").find("\"result\"") != std::string::npos;
  };
  int calls = 0;
  for (; calls < 4 && (calls == 0 || !ended()); ++calls) {
    const test::outcome some =
        ranks(2 - calls % 2, arguments(two, {"--resume", "--minutes", "1e-6"}));
    BOOST_REQUIRE_MESSAGE(some.status == 0, some.out + some.err);
    BOOST_CHECK_EQUAL(some.err.find("going on from step") != std::string::npos, calls > 0);
    // The first process alone prints.
    BOOST_CHECK(some.out.find("saved") != std::string::npos);
    BOOST_CHECK_EQUAL(some.out.find("saved"), some.out.rfind("saved"));
  }
  BOOST_CHECK(calls == 4 && ended());
  BOOST_CHECK(test::contents(two + "/model.safetensors") ==
              test::contents(one + "/model.safetensors"));
  const auto losses = [](const std::string& of) {
    std::ifstream log(of + "/training.jsonl");
    std::string lines;
    for (std::string line; std::getline(log, line);)
      lines += line.substr(0, line.find(",\"seconds")) + '\n';
    return lines;
  };
  const std::string steps = losses(one);
  BOOST_CHECK_EQUAL(losses(two), steps);
  BOOST_CHECK_EQUAL(std::count(steps.begin(), steps.end(), '\n'), 4);
  for (const auto& file : fs::directory_iterator(two))
    BOOST_CHECK(!file.path().filename().string().starts_with("training.ckpt"));

  check_refused(train(folder.path("odd"), "3", {"--parts", "3"}), "a divisor of the 2 examples");
  {
    const test::with_variable size("SLURM_STEP_NUM_TASKS", "3"), rank("PMIX_RANK", "0");
    check_refused(train(folder.path("few"), "3"), "fewer examples than the 3 processes");
  }
  {  // Variables of one MPI, words of another.
    const test::with_variable size("PMI_SIZE", "2"), rank("PMI_RANK", "0");
    check_refused(train(folder.path("other"), "4", {"--length", "16"}), "of another MPI");
  }
  const test::with_variable size("OMPI_COMM_WORLD_SIZE", "3"), rank("OMPI_COMM_WORLD_RANK", "0");
  check_refused(train(folder.path("few"), "3"), "fewer examples than the 3 processes");
  check_refused({"train", text}, "several processes train with --text");
  check_refused({"sweep", text}, "zoo sweep runs in one process");
  check_refused({"quickstart", text}, "zoo quickstart runs in one process");
  check_refused({"finetune", "--weights", one, "--text", text, "--out", folder.path("tuned")},
                "zoo train takes several");
}

BOOST_AUTO_TEST_CASE(other_objectives_train_the_same_model) {
  const std::string plain = folder.path("plain");
  test::zoo_prints(train(plain, "4"));
  check_refused({"generate", "--weights", plain, "--suffix", "x"},
                "has not learned to fill a middle");
  // The word that is usual for the model asks for the same examples.
  test::zoo_prints(train(folder.path("named"), "4", {"--objective", "next_token"}));
  BOOST_CHECK(test::contents(folder.path("named/model.safetensors")) ==
              test::contents(plain + "/model.safetensors"));
  std::string before = test::contents(plain + "/model.safetensors");
  for (const std::string word : {"prefix", "ul2", "independent"}) BOOST_TEST_CONTEXT(word) {
      const bool gaps = word != "prefix";
      const std::string out = folder.path(word),
                        said = test::zoo_prints(train(out, "4",
                                                      {"--objective", word, "--tokenizer",
                                                       gaps ? "byt5" : "bytes", "--rate", "0.01"}));
      BOOST_CHECK_EQUAL(said.find("masked byte") != said.npos, gaps);
      BOOST_CHECK(std::exchange(before, test::contents(out + "/model.safetensors")) !=
                  test::contents(out + "/model.safetensors"));
      const auto told = nlohmann::json::parse(test::contents(out + "/zoo.json"));
      BOOST_CHECK_EQUAL(told["objective"], word);
      BOOST_CHECK_EQUAL(told["tokenizer"], gaps ? "byt5" : "bytes");
      // The last sentinels, which stand behind the bytes, are the modes.
      BOOST_CHECK_EQUAL(told.value("mode_tokens", nlohmann::json()).dump(),
                        word == "ul2" ? R"({"R":259,"S":260,"X":261})" : "null");
      const std::string wrote = test::zoo_prints(
          {"generate", "--weights", out, "--prompt", "the linnet", "--tokens", "20"});
      BOOST_CHECK_MESSAGE(wrote.starts_with("the linnet"), wrote);
    }
}

BOOST_AUTO_TEST_CASE(texts_are_mixed_as_asked_and_the_page_says_so) {
  written("books/a.txt", 400, "one two three ");
  written("books/b/c.txt", 400, "apples & pears <i> ");
  written("books/b/d.txt", 200, "plums ");
  std::vector<std::string> arguments = train(folder.path("mixed"), "8", {"--mix", "a.txt=3,b=1"});
  const auto at = std::find(arguments.begin(), arguments.end(), text);
  *at = folder.path("books");
  test::zoo_prints(arguments);
  const std::string html = test::contents(folder.path("mixed/report.html"));
  BOOST_CHECK(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  BOOST_CHECK_EQUAL(
      unbalanced(html.substr(0, html.find("<style>")) + html.substr(html.find("</style>") + 8)),
      "");
  for (const char* const part :
       {"<td>a.txt</td>", "<td>b</td>", "a.txt=3,b=1", "What it writes", "optimizer steps"})
    BOOST_CHECK_MESSAGE(html.find(part) != html.npos, "the report has no " << part);
  for (const char* const outside :
       {"http:", "https:", "<script", "<link", "<img", "url(h", "@import", "nan", "inf\""})
    BOOST_CHECK_MESSAGE(html.find(outside) == html.npos, "the report has " << outside);
  // Other weights are another training; so is no mixture.
  arguments = train(folder.path("even"), "8", {"--mix", "a.txt=1,b=1"});
  *std::find(arguments.begin(), arguments.end(), text) = folder.path("books");
  test::zoo_prints(arguments);
  BOOST_CHECK(test::contents(folder.path("even/model.safetensors")) !=
              test::contents(folder.path("mixed/model.safetensors")));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_trained_is_refused_before_anything_is_compiled) {
  const std::string out = folder.path("out"), empty = folder.path("empty.txt"),
                    tiny = folder.path("tiny.txt"), full = folder.path("full");
  std::ofstream(empty).close();
  std::ofstream(tiny) << "too short";
  written("full/other", 1, "");
  setenv("CXX", "/bin/false", 1);
  const auto with = [&](std::vector<std::string> changed) {
    std::vector<std::string> all = train(out, "3");
    for (std::size_t i = 0; i < changed.size(); i += 2) {
      const auto at = std::find(all.begin(), all.end(), changed[i]);
      if (at != all.end())
        *(at + 1) = changed[i + 1];
      else
        all.insert(all.end(), {changed[i], changed[i + 1]});
    }
    return all;
  };
  check_refused(with({"--text", empty}), "is empty");
  check_refused(with({"--text", tiny}), "too short");
  check_refused(with({"--text", folder.path("absent")}), "does not exist");
  check_refused(with({"--text", full}), "no .txt file");
  check_refused(with({"--tokenizer", "byte"}), "no such tokenizer");
  check_refused(with({"--tokenizer", "bpe:12"}), "257");
  check_refused(with({"--tokenizer", "bpe:2000x"}), "257");
  check_refused(with({"--mix", "text.txt=0"}), "name=weight");
  check_refused(with({"--mix", "other=1"}), "known: text.txt");
  check_refused(with({"--out", full}), "holds other files");
  check_refused(with({"--out", text}), "is a file");
  check_refused(with({"--out", text + "/in/it"}), "text.txt is a file");
  check_refused(with({"--length", "33"}), "context of 32");
  check_refused(with({"--model", "stlm-10"}), "did you mean stlm-10m?");
  check_refused(with({"--model", "stlm-10m:width=3"}), "has no width");
  check_refused(with({"--model", "stlm-10m:norm=rms"}), "decoder:norm=rms");
  check_refused(with({"--model", "decoder:heads=3"}), "do not fit");
  check_refused(with({"--model", "decoder:heads"}), "field=value");
  check_refused(with({"--model", "decoder:layers=2,layers=2"}), "twice");
  check_refused(with({"--model", "decoder:layers=-2"}), "above 0");
  check_refused(with({"--model", "decoder:vocabulary=100"}), "100");
  check_refused(with({"--model", "t5", "--tokenizer", "bpe:300"}), "T5's ids");
  check_refused(with({"--optimizer", "rmsprop"}), "known: adamw, adafactor");
  check_refused(with({"--objective", "ul3"}), "did you mean ul2?");
  check_refused(with({"--objective", "ul2"}), "give byt5");
  check_refused(with({"--objective", "spans"}), "no sentinels");
  check_refused(with({"--objective", "spans", "--tokenizer", "byt5", "--length", "3"}),
                "no room for a text with gaps");
  check_refused(with({"--objective", "fim", "--model", "decoder:vocabulary=258"}), "needs 259 ids");
  check_refused(with({"--objective", "fim", "--model", "t5"}), "is for decoders");
  check_refused(with({"--compute", "int8"}), "known: f32, bf16");
  check_refused(with({"--schedule", "linear"}), "unknown schedule");
  check_refused(with({"--ffn", "skip-encoder"}), "decoder-only");
  check_refused({"train", "--text", text}, "--out");
  check_refused({"train"}, "TEXTFILE or --text");
  check_refused({"train", text, "--tokenizer", "bytes"}, "--text");
  check_refused({"train", text, "--objective", "ul2"}, "--text");
  check_refused({"train", text, "--text", text, "--out", out}, "--text");
  for (const char* const option : {"--lora-alpha", "--lora-dropout", "--lora-target"})
    check_refused({"finetune", "--text", text, "--model", "decoder", "--out", out, option, "0.5"},
                  "goes with --lora or --qlora");
  // Last of all, the compiler.
  const test::outcome o = test::zoo(with({}));
  unsetenv("CXX");
  BOOST_CHECK_EQUAL(o.status, 2);
  BOOST_CHECK_MESSAGE(o.err.find("CXX names a compiler") != o.err.npos, o.err);
  BOOST_CHECK(!fs::exists(out));
}

BOOST_AUTO_TEST_CASE(a_signal_that_ends_the_compiler_ends_zoo) {
  const std::string out = folder.path("out"), compiler = folder.path("compiler");
  std::ofstream(compiler) << "#!/bin/sh\nkill -INT $$\n";
  fs::permissions(compiler, fs::perms::owner_all);
  setenv("CXX", compiler.c_str(), 1);
  const test::outcome o = test::zoo(train(out, "3"));
  unsetenv("CXX");
  BOOST_CHECK_EQUAL(o.status, 128 + SIGINT);
  BOOST_CHECK_MESSAGE(o.err.find("zoo: stopped by a signal (Interrupt)") != o.err.npos, o.err);
  BOOST_CHECK(!fs::exists(out));
}

BOOST_AUTO_TEST_CASE(a_folder_of_another_hand_is_refused) {
  const std::string out = folder.path("out");
  fs::create_directory(out);
  const auto with = [&](const std::string& json) {
    std::ofstream(out + "/zoo.json") << json;
    return std::vector<std::string>{"generate", "--weights", out};
  };
  const std::string rest = R"(,"ffn":"standard","optimizer":"adamw","compute":"f32"})";
  check_refused(with("{"), "zoo.json");
  check_refused(with("{}"), "format");
  check_refused(with(R"({"format":"linnet zoo","model":3,"tokenizer":"bytes")" + rest), "model");
  check_refused(with(R"({"format":"linnet zoo","model":"x;y","tokenizer":"bytes")" + rest),
                "unknown model");
  // What it says never becomes C++ as it stands.
  check_refused(
      with(R"({"format":"linnet zoo","model":"decoder:norm=rms;int x","tokenizer":"bytes")" + rest),
      "unknown norm");
  check_refused(with(R"({"format":"linnet zoo","model":"t5","tokenizer":"../other")" + rest),
                "a name in the folder");
  const std::string known = R"({"format":"linnet zoo","model":"decoder","tokenizer":"bytes")";
  check_refused(with(known + R"(,"length":"long")" + rest), "length: expected a whole number");
  check_refused(with(known + R"(,"result":{"bits":"few"})" + rest), "result: expected an object");
}

BOOST_AUTO_TEST_CASE(a_model_that_is_there_goes_on_or_teaches_another) {
  const std::string first = folder.path("first"), tuned = folder.path("tuned"),
                    student = folder.path("student"),
                    other = written("other.txt", 1'500, "a wren answers ");
  const double before = bits_of(test::zoo_prints(train(first, "60", {"--rate", "0.01"})));
  const auto command = [&](const std::string& name, const std::string& out,
                           const std::vector<std::string>& more) {
    std::vector<std::string> all{name, "--out", out, "--batch", "2", "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  // A step of nearly nothing shows what it begins with.
  const auto finetune = [&](const std::string& out, const std::string& from,
                            const std::vector<std::string>& more) {
    std::vector<std::string> all = command("finetune", out, {"--weights", from});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const double same = bits_of(test::zoo_prints(
      finetune(folder.path("same"), first, {"--text", text, "--steps", "1", "--rate", "1e-7"})));
  BOOST_CHECK_MESSAGE(std::abs(same - before) < 1e-3, same << " after " << before);
  const double untuned = bits_of(test::zoo_prints(finetune(
      folder.path("untuned"), first, {"--text", other, "--steps", "1", "--rate", "1e-7"})));
  const double bits = bits_of(test::zoo_prints(
      finetune(tuned, first, {"--text", other, "--steps", "60", "--rate", "0.003"})));
  BOOST_CHECK_MESSAGE(bits < untuned - 0.3, bits << " after " << untuned);
  BOOST_CHECK_EQUAL(test::zoo({"generate", "--weights", tuned, "--tokens", "9"}).status, 0);
  // The weights are files of a model that is named, too.
  const std::string named = folder.path("named");
  test::zoo_prints(finetune(named, first + "/model.safetensors",
                            {"--text", other, "--steps", "60", "--rate", "0.003", "--model", small,
                             "--tokenizer", "bytes"}));
  BOOST_CHECK(test::contents(named + "/model.safetensors") ==
              test::contents(tuned + "/model.safetensors"));

  // Weights that cannot be learned from leave no folder behind.
  const std::string damaged = folder.path("damaged.safetensors"), none = folder.path("none");
  {
    std::string bytes = test::contents(first + "/model.safetensors");
    std::fill(bytes.end() - 4, bytes.end(), '\xff');
    std::ofstream(damaged) << bytes;
  }
  const test::outcome unread = test::zoo(
      finetune(none, damaged, {"--text", other, "--model", small, "--tokenizer", "bytes"}));
  BOOST_CHECK_EQUAL(unread.status, 2);
  BOOST_CHECK_MESSAGE(unread.err.find("expected finite numbers") != unread.err.npos, unread.err);
  BOOST_CHECK(!fs::exists(none));

  // An adapter learns it, too, on frozen codes; the file is what it and they make together.
  const std::string adapted = folder.path("adapted");
  const std::vector<std::string> nothing{"--text", other, "--steps", "1", "--rate", "1e-7"};
  const double by_adapter = bits_of(test::zoo_prints(finetune(
      adapted, first, {"--text", other, "--steps", "60", "--rate", "0.01", "--qlora", "4"})));
  BOOST_CHECK_MESSAGE(by_adapter < untuned - 0.3, by_adapter << " after " << untuned);
  const double merged =
      bits_of(test::zoo_prints(finetune(folder.path("merged"), adapted, nothing)));
  BOOST_CHECK_MESSAGE(std::abs(merged - by_adapter) < 1e-3, merged << " beside " << by_adapter);
  const auto config =
      nlohmann::json::parse(test::contents(adapted + "/adapter/adapter_config.json"));
  BOOST_CHECK_EQUAL(config["r"], 4);
  BOOST_CHECK(fs::exists(adapted + "/adapter/adapter_model.safetensors"));

  // So do deltas on the numbers themselves. Put off behind each step, they end with the same bits.
  const auto by_deltas = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> all = finetune(out, first,
                                            {"--text", other, "--steps", "3", "--rate", "0.01",
                                             "--lora", "2", "--lora-dropout", "0.1"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string at_once = folder.path("at_once"), put_off = folder.path("put_off");
  test::zoo_prints(by_deltas(at_once, {}));
  for (int n = 0; n < 2; ++n) {
    const std::string said =
        test::zoo_prints(by_deltas(put_off, {"--minutes", "1e-6", "--resume"}));
    BOOST_CHECK_MESSAGE(said.find("--resume goes on from there") != said.npos, said);
  }
  BOOST_CHECK(fs::exists(put_off + "/training.ckpt"));
  check_refused(by_deltas(put_off, {"--lora-alpha", "8", "--resume"}),
                "begun with lora_alpha 16.0, not 8.0");
  test::zoo_prints(by_deltas(put_off, {"--resume"}));
  for (const char* const file : {"/model.safetensors", "/adapter/adapter_model.safetensors"})
    BOOST_CHECK(test::contents(put_off + file) == test::contents(at_once + file));
  BOOST_CHECK(test::contents(at_once + "/model.safetensors") !=
              test::contents(first + "/model.safetensors"));

  // Soft tokens learn it, too; the file is the model that they stand before.
  const std::string prompted = folder.path("prompted");
  const double by_prompt = bits_of(test::zoo_prints(finetune(
      prompted, first, {"--text", other, "--steps", "60", "--rate", "0.05", "--prompt", "4"})));
  BOOST_CHECK_MESSAGE(by_prompt < untuned - 0.5, by_prompt << " after " << untuned);
  const auto soft =
      nlohmann::json::parse(test::contents(prompted + "/adapter/adapter_config.json"));
  BOOST_CHECK_EQUAL(soft["num_virtual_tokens"], 4);
  BOOST_CHECK(test::contents(prompted + "/model.safetensors") ==
              test::contents(first + "/model.safetensors"));
  BOOST_CHECK(test::contents(prompted + "/report.html").find("<td>prompt</td>") !=
              std::string::npos);

  // It cannot be merged, so the commands run it beside them.
  const auto of_text = [&](const std::string& folder_of) {
    const std::string results = folder_of + ".json";
    test::zoo_prints(
        {"eval", "--weights", folder_of, "--text", other, "--limit", "2", "--out", results});
    const auto json = nlohmann::json::parse(test::contents(results));
    return json["tests"]["other.txt"]["bits_per_byte"]["value"].get<double>();
  };
  BOOST_CHECK_LT(of_text(prompted), of_text(first));
  const auto writes_of = [&](const std::string& folder_of) {
    return test::zoo_prints({"generate", "--weights", folder_of, "--prompt", "a ", "--tokens", "20",
                             "--temperature", "1", "--seed", "3"});
  };
  const std::string with_prompt = writes_of(prompted);
  BOOST_CHECK_MESSAGE(with_prompt != writes_of(first), with_prompt);
  check_refused({"generate", "--weights", prompted, "--prompt", "a ", "--storage", "int8"},
                "has an adapter (prompt 4)");
  check_refused(command("finetune", folder.path("refused"),
                        {"--weights", prompted, "--text", text, "--steps", "1"}),
                "is not merged");

  // With alpha 0 a student never asks the text's tokens: what it learns is the teacher's.
  const auto distil = [&](const std::string& out, const std::string& teacher) {
    return bits_of(test::zoo_prints(
        command("distil", out,
                {"--teacher-weights", teacher, "--text", text, "--steps", "200", "--rate", "0.02",
                 "--model", small_copy, "--alpha", "0", "--temperature", "1"})));
  };
  const double by_first = distil(student, first), by_tuned = distil(folder.path("other"), tuned);
  BOOST_CHECK_MESSAGE(by_first < before + 0.5, by_first << " of a teacher's " << before);
  BOOST_CHECK_MESSAGE(by_tuned > by_first + 0.3, by_tuned << " and " << by_first);
  // Its hidden states are learned, too, behind filters that learn first. Put off in that stage and
  // in the next one, it ends with the same bits.
  const std::string matched = folder.path("matched"), whole = folder.path("whole");
  const auto by_states = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> all =
        command("distil", out,
                {"--teacher-weights", first, "--text", text, "--steps", "20", "--rate", "0.02",
                 "--model", small_copy, "--match", "ted", "--filter-steps", "5"});
    all.insert(all.end(), more.begin(), more.end());
    return test::zoo_prints(all);
  };
  const std::string soon = by_states(matched, {"--minutes", "0.000001"});
  BOOST_CHECK_MESSAGE(soon.find("of the filters, so there is no model yet; --resume") != soon.npos,
                      soon);
  BOOST_CHECK(!fs::exists(matched + "/filters.safetensors"));
  check_refused({"generate", "--weights", matched},
                "holds no model yet, its filters still learn; zoo distil --resume");
  for (int n = 0; n < 5; ++n) by_states(matched, {"--minutes", "0.000001", "--resume"});
  BOOST_CHECK(fs::exists(matched + "/filters.safetensors"));
  by_states(matched, {"--resume"});
  by_states(whole, {});
  BOOST_CHECK(test::contents(matched + "/model.safetensors") ==
              test::contents(whole + "/model.safetensors"));
  BOOST_CHECK(!fs::exists(matched + "/filters.safetensors"));
  BOOST_CHECK(!fs::exists(matched + "/filters.ckpt"));
  const auto as_told = nlohmann::json::parse(test::contents(matched + "/zoo.json"));
  BOOST_CHECK_EQUAL(as_told["match"], "ted");
  BOOST_CHECK_EQUAL(as_told["filter_steps"], 5);
  BOOST_CHECK(test::contents(matched + "/report.html").find("<h2>Filters</h2>") !=
              std::string::npos);
  const auto told = nlohmann::json::parse(test::contents(student + "/zoo.json"));
  BOOST_CHECK_EQUAL(told["teacher"], small);
  BOOST_CHECK_EQUAL(told["model"], std::string(small_copy) + ",vocabulary=1100");
  const std::string writes = test::zoo_prints(
      {"generate", "--weights", student, "--prompt", "the linnet", "--tokens", "20"});
  BOOST_CHECK_MESSAGE(writes.starts_with("the linnet"), writes);
  BOOST_CHECK(test::contents(student + "/report.html").find("<td>teacher</td>") !=
              std::string::npos);

  const auto refused = [&](const std::string& name, const std::vector<std::string>& more,
                           const std::string& words) {
    check_refused(command(name, folder.path("refused"), more), words);
  };
  refused("finetune", {"--text", text}, "--model is required");
  refused("finetune", {"--text", text, "--model", "minilm", "--lora"},
          "--model minilm: its files have no head of masked tokens");
  refused("finetune", {"--text", text, "--model", "stlm-10m", "--weights", first},
          "not the stlm-10m");
  refused("finetune", {"--text", text, "--model", "stlm-10m"}, "--weights is required");
  refused("finetune", {"--text", text, "--weights", first, "--lora", "--lora-target", "q,;v"},
          "ends of matrices' names");
  refused("finetune", {"--text", text, "--weights", first, "--lora", "--compute", "bf16"},
          "trained in f32");
  refused("finetune", {"--text", text, "--weights", first, "--lora", "--qlora"}, "--lora");
  refused("finetune", {"--text", text, "--weights", first, "--lora", "--prompt"}, "--lora");
  refused("finetune", {"--text", text, "--weights", first, "--prompt", "4", "--length", "99999"},
          "beside the virtual tokens");
  refused("distil", {"--text", text, "--model", small_copy}, "--teacher is required");
  refused("distil",
          {"--text", text, "--model", small_copy, "--teacher-weights", first, "--divergence", "js"},
          "did you mean jsd?");
  refused("distil",
          {"--text", text, "--model", small_copy, "--teacher-weights", first, "--beta", "0.5"},
          "--divergence jsd alone");
  refused("distil",
          {"--text", text, "--model", small_copy, "--teacher-weights", first, "--match", "minilm",
           "--temperature", "3"},
          "--temperature is of learning from logits");
  refused("distil",
          {"--text", text, "--model", small_copy, "--teacher-weights", first, "--match", "hiden"},
          "did you mean hidden?");
  refused("distil",
          {"--text", text, "--model", small_copy, "--teacher-weights", first, "--match", "cosine",
           "--filter-steps", "5"},
          "--filter-steps is of --match ted");
  refused("distil",
          {"--text", text, "--model", "decoder:layers=2,d_model=8,heads=2,context=32",
           "--teacher-weights", first, "--match", "ted"},
          "2 layers, more than the 1 of its teacher");
  refused("distil", {"--text", text, "--model", "t5", "--teacher-weights", first},
          "another family");
  refused("distil",
          {"--text", text, "--model", std::string(small_copy) + ",vocabulary=2000",
           "--teacher-weights", first},
          "that of the teacher");
  refused(
      "distil",
      {"--text", text, "--model", "decoder:layers=1", "--teacher-weights", first, "--length", "64"},
      "context of 32");
  check_refused(
      finetune(tuned, first, {"--text", text, "--steps", "60", "--rate", "0.003", "--resume"}),
      "begun with text");
  // Nor is one with an adapter gone on with as if there were none.
  check_refused(
      finetune(adapted, first, {"--text", other, "--steps", "60", "--rate", "0.01", "--resume"}),
      "begun with adapter");
}

BOOST_AUTO_TEST_CASE(an_encoder_decoder_fills_gaps) {
  const std::string out = folder.path("t5");
  std::vector<std::string> arguments =
      train(out, "20", {"--length", "32", "--optimizer", "adafactor", "--accumulate", "2"});
  *std::find(arguments.begin(), arguments.end(), small) =
      "t5:encoder_layers=2,decoder_layers=1,d_model=16,heads=2,d_ff=24";
  const std::string said = test::zoo_prints(arguments);
  BOOST_CHECK_MESSAGE(said.find("bits per masked byte") != said.npos, said);
  const auto answer = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all{"generate", "--weights", out, "--prompt", "the linnet"};
    all.insert(all.end(), more.begin(), more.end());
    return test::zoo_prints(all);
  };
  // A mixture of denoisers makes other examples of the same model.
  arguments.insert(arguments.end(), {"--objective", "ul2r"});
  *(std::find(arguments.begin(), arguments.end(), out)) = folder.path("ul2r");
  test::zoo_prints(arguments);
  BOOST_CHECK(test::contents(out + "/model.safetensors") !=
              test::contents(folder.path("ul2r/model.safetensors")));
  BOOST_CHECK_EQUAL(answer({"--threads", "1"}), answer({"--threads", "2"}));
  BOOST_CHECK_LE(answer({"--tokens", "3"}).size(), 4u);
  BOOST_CHECK(answer({"--beams", "2"}).ends_with("\n"));
  check_refused({"eval", "--weights", out, "--text", text}, "encoder-decoder");
  check_refused({"chat", "--weights", out}, "encoder-decoder");

  // It teaches one of another width and depth its hidden states, stack by stack.
  const std::string taught = folder.path("taught");
  test::zoo_prints({"distil", "--teacher-weights", out, "--text", text, "--steps", "20", "--batch",
                    "2", "--length", "32", "--threads", "1", "--match", "hidden", "--model",
                    "t5:layers=1,d_model=8,heads=2,d_ff=16", "--out", taught});
  const auto told = nlohmann::json::parse(test::contents(taught + "/zoo.json"));
  BOOST_CHECK_EQUAL(told["match"], "hidden");
  BOOST_CHECK_EQUAL(told["result"]["steps"], 20);
  BOOST_CHECK(test::contents(taught + "/model.safetensors").find("\"filters.") ==
              std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::training
