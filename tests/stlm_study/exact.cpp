// SPDX-License-Identifier: MIT
// What stlm_study derives, by hand; what it refuses; and the cost of the paper's run.

#include <cmath>

#include "program.hpp"

namespace test::exact {

BOOST_AUTO_TEST_SUITE(stlm_study_exact)

// The small shape: 2048 tokens, four blocks of width 96 with six heads of 16 on two key-value heads
// and a SwiGLU of 288. A head of its own has another table and costs nothing more.
BOOST_AUTO_TEST_CASE(derived_figures) {
  const test::scratch_folder folder;
  const test::outcome o = test::stlm_study({"--scale", "check", "--out", folder.path("out")});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const test::report found(test::contents(folder.path("out/report.csv")));
  const auto at = [&](const char* row, const char* column) {
    return found.number("versions", "At equal", row, std::string("derived: ") + column);
  };
  const double block = 96 * 96 * 2 + 96 * 64 + 3 * 96 * 288 + 2 * 96, table = 2048 * 96;
  BOOST_CHECK_EQUAL(at("baseline", "outside tables"), 4 * block + 96);
  BOOST_CHECK_EQUAL(at("baseline", "parameters"), table + 4 * block + 96);
  BOOST_CHECK_EQUAL(at("untied head", "parameters"), 2 * table + 4 * block + 96);
  BOOST_CHECK_EQUAL(at("untied head", "outside tables"), 4 * block + 96);
  BOOST_CHECK_EQUAL(at("baseline", "steps"), 4);
  BOOST_CHECK_EQUAL(at("baseline", "tokens"), 4 * 2 * 2 * 16);
  // Products of weights are 2 FLOPs a number and token, and nearly all there is.
  const double products = 2 * (table + 4 * (block - 2 * 96)) / 1e3;
  BOOST_CHECK_GT(at("baseline", "kFLOPs/token"), products);
  BOOST_CHECK_LT(at("baseline", "kFLOPs/token"), 1.05 * products);
  BOOST_CHECK_CLOSE(at("baseline", "TFLOPs of training"),
                    3e-9 * at("baseline", "kFLOPs/token") * 256, 1e-6);
  // Every version spends the same but for half a step.
  for (const test::report::line& r : found.lines("versions", "At equal"))
    if (r.column == "derived: TFLOPs of training") {
      const double all = std::stod(r.value), one = all / at(r.row.c_str(), "steps");
      BOOST_CHECK_MESSAGE(std::abs(all - at("baseline", "TFLOPs of training")) <= 0.5001 * one,
                          r.row);
    }
  BOOST_CHECK(found.text("versions", "Held-out", "baseline", "measured: mean").empty());

  const auto paper = [&](const char* row) {
    return found.number("table-1", "Table 1", row, "derived: parameters");
  };
  BOOST_CHECK_EQUAL(paper("baseline"), 55'888'896);
  BOOST_CHECK_EQUAL(paper("untied head"), 81'620'480);
  if (!found.text("table-1", "Table 1", "shared FFN", "derived: parameters").empty())
    BOOST_CHECK_EQUAL(paper("shared FFN"), 34'655'232);

  const std::string page = test::contents(folder.path("out/report.html"));
  for (const std::string& text : {test::contents(folder.path("out/report.md")), o.out, page})
    BOOST_CHECK(text.find("55,888,896") != text.npos);
  BOOST_CHECK(page.find("http") == page.npos);  // nothing outside it
}

// Table 1's run: 25,000 steps of 480 windows of 512 tokens.
BOOST_AUTO_TEST_CASE(table_1) {
  const test::scratch_folder folder;
  const test::outcome o =
      test::stlm_study({"--scale", "paper", "--only", "baseline", "--out", folder.path("out")});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const test::report found(test::contents(folder.path("out/report.csv")));
  const auto at = [&](const char* column) {
    return found.number("versions", "At equal", "baseline", std::string("derived: ") + column);
  };
  BOOST_CHECK_EQUAL(at("steps"), 25'000);
  BOOST_CHECK_EQUAL(at("tokens"), 6'144'000'000.0);
  BOOST_CHECK_EQUAL(at("parameters"), 55'888'896);
  BOOST_CHECK(found.lines("versions", "At equal").size() == 6);  // of one version
}

BOOST_AUTO_TEST_CASE(cost) {
  const test::outcome o = test::stlm_study(
      {"cost", "--batch", "1", "--length", "8", "--repetitions", "1", "--threads", "1"});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  for (const char* const words : {"55,888,896 parameters", "gradients of 1 x 8 tokens",
                                  "a step of 24 x 20 windows", "25,000 steps, 6.14G tokens: "})
    BOOST_CHECK_MESSAGE(o.out.find(words) != o.out.npos, words << " in " << o.out);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& words) {
    const test::outcome o = test::stlm_study(arguments);
    BOOST_CHECK_EQUAL(o.status, 2);
    BOOST_CHECK_MESSAGE(o.lines_of_error() == 1 && o.err.starts_with("stlm_study: "), o.err);
    BOOST_CHECK_MESSAGE(o.err.find(words) != std::string::npos, o.err);
    BOOST_CHECK(o.out.empty());
  };
  refused({"--scale", "day"}, "minutes");
  refused({"--only", "gpt"}, "gpt");
  refused({"--data", folder.path("absent")}, "absent");
  refused({"cost", "--version", "gpt"}, "gpt");
  refused({"cost", "--length", "513"}, "--length");
  refused({"--scale", "check", "--data", folder.path(), "--out", folder.path("out")}, "100,000");
  refused({"--scale", "paper", "--data", folder.path(), "--out", folder.path("out")}, "--merges");
  std::filesystem::create_directories(folder.path("bad/runs"));
  std::ofstream(folder.path("bad/runs/baseline.s1.json")) << "{}";
  refused({"--out", folder.path("bad")}, "baseline.s1.json");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::exact
