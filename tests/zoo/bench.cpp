// SPDX-License-Identifier: MIT
// zoo bench: refusals, one small configuration that is compiled, run, and found again, and the
// kinds of attention.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "program.hpp"

namespace test::bench {

using test::check_refused;

BOOST_AUTO_TEST_SUITE(zoo_bench)

BOOST_AUTO_TEST_CASE(refusals) {
  check_refused({"bench"}, "preset");
  check_refused({"bench", "t5-min"}, "did you mean t5-mini?");
  check_refused({"bench", "t5-mini", "--ffn", "4w"}, "known: standard, skip, skip-encoder");
  check_refused({"bench", "t5-mini", "--storage", "int7"}, "did you mean int8?");
  for (const char* const odd : {"int3-g24", "int3-g", "int3-g64x", "int3-g-64", "int3-g0",
                                "int3-64", "int3-g99999999999999999999"})
    check_refused(
        {"bench", "t5-mini", "--storage", odd},
        std::string("--storage ") + odd +
            ": groups of int3 are a multiple of 32 inputs, such as int3-g64; int3-row has "
            "one scale per row");
  check_refused({"bench", "t5-mini", "--storage", "nf4-g4"}, "a multiple of 8 inputs");
  check_refused({"bench", "t5-mini", "--activation", "f64"}, "unknown activation");
  check_refused({"bench", "t5-mini", "--work", "dream"}, "unknown work");
  check_refused({"bench", "t5-mini", "--work", "prefill"}, "ask for encode");
  check_refused({"bench", "gpt2-small", "--work", "encode"}, "ask for prefill");
  check_refused({"bench", "gpt2-small", "--ffn", "skip-encoder"}, "decoder-only");
  check_refused({"bench", "gpt2-small", "--source", "1000", "--target", "100"}, "1024");
  check_refused({"bench", "decoder:layers=2"}, "vocabulary=N is missing");
  check_refused({"bench", "stlm-10m:context=64"}, "but the context of stlm-10m:context=64 is 64");
  check_refused({"bench", "t5-mini", "--weights", "/nothing/here"}, "does not exist");
  check_refused({"bench", "t5-mini", "--batch", "0"}, "--batch");
  check_refused({"bench", "t5-mini", "--source", "0"}, "--source");
  check_refused({"bench", "t5-mini", "--target", "1.5"}, "--target");
  check_refused({"bench", "t5-mini", "--threads", "0"}, "--threads");
  check_refused({"bench", "t5-mini", "--seconds", "nan"}, "--seconds");
  check_refused({"bench", "t5-mini", "--profile", "--storage", "int8+first1=f32"},
                "layers that are stored in several ways are not profiled");
  check_refused({"bench", "--attention", "full", "--profile"}, "--profile");
}

BOOST_AUTO_TEST_CASE(refusals_of_attention) {
  check_refused({"bench", "--attention"}, "--attention");
  check_refused({"bench", "--attention", "ful"}, "did you mean full?");
  check_refused({"bench", "--attention", "dense"},
                "known: full, sliding_window, sinks, longformer, lsh, routing, linear, linformer, "
                "nystrom, fnet, mamba, rwkv4, rwkv7, all");
  check_refused({"bench", "t5-mini", "--attention", "full"}, "--attention");
  check_refused({"bench", "--attention", "full", "--ffn", "2w"}, "--ffn");
  check_refused({"bench", "--attention", "full", "--work", "train"}, "--work");
  check_refused({"bench", "t5-mini", "--lengths", "1:2"}, "--lengths");
  check_refused({"bench", "t5-mini", "--html", "x.html"}, "--html");
  for (const char* const lengths : {"128", "128:", ":128", "64:32", "1:8", "8:16:32", "8:x",
                                    "-8:16", "8:99999999999999999999", "2:2000000"})
    check_refused({"bench", "--attention", "full", "--lengths", lengths}, "--lengths");
  const test::scratch_folder folder;
  check_refused({"bench", "--attention", "full", "--html", folder.path("none/here.html")},
                "no directory");
}

BOOST_AUTO_TEST_CASE(measures_every_kind) {
  const test::scratch_folder folder;
  const std::string page = folder.path("page.html");
  const auto found =
      nlohmann::json::parse(test::zoo_prints({"bench", "--attention", "all", "--lengths", "16:32",
                                              "--seconds", "0.02", "--html", page, "--json"}));
  BOOST_CHECK_GT(found["f32_gflops"].get<double>(), 0);
  BOOST_CHECK_EQUAL(found["threads"], 1);
  BOOST_REQUIRE_EQUAL(found["kinds"].size(), 13u);
  int decoders = 0;
  for (const auto& kind : found["kinds"]) {
    BOOST_TEST_CONTEXT(kind["kind"]) {
      decoders += kind["layer"] == "decoder" ? 1 : 0;
      const auto& points = kind["points"];
      BOOST_REQUIRE_GE(points.size(), 1u);
      BOOST_CHECK(points.size() == 2 || kind["stopped"].get<bool>());
      BOOST_CHECK_EQUAL(kind["forward_exponent"].is_null(), points.size() < 2);
      for (std::size_t i = 0; i < points.size(); ++i) {
        const auto number = [&](const char* name) { return points[i][name].get<double>(); };
        BOOST_CHECK_EQUAL(number("length"), i == 0 ? 16 : 32);
        BOOST_CHECK_GT(number("forward_seconds"), 0);
        BOOST_CHECK_GT(number("training_seconds"), 0);
        BOOST_CHECK_GT(number("forward_bytes"), 16 * 64 * 4);
        BOOST_CHECK_GE(number("training_bytes"), number("forward_bytes"));
        BOOST_CHECK_GT(number("forward_peak_fraction"), 0);
      }
    }
  }
  BOOST_CHECK_EQUAL(decoders, 10);
  const std::string html = test::contents(page);
  BOOST_CHECK(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  BOOST_CHECK(html.find("sliding_window&lt;64&gt;") != html.npos);
  for (const char* const outside : {"nan", "http", "src="})
    BOOST_CHECK_MESSAGE(html.find(outside) == html.npos, outside);
}

BOOST_AUTO_TEST_CASE(a_kind_ends_where_it_takes_too_long_or_can_read_no_more) {
  const auto kind = [](const char* name, const char* lengths, const char* seconds) {
    return nlohmann::json::parse(
        test::zoo_prints({"bench", "--attention", name, "--lengths", lengths, "--seconds", seconds,
                          "--json"}))["kinds"][0];
  };
  const auto slow = kind("full", "1024:16384", "0.001");
  BOOST_CHECK_EQUAL(slow["points"].size(), 1u);
  BOOST_CHECK(slow["stopped"].get<bool>());
  const auto limited = kind("linformer", "16384:32768", "0.001");
  BOOST_CHECK_EQUAL(limited["kind"], "linformer<64, 16384>");
  BOOST_CHECK_EQUAL(limited["points"].size(), 1u);
  BOOST_CHECK(limited["stopped"].get<bool>());
  const std::string table = test::zoo_prints(
      {"bench", "--attention", "linformer", "--lengths", "32768:32768", "--seconds", "0.001"});
  BOOST_CHECK(table.find("more than the kind can read") != table.npos);
}

BOOST_AUTO_TEST_CASE(a_kind_learns_from_text) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), tiny = folder.path("tiny"),
                    page = folder.path("page");
  std::ofstream to(text);
  for (int i = 0; i < 2'000; ++i) to << "the linnet sings. ";
  to.close();
  std::ofstream(tiny) << "too short";
  const std::vector<std::string> start{"bench", "--attention", "sliding_window", "--lengths",
                                       "8:8"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), start.begin(), start.end());
    return more;
  };
  check_refused({"bench", "byte-decoder", "--train", text}, "--train");
  check_refused(with({"--steps", "3"}), "--steps");
  check_refused(with({"--train", text, "--steps", "0"}), "--steps");
  check_refused(with({"--train", folder.path("absent")}), "does not exist");
  check_refused(with({"--train", tiny}), "at least 20,000 bytes");

  const auto bits = [&](const char* steps) {
    const auto found = nlohmann::json::parse(
        test::zoo_prints(with({"--train", text, "--steps", steps, "--html", page, "--json"})));
    BOOST_CHECK_GT(found["byte_entropy"].get<double>(), 3);
    return found["kinds"][0]["bits_per_byte"].get<double>();
  };
  const double first = bits("1"), later = bits("40");
  BOOST_CHECK_GT(first, 5);
  BOOST_CHECK_LT(later, 3);  // better than counting bytes
  BOOST_CHECK_EQUAL(later, bits("40"));
  BOOST_CHECK(test::contents(page).find("counting bytes alone") != std::string::npos);
  const std::string table = test::zoo_prints(with({"--train", text, "--steps", "1"}));
  BOOST_CHECK(table.find("bits/byte") != table.npos);
}

BOOST_AUTO_TEST_CASE(no_kind_learns_by_looking_ahead) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text");
  std::ofstream to(text);
  for (int i = 0; i < 2'000; ++i) to << "the linnet sings. ";
  to.close();
  for (const auto& [kind, learned] :
       {std::pair{"lsh", "lsh<64, 4, frozen>"}, {"routing", "routing<64, 64, frozen>"}}) {
    const auto found = nlohmann::json::parse(
        test::zoo_prints({"bench", "--attention", kind, "--lengths", "8:8", "--seconds", "0.001",
                          "--train", text, "--steps", "1", "--json"}));
    BOOST_CHECK_EQUAL(found["kinds"][0]["learned_as"], learned);
    BOOST_CHECK(found["kinds"][0]["bits_per_byte"].is_number());
  }
}

/// What the shell says when it runs zoo bench with this environment; the compiler always fails.
test::outcome bench_with(const std::string& environment) {
  return test::run_program("/bin/sh",
                           {"-c", environment + " CXX=/bin/false " + test::quoted(ZOO_PROGRAM) +
                                      " bench t5-tiny --work encode"});
}

BOOST_AUTO_TEST_CASE(programs_are_kept_and_run_only_where_nobody_else_can_write) {
  const test::scratch_folder folder;
  const auto make = [&](const std::string& name, const char* mode) {
    const std::string path = folder.path(name);
    BOOST_REQUIRE_EQUAL(
        std::system(("mkdir -p -m " + std::string(mode) + " " + test::quoted(path)).c_str()), 0);
    return path;
  };
  // Without a folder of one's own: a new one, gone afterwards, and not the one that lies there.
  const std::string temporary = make("tmp", "700");
  make("tmp/linnet", "777");
  const std::string lone = "env -u HOME -u XDG_CACHE_HOME TMPDIR=" + test::quoted(temporary);
  const test::outcome without = bench_with(lone);
  BOOST_CHECK_EQUAL(without.status, 2);
  BOOST_CHECK_MESSAGE(without.err.find(temporary + "/linnet-") != without.err.npos, without.err);
  BOOST_CHECK_MESSAGE(without.err.find(temporary + "/linnet/") == without.err.npos, without.err);
  BOOST_CHECK_EQUAL(
      std::system(("test \"$(ls " + test::quoted(temporary) + ")\" = linnet").c_str()), 0);
  // With one that others can write to, or whose parent they can.
  const std::string theirs = make("theirs", "700"), open = make("open", "777");
  make("theirs/linnet", "777");
  for (const std::string& cache : {theirs, open}) {
    const test::outcome o =
        bench_with("XDG_CACHE_HOME=" + test::quoted(cache) + " TMPDIR=" + test::quoted(temporary));
    BOOST_CHECK_EQUAL(o.status, 2);
    BOOST_CHECK_MESSAGE(o.err.find("not a folder of this user alone") != o.err.npos, o.err);
    BOOST_CHECK_MESSAGE(o.err.find(temporary + "/linnet-") != o.err.npos, o.err);
  }
  // With one's own.
  const std::string own = make("own", "700");
  const test::outcome kept = bench_with("XDG_CACHE_HOME=" + test::quoted(own));
  BOOST_CHECK_MESSAGE(kept.err.starts_with("compiling " + own + "/linnet/bench-"), kept.err);
  // There, too, only what others could not have written: a program that lies there from a time when
  // the folder was open is not run.
  const std::size_t first = kept.err.find('/');
  const std::string program = kept.err.substr(first, kept.err.find(".cpp") - first),
                    mark = folder.path("mark");
  std::ofstream(program) << "#!/bin/sh\ntouch " << test::quoted(mark) << "\n";
  const auto runs = [&](const std::string& change) {
    BOOST_REQUIRE_EQUAL(std::system((change + " " + test::quoted(program)).c_str()), 0);
    (void)bench_with("XDG_CACHE_HOME=" + test::quoted(own));
    return std::filesystem::remove(mark);
  };
  BOOST_CHECK(runs("chmod 755"));
  BOOST_CHECK(!runs("chmod 777"));
  if (geteuid() == 0) BOOST_CHECK(!runs("chmod 755 " + test::quoted(program) + "; chown 65534"));
}

// With weights of a file; those of another model are refused.
BOOST_AUTO_TEST_CASE(measures_a_small_model) {
  const test::scratch_folder cache;
  const std::string text = cache.path("text"), weights = cache.path("w.safetensors"),
                    others = cache.path("others.safetensors"), page = cache.path("page.html");
  std::ofstream(text) << std::string(20'000, 'x');
  for (const auto& [ffn, out] : {std::pair{"skip", weights}, {"1w", others}})
    test::zoo_prints({"train", text, "--ffn", ffn, "--steps", "1", "--batch", "1", "--out", out});
  const test::compiling_into there(cache.path());
  const std::vector<std::string> arguments{
      "bench",   "byte-decoder", "--ffn",  "skip",      "--storage", "int3-g64",  "--work",
      "prefill", "--source",     "16",     "--threads", "1",         "--seconds", "0.001",
      "--json",  "--profile",    "--html", page,        "--weights", weights};
  const test::outcome first = test::zoo(arguments), again = test::zoo(arguments);
  std::vector<std::string> wrong = arguments;
  wrong.back() = others;
  check_refused(wrong, others);
  BOOST_REQUIRE_MESSAGE(first.status == 0, first.err);
  BOOST_CHECK(first.err.starts_with("compiling "));
  BOOST_CHECK_EQUAL(again.status, 0);
  BOOST_CHECK_EQUAL(again.err, "");

  const auto found = nlohmann::json::parse(first.out);
  BOOST_CHECK_EQUAL(found["preset"], "byte-decoder");
  BOOST_CHECK_EQUAL(found["parameters"], 256 * 128 + 2 * (4 * 128 * 128 + 128) + 128);
  BOOST_CHECK_GT(found["machine"]["f32_gflops"].get<double>(), 0);
  BOOST_CHECK_GT(found["machine"]["read_gbs"].get<double>(), 0);
  BOOST_REQUIRE_EQUAL(found["results"].size(), 1u);
  const auto& result = found["results"][0];
  BOOST_CHECK_EQUAL(result["work"], "prefill");
  BOOST_CHECK_GE(result["runs"].get<int>(), 5);
  BOOST_CHECK_GT(result["ms"].get<double>(), 0);
  BOOST_CHECK_LE(result["ms_min"].get<double>(), result["ms"].get<double>());
  BOOST_CHECK_GT(result["peak_fraction"].get<double>(), 0);
  // Two blocks without a feed-forward, and the norm behind them.
  std::map<std::string, double> calls;
  double share = 0;
  for (const auto& one : result["profile"]) {
    BOOST_CHECK_EQUAL(one["direction"], "forward");
    BOOST_CHECK_EQUAL(one["waited_ms"].size(), 1u);
    calls[one["operation"].get<std::string>()] = one["calls"].get<double>();
    share += one["share"].get<double>();
  }
  const std::map<std::string, double> expected{
      {"other", 1},     {"embedding", 1},        {"norm", 3}, {"attention_input", 2},
      {"attention", 2}, {"attention_output", 2}, {"head", 1}};
  BOOST_TEST((calls == expected));
  BOOST_CHECK_CLOSE(share, 1, 0.001);
  const std::string html = test::contents(page);
  BOOST_CHECK(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  BOOST_CHECK(html.find("attention_output") != html.npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::bench
