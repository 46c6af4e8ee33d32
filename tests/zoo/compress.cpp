// SPDX-License-Identifier: MIT
// zoo compress: what it writes and says, what it refuses, and that its files run.

#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "program.hpp"

namespace test::compressing {

using test::check_refused;
namespace fs = std::filesystem;

namespace {

const std::string& weights() {
  static const std::string path = test::data_file("stories260K/stories260K.bin");
  return path;
}
std::vector<std::string> with(std::vector<std::string> first,
                              const std::vector<std::string>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}
/// A call of a command on stories260K.
std::vector<std::string> stories(const std::string& command, const std::vector<std::string>& more) {
  return with({command, "--model", "stories260k", "--tokenizer",
               test::data_file("stories260K/tok512.bin"), "--threads", "1"},
              more);
}
std::string training() { return test::data_file("tinystories/tiny_stories_train_head.txt"); }
std::string held_out() { return test::data_file("tinystories/tinystories_valid_slice.txt"); }

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_compress)

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const std::string out = folder.path("out.safetensors"), text = folder.path("text"),
                    tiny = folder.path("tiny"), bin = folder.path("weights.bin");
  std::ofstream(text) << std::string(30'000, 'x');
  std::ofstream(tiny) << "xxx";
  std::ofstream(bin) << std::string(500, '\xff');
  const auto refused = [&](const std::vector<std::string>& more, const std::string& words) {
    check_refused(
        with({"compress", "--model", "decoder:vocabulary=256", "--weights", bin, "--out", out},
             more),
        words);
    BOOST_TEST(!fs::exists(out));
  };
  check_refused({"compress", "--model", "stories260k"}, "--out");
  check_refused({"compress", "--out", out, "--weights", bin, "--method", "rtn"},
                "--model is required, unless");
  refused({"--method", "gtpq"}, "did you mean gptq?");
  const std::string kept = folder.path("kept");
  refused({"--method", "rtn", "--evaluate", text, "--reference", folder.path("./out.safetensors")},
          "would be written twice");
  refused({"--method", "gptq", "--calibrate", text, "--evaluate", text, "--statistics", kept,
           "--reference", kept + ".json"},
          "would be written twice");
  refused({"--method", "magic"},
          "known: rtn, gptq, clip, hqq, awq, smoothquant, owq, spqr, lorc, zeroquant, "
          "omniquant, quarot, spinquant, magnitude, wanda, sparsegpt, narrow, relufy, "
          "predict_neurons, predict_heads, distil");
  refused({"--method", "gptq"}, "give --calibrate TEXT");
  refused({"--method", "rtn", "--calibrate", text, "--statistics", folder.path("statistics")},
          "--method rtn: gathers no statistics");
  refused({"--method", "rtn", "--storage", "int7"}, "did you mean int8?");
  refused({"--method", "rtn", "--storage", "int3-g24"}, "a multiple of 32 inputs");
  refused({"--method", "rtn", "--storage", "f32"}, "give one of fewer bits");
  refused({"--method", "rtn", "--storage", "int4-g64+ffn_dwn=int8"}, "did you mean ffn_down?");
  refused({"--method", "rtn", "--storage", "int4-g64+q7"}, "unknown storage");
  refused({"--method", "rtn", "--storage", "nf4-g64", "--compute", "int8"},
          "goes with --storage int8, int4, ternary, q8_0, q4_0 or q4_1, not with nf4-g64");
  refused({"--method", "hqq", "--storage", "int4-g64"},
          "--method hqq: gives --storage q4_1, not int4-g64");
  const auto other = [&](const std::string& method, const std::string& storage) {
    refused({"--method", method, "--storage", storage, "--calibrate", text},
            "--method " + method + ": gives --storage ");
  };
  other("gptq", "int4-g64-out8");
  other("awq", "nf4-double");
  other("awq", "int4-g64+spqr3");
  other("smoothquant", "int4-g64");
  other("owq", "int4-g64");
  other("owq", "int4-g64-out8+head=int4-g64-rank8");
  other("spqr", "int4-g64-out8");
  other("lorc", "int4-g64");
  other("omniquant", "q4_1");
  other("zeroquant", "int4-g64-out8");
  other("quarot", "int4-g64-rank8");
  other("spinquant", "int4-g64-out8");
  refused({"--method", "rtn", "--storage", "int4-g64-rank8"},
          "--method rtn: gives --storage int4-g64, int4-g64-out8, int4-g64-2:4 and the like, not "
          "int4-g64-rank8");
  refused({"--method", "rtn", "--storage", "int4-g64-out0"},
          "a number from 1 to 1024 follows -out");
  refused({"--method", "rtn", "--storage", "bf16-out8"}, "scales of rows or groups");
  // Storages that leave out numbers, ranges of layers, and rounded inputs.
  refused({"--method", "rtn", "--storage", "int4-g64-4:2"}, "such as int4-g64-2:4");
  refused({"--method", "rtn", "--storage", "2:4"}, "such as int4-g64-2:4");
  refused({"--method", "rtn", "--storage", "bf16-mask100"}, "bf16-mask50, in percent");
  refused({"--method", "rtn", "--storage", "int3-g64-mask50"}, "int3-g64 keeps all inputs");
  refused({"--method", "rtn", "--storage", "spqr3-2:4"}, "spqr3 keeps all inputs");
  refused({"--method", "rtn", "--storage", "int4-g64-out8-2:4"}, "have no corrections");
  refused({"--method", "rtn", "--storage", "int4-g64+first0=int8"}, "unknown part of a model");
  refused({"--method", "rtn", "--storage", "int4-g64+layers3-2=int8"}, "unknown part of a model");
  refused({"--method", "rtn", "--storage", "int4-g64+layers0-9223372036854775807=int8"},
          "unknown part of a model");
  refused({"--method", "rtn", "--storage", "fp4-g12"}, "a multiple of 8 inputs");
  refused({"--method", "rtn", "--storage", "int8-2:4", "--compute", "int8"},
          "--compute int8: goes with storages that keep all inputs, not with int8-2:4");
  refused({"--method", "rtn", "--storage", "bf16", "--compute", "fp8"},
          "--compute fp8: goes with codes");
  refused({"--method", "rtn", "--storage", "int8", "--compute", "mixed_int8-x"},
          "such as mixed_int8-6");
  // Methods that prune, and several in a row.
  other("gptq", "int4-g64-2:4");
  refused({"--method", "wanda+gptq", "--storage", "int4-g64-2:4", "--calibrate", text},
          "--method wanda+gptq: gptq gives --storage ");
  refused({"--method", "wanda"}, "give --calibrate TEXT");
  refused({"--method", "magnitude", "--calibrate", text, "--statistics", folder.path("statistics")},
          "--method magnitude: gathers no statistics");
  refused({"--method", "rtn", "--sparsity", "50"}, "--sparsity: --method rtn makes no weight 0");
  for (const char* const share : {"100", "many", "5:4", "0:4", "2:4x"})
    refused({"--method", "magnitude", "--sparsity", share}, std::string("--sparsity ") + share);
  refused({"--method", "magnitude", "--sparsity", "50", "--storage", "int4-g64-2:4"}, "give 2:4");
  refused({"--method", "magnitude", "--sparsity", "40", "--storage", "bf16-mask50"},
          "has places for 50% of each row");
  refused({"--method", "gptq+wanda", "--calibrate", text},
          "gptq stores the model, so it comes last");
  refused({"--method", "wanda+wanda", "--calibrate", text}, "wanda is given twice");
  refused({"--method", "wanda+quarot", "--calibrate", text}, "comes before those that change");
  refused({"--method", "quarot+narrow", "--calibrate", text}, "narrow comes first");
  refused({"--method", "wanda+lorc", "--calibrate", text, "--storage", "int4-g64-rank8"},
          "stores numbers where pruned weights are 0");
  refused({"--method", "magnitude+gptq", "--calibrate", text, "--statistics", out},
          "does not begin with a method that calibrates");
  refused({"--method", "wanda+gptq", "--storage", "f32", "--calibrate", text},
          "gptq finds codes, and --storage f32 has none");
  refused({"--method", "narrow", "--calibrate", text}, "give --shape");
  refused({"--method", "rtn", "--shape", "layers=2"}, "--shape: is of narrow");
  const auto no_shape = [&](const std::string& shape, const std::string& words) {
    refused({"--method", "narrow", "--calibrate", text, "--shape", shape}, words);
  };
  no_shape("layers=4", "is no smaller than decoder:vocabulary=256");
  no_shape("layers=5", "layers=5: expected 1 to 4");
  no_shape("layers=x", "expected field=value");
  no_shape("d_ff=3/0/2/1", "expected a number above 0");
  no_shape("layers=3,d_ff=3/4", "d_ff has 2 numbers for 3 layers");
  no_shape("layers=3,heads=3/4", "heads has 2 numbers for 3 layers");
  no_shape("heads=4/4/4/4", "is no smaller than");
  no_shape("layers=2;layers=3", "layers=3: expected 1 to 2");
  no_shape("layers=2;d_ff=3/4", "leave the ';' out");
  no_shape("vocabulary=10", "unknown number of a shape");
  no_shape("encoder_layers=2", "has no encoder_layers");
  // What learns which neurons and heads a token needs.
  const auto no_predictor = [&](const std::vector<std::string>& more, const std::string& words) {
    refused(with({"--calibrate", text}, more), words);
  };
  refused({"--method", "predict_heads"}, "give --calibrate TEXT");
  no_predictor({"--method", "predict_heads+relufy"}, "relufy comes before predict_heads");
  no_predictor({"--method", "wanda+predict_heads"}, "comes before those that change");
  no_predictor({"--method", "predict_heads", "--statistics", out}, "learns anew each time");
  no_predictor({"--method", "gptq", "--rank", "4"}, "--rank: is of predict_neurons");
  no_predictor({"--method", "gptq", "--activation", "relu"}, "--activation: is of relufy");
  no_predictor({"--method", "relufy", "--activation", "gelu"}, "--activation");
  no_predictor({"--method", "predict_heads", "--rank", "129"},
               "--rank 129: predictors of decoder:vocabulary=256 have 128 at most");
  check_refused({"compress", "--model", "t5:vocabulary=384", "--weights", bin, "--out", out,
                 "--method", "predict_heads", "--calibrate", text, "--tokenizer", "bytes"},
                "predictors are of decoders alone");
  refused({"--method", "awq", "--sequential", "--calibrate", text},
          "--method awq: scales tensors of several blocks at once; leave --sequential out");
  refused({"--calibrate", text, "--length", "1000"}, "more than the model's context of 256");
  refused({"--calibrate", tiny}, "too short: 3 tokens, but a window has 256");
  refused({"--method", "rtn", "--windows", "5"}, "--windows");
  refused({"--calibrate", text, "--minutes", "nan"}, "--minutes");
  check_refused({"compress", "--model", "decoder:vocabulary=256", "--weights", bin, "--out", bin,
                 "--method", "rtn"},
                "weights.bin");
  check_refused({"compress", "--model", "decoder:vocabulary=256", "--weights", bin, "--out",
                 folder.path("none/here"), "--method", "rtn"},
                "no directory");
  const test::with_variable none("CXX", folder.path("no-compiler"));
  refused({"--method", "rtn", "--storage", "int2-row"},
          "(built in, without a compiler: stories260k with int4-g64)");
}

BOOST_AUTO_TEST_CASE(stories260k_becomes_smaller_and_still_runs) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const std::string statistics = folder.path("statistics"), reference = folder.path("reference");
  const auto compress = [&](const std::string& method, const std::string& out,
                            const std::vector<std::string>& more) {
    return nlohmann::json::parse(test::zoo_prints(with(
        stories("compress", {"--weights", weights(), "--method", method, "--storage", "int4-g64",
                             "--evaluate", held_out(), "--windows", "8", "--length", "128",
                             "--reference", reference, "--out", out, "--json"}),
        more)));
  };
  const std::vector<std::string> calibrated{"--calibrate", training(),     "--samples",
                                            "16",          "--statistics", statistics};
  const std::string rounded = folder.path("rtn.safetensors"), better = folder.path("gptq");
  const auto rtn = compress("rtn", rounded, {}), gptq = compress("gptq", better, calibrated);

  // 260,032 weights with a scale for each 64, norms in f32.
  BOOST_TEST(rtn["parameters"] == 260'032);
  BOOST_TEST(rtn["bits_per_weight"].get<double>() == 8 * rtn["bytes"].get<double>() / 260'032);
  BOOST_TEST((rtn["bits_per_weight"] > 4.4 && rtn["bits_per_weight"] < 5.2));
  BOOST_TEST(rtn["bytes_before"] == 4 * 260'032);
  BOOST_TEST(rtn["bytes"] == rtn["bytes_after"]);
  const auto of = [](const auto& r, const char* name) { return r[name].template get<double>(); };
  BOOST_TEST((of(rtn, "bits_per_byte_before") > 0.5 && of(rtn, "bits_per_byte_before") < 1.2));
  BOOST_TEST(of(rtn, "bits_per_byte_before") < of(gptq, "bits_per_byte_after"));
  BOOST_TEST(of(gptq, "bits_per_byte_after") < of(rtn, "bits_per_byte_after"));
  BOOST_TEST(of(gptq, "perplexity_after") < of(rtn, "perplexity_after"));
  BOOST_TEST((of(rtn, "greedy_agreement") > 0.5 && of(rtn, "greedy_agreement") < 1));
  for (const char* const figure : {"tokens_per_second_before", "tokens_per_second_after"})
    BOOST_TEST(of(rtn, figure) > 0);
  BOOST_TEST(gptq["calibration_windows"] == 16);
  BOOST_TEST(rtn["windows"]["bytes"].size() == 8u);
  BOOST_TEST(rtn["windows"]["nats_before"] == gptq["windows"]["nats_before"]);  // kept
  BOOST_TEST((of(rtn["difference"], "low") < of(rtn["difference"], "high")));

  // Text that a method does not need changes nothing.
  const test::outcome same = test::zoo(
      stories("compress", {"--weights", weights(), "--method", "rtn", "--storage", "int4-g64",
                           "--calibrate", training(), "--out", folder.path("same")}));
  BOOST_TEST(same.status == 0, same.err);
  BOOST_TEST(same.err.find("needs no text, so --calibrate is not read") != same.err.npos, same.err);
  BOOST_TEST(test::contents(folder.path("same")) == test::contents(rounded));

  // By scales that are folded, from the same statistics.
  const auto folded = compress("awq", folder.path("awq"), calibrated);
  BOOST_TEST(folded["bytes"] == rtn["bytes"]);
  BOOST_TEST(of(folded, "bits_per_byte_after") < of(rtn, "bits_per_byte_after"));

  // Zeros stay where what rounds behind pruning knows of them; the same bytes.
  const auto pruned = [&](const std::string& method) {
    return compress(method, folder.path("pruned"),
                    with(method.starts_with("magnitude") ? std::vector<std::string>{} : calibrated,
                         {"--sparsity", "50"}));
  };
  const auto wanda = pruned("wanda"), both = pruned("wanda+gptq"), at_once = pruned("sparsegpt"),
             magnitude = pruned("magnitude");
  BOOST_TEST((of(wanda, "zeros") >= 0.5 && of(wanda, "zeros") < 0.7));
  BOOST_TEST((of(both, "zeros") >= 0.5 && of(both, "zeros") < 0.7));
  BOOST_TEST(both["bytes"] == rtn["bytes"]);
  BOOST_TEST(of(at_once, "bits_per_byte_after") < of(magnitude, "bits_per_byte_after"));
  BOOST_TEST(of(wanda, "bits_per_byte_after") < of(magnitude, "bits_per_byte_after"));
  BOOST_TEST(!rtn.contains("zeros"));

  // From kept statistics, nothing is run and the file is the same.
  const std::string again = folder.path("again");
  (void)compress("gptq", again, calibrated);
  BOOST_TEST(test::contents(again) == test::contents(better));
  check_refused(with(stories("compress", {"--weights", weights(), "--out", again}),
                     with(calibrated, {"--seed", "5", "--length", "128"})),
                "--statistics");

  // The file says how it is stored.
  const auto words = [&](const std::string& file, const std::vector<std::string>& more) {
    return test::zoo_prints(with(stories("generate", {"--weights", file, "--prompt", "Once",
                                                      "--temperature", "0", "--tokens", "40"}),
                                 more));
  };
  const std::string text = words(better, {});
  BOOST_TEST(text.starts_with("Once upon a time"));
  BOOST_TEST(words(better, {"--storage", "int4-g64"}) == text);
  BOOST_TEST(words(rounded, {}) == words(weights(), {"--storage", "int4-g64"}));  // rounded there
  check_refused(stories("generate", {"--weights", better, "--storage", "nf4"}),
                "is stored as int4-g64");
  // It says which model it is of, too.
  BOOST_TEST(test::zoo_prints({"generate", "--weights", better, "--tokenizer",
                               test::data_file("stories260K/tok512.bin"), "--prompt", "Once",
                               "--temperature", "0", "--tokens", "40"}) == text);
  check_refused({"logits", "--model", "stlm-10m", "--weights", better, "--tokens", "1"},
                "is of stories260k, not of stlm-10m");
  const std::string judged = test::zoo_prints(stories(
      "eval", {"--weights", better, "--text", held_out(), "--limit", "2", "--context", "128"}));
  BOOST_TEST(judged.find("bits/byte") != judged.npos, judged);
  // A file of other bits is none of this type.
  std::string cut = test::contents(better);
  std::ofstream(better) << cut.substr(0, cut.size() / 2);
  check_refused(stories("generate", {"--weights", better}), "");
}

BOOST_AUTO_TEST_CASE(too_little_text_and_interruptions_leave_nothing) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const std::string out = folder.path("out"), little = folder.path("little");
  std::ofstream(little) << test::contents(training()).substr(0, 400);
  const auto few = test::zoo(stories(
      "compress", {"--weights", weights(), "--calibrate", little, "--length", "32", "--out", out}));
  BOOST_TEST(few.status == 2);
  BOOST_TEST(few.err.find("down.weight: expected at least 172 rows of inputs") != few.err.npos,
             few.err);
  BOOST_TEST(!fs::exists(out));

  std::string long_text;
  for (int i = 0; i < 5; ++i) long_text += test::contents(training());
  std::ofstream(folder.path("long")) << long_text;
  std::string command = "timeout --preserve-status -s TERM 2 " + test::quoted(ZOO_PROGRAM);
  for (const std::string& word :
       stories("compress", {"--weights", weights(), "--calibrate", folder.path("long"), "--samples",
                            "1000000", "--out", out}))
    command += ' ' + test::quoted(word);
  const int status = std::system((command + " 2>" + folder.path("said")).c_str());
  BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGTERM), status);
  BOOST_TEST(test::contents(folder.path("said")).find("nothing is written") != std::string::npos);
  for (const auto& file : fs::directory_iterator(folder.path()))
    BOOST_TEST(file.path().filename().string().find("out") == std::string::npos, file.path());
}

// Compiled when it is asked for, here without optimization: fewer layers, of which the one that
// turns the stream least goes; then pruned, trained on, and stored as what is kept of the groups.
BOOST_AUTO_TEST_CASE(a_narrowed_and_pruned_model_is_compiled) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const test::compiling_into there(folder.path());
  const std::string out = folder.path("out");
  const std::vector<std::string> common{
      "--weights", weights(),   "--storage", "q4_1-2:4",    "--shape",  "layers=4,d_ff=160",
      "--out",     out,         "--json",    "--length",    "64",       "--evaluate",
      held_out(),  "--windows", "8",         "--calibrate", training(), "--samples",
      "16"};
  const auto by = [&](const std::vector<std::string>& more) {
    return nlohmann::json::parse(test::zoo_prints(stories("compress", with(common, more))));
  };
  const auto r = by({"--method", "narrow+sparsegpt+distil+hqq", "--steps", "8", "--rate", "1e-3"});
  // What the same module gives without training is worse.
  const auto of = [&](const char* name) { return r[name].template get<double>(); };
  BOOST_TEST(r["parameters_after"] == 205'376);
  BOOST_TEST(r["method_steps"] == 8);
  BOOST_TEST(r["dropped"] == 0);
  BOOST_TEST((of("zeros") >= 0.5 && of("zeros") < 0.6));
  BOOST_TEST((of("bits_per_weight") > 2 && of("bits_per_weight") < 4));
  BOOST_TEST(
      (of("bits_per_byte_after") > of("bits_per_byte_before") && of("bits_per_byte_after") < 3.0));
  BOOST_TEST(test::zoo_prints({"logits", "--model", "stories260k", "--weights", out, "--tokens",
                               "1,2,3"}) != "");
}

// ReLUs in place of SiLUs, trained on, then predictors of the neurons and of the heads that a token
// needs: the report has what they find, and the file runs.
BOOST_AUTO_TEST_CASE(a_model_with_predictors_is_compiled) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const test::compiling_into there(folder.path());
  const std::string out = folder.path("out");
  const std::vector<std::string> common{
      "--weights", weights(),   "--storage",
      "f32",       "--rank",    "8",
      "--out",     out,         "--length",
      "64",        "--samples", "32",
      "--steps",   "8",         "--calibrate",
      training(),  "--method",  "relufy+predict_neurons+predict_heads"};
  const auto r = nlohmann::json::parse(test::zoo_prints(
      stories("compress", with(common, {"--json", "--evaluate", held_out(), "--windows", "8"}))));
  BOOST_TEST(r["method_steps"] == 8);
  const auto& found = r["predictors"];
  BOOST_REQUIRE(found.size() == 10u);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto of = [&](const char* name) { return found[i][name].template get<double>(); };
    BOOST_TEST(found[i]["of"] == (i < 5 ? "neurons" : "heads"));
    BOOST_TEST(found[i]["layer"] == i % 5);
    BOOST_TEST((of("recall") > 0.5 && of("recall") <= 1));
    BOOST_TEST((of("found") > 0 && of("found") <= 1));
    if (i < 5)
      BOOST_TEST((of("active") > 0 && of("active") < 0.9));
    else
      BOOST_TEST(of("active") == 0.75);  // 6 of 8
  }
  const auto of = [&](const char* name) { return r[name].template get<double>(); };
  // Eight steps do not mend it, but a guess among all pieces would have 4.5.
  BOOST_TEST(
      (of("bits_per_byte_after") > of("bits_per_byte_before") && of("bits_per_byte_after") < 4.0));
  BOOST_TEST(test::zoo_prints({"logits", "--model", "stories260k", "--weights", out, "--tokens",
                               "1,2,3"}) != "");
  const std::string text = test::zoo_prints(stories("compress", common));
  BOOST_TEST(text.find("predictors of") != text.npos, text);
}

// A model that is another one before it is rounded: the file says which, and its statistics are
// those of no other method. With outliers in the storage of some matrices.
BOOST_AUTO_TEST_CASE(a_rotated_model_is_compiled) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const test::compiling_into there(folder.path());
  const std::string out = folder.path("out"), statistics = folder.path("statistics");
  const std::vector<std::string> common{"--weights", weights(),  "--out",    out,
                                        "--storage", "int4-g64", "--length", "128"};
  const std::vector<std::string> judged{"--json", "--evaluate", held_out(), "--windows", "8"};
  const auto calibrated =
      with(common, {"--calibrate", training(), "--samples", "16", "--statistics", statistics});
  const auto rtn = nlohmann::json::parse(
      test::zoo_prints(stories("compress", with(with(common, judged), {"--method", "rtn"}))));
  const auto r = nlohmann::json::parse(test::zoo_prints(
      stories("compress", with(with(calibrated, judged), {"--method", "quarot"}))));
  BOOST_TEST((r["method_peak_bytes"] > 0 && r["method_peak_bytes"] <= r["peak_bytes"]));
  const auto of = [&](const char* name) { return r[name].template get<double>(); };
  BOOST_TEST(of("bits_per_byte_after") < rtn["bits_per_byte_after"].get<double>());
  BOOST_TEST(of("bits_per_weight") > 5);  // 4.6, and a head of its own
  BOOST_TEST(test::zoo_prints({"logits", "--weights", out, "--model", "stories260k", "--tokens",
                               "1,2,3"}) != "");
  check_refused(stories("compress", with(calibrated, {"--method", "gptq"})),
                "of a method that changes the model first");
}

// The study with what is built in: one page, and a second call that runs nothing again.
BOOST_AUTO_TEST_CASE(the_study_goes_on_where_it_stands) {
  if (weights().empty()) return;
  const test::scratch_folder folder;
  const std::string out = folder.path("study"), lines = out + "/results.jsonl";
  const auto study = [&](const std::vector<std::string>& more) {
    const auto ran = test::run_program(
        COMPRESSION_STUDY_PROGRAM,
        with({"--data", fs::path(weights()).parent_path().parent_path(), "--zoo", ZOO_PROGRAM,
              "--out", out, "--threads", "1", "--samples", "16", "--windows", "4", "--seeds", "1"},
             more));
    BOOST_REQUIRE_MESSAGE(ran.status == 0, ran.err);
    return ran.out;
  };
  const std::string table = study({}), kept = test::contents(lines);
  BOOST_TEST(std::count(kept.begin(), kept.end(), '\n') == 9);
  for (const char* const word : {"int4-g64   rtn", "int4-g64   gptq", "int4-g64   clip",
                                 "int4-g64   awq", "int4-g64   sparsegpt 50%", "tokens/s"})
    BOOST_TEST(table.find(word) != table.npos, word);
  const std::string html = test::contents(out + "/report.html");
  BOOST_TEST((html.starts_with("<!doctype html>") && html.ends_with("</html>\n")));
  for (const char* const outside : {"nan", "http", "src="})
    BOOST_TEST(html.find(outside) == html.npos, outside);
  // Half of the last line is as if it had not been there; the program is not asked for the others.
  std::ofstream(lines) << kept.substr(0, kept.size() - 20);
  const std::string again = study({});
  const std::string after = test::contents(lines);
  const auto last = [](const std::string& all) { return all.rfind('\n', all.size() - 2); };
  BOOST_TEST(after.substr(0, last(after)) == kept.substr(0, last(kept)));
  BOOST_TEST(std::count(after.begin(), after.end(), '\n') == 9);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::compressing
