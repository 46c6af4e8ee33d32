// zoo bench: refusals, and one small configuration that is compiled, run, and found again.

#include "program.hpp"

using test::check_refused;

BOOST_AUTO_TEST_SUITE(zoo_bench)

BOOST_AUTO_TEST_CASE(refusals) {
  check_refused({"bench"}, "preset");
  check_refused({"bench", "t5-min"}, "did you mean t5-mini?");
  check_refused({"bench", "t5-mini", "--ffn", "4w"}, "known: standard, skip, skip-encoder");
  check_refused({"bench", "t5-mini", "--storage", "int7"}, "did you mean int8?");
  check_refused({"bench", "t5-mini", "--activation", "f64"}, "unknown activation");
  check_refused({"bench", "t5-mini", "--work", "dream"}, "unknown work");
  check_refused({"bench", "t5-mini", "--work", "prefill"}, "ask for encode");
  check_refused({"bench", "gpt2-small", "--work", "encode"}, "ask for prefill");
  check_refused({"bench", "gpt2-small", "--ffn", "skip-encoder"}, "decoder-only");
  check_refused({"bench", "gpt2-small", "--source", "1000", "--target", "100"}, "1024");
  check_refused({"bench", "t5-mini", "--batch", "0"}, "--batch");
  check_refused({"bench", "t5-mini", "--source", "0"}, "--source");
  check_refused({"bench", "t5-mini", "--target", "1.5"}, "--target");
  check_refused({"bench", "t5-mini", "--threads", "0"}, "--threads");
  check_refused({"bench", "t5-mini", "--seconds", "nan"}, "--seconds");
}

BOOST_AUTO_TEST_CASE(measures_a_small_model) {
  const test::scratch_folder cache;
  setenv("XDG_CACHE_HOME", cache.path().c_str(), 1);
  setenv("CXXFLAGS", "-O0", 1);  // compiles in half the time
  const std::vector<std::string> arguments{
      "bench",    "byte-decoder", "--ffn",     "skip", "--storage", "int8",  "--work", "prefill",
      "--source", "16",           "--threads", "1",    "--seconds", "0.001", "--json"};
  const test::outcome first = test::zoo(arguments), again = test::zoo(arguments);
  unsetenv("XDG_CACHE_HOME");
  unsetenv("CXXFLAGS");
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
}

BOOST_AUTO_TEST_SUITE_END()
