// SPDX-License-Identifier: MIT
// What ffn_study derives: against the published figures and against models written out as tensors.
// Also what it makes of results that are there, and what students keep of their teacher.

#include <cmath>
#include <fstream>

#include "../../examples/ffn_study/lectures.hpp"
#include "program.hpp"

namespace test::exact {

namespace {

/// A row of tables 4.1 and 4.3 to 4.5.
struct row {
  const char* table;
  const char* name;
  const char* encoder;  ///< feed-forward
  const char* decoder;
  double expansion;
  long heads, width;  ///< against T5-Mini's, in percent
  double published;   ///< parameters in millions
  bool reproduced;
};
const row rows[] = {
    {"4.1", "Baseline", "wide", "wide", 0, 100, 100, 15.351, true},
    {"4.1", "Skip FFN", "none", "none", 0, 100, 100, 5.907, true},
    {"4.1", "Skip encoder FFN", "none", "wide", 0, 100, 100, 10.629, true},
    {"4.3", "1.5x heads", "wide", "wide", 0, 150, 100, 16.530, true},
    {"4.3", "2x head size", "wide", "wide", 0, 100, 200, 16.530, false},
    {"4.3", "1.5x heads, 2x head size", "wide", "wide", 0, 150, 200, 18.273, false},
    {"4.4", "1W", "square", "square", 0, 100, 100, 10.626, true},
    {"4.4", "1W + ReLU", "relu", "relu", 0, 100, 100, 10.626, true},
    {"4.4", "2W", "two", "two", 4, 100, 100, 10.626, true},
    {"4.4", "3W, 4x expansion", "three", "three", 4, 100, 100, 10.626, true},
    {"4.5", "3W, 2x expansion", "three", "three", 2, 100, 100, 10.626, true},
    {"4.5", "3W, 1.5x expansion", "three", "three", 1.5, 100, 100, 10.626, true},
    {"4.5", "3W, 1.2x expansion", "three", "three", 1.2, 100, 100, 10.626, true},
};

/// A T5-Mini, written out: every matrix with the tokens it is applied to, every other operation.
struct tally {
  double parameters = 0, macs = 0, other = 0;

  void matrix(long out, long in, long tokens) {
    parameters += static_cast<double>(out * in);
    macs += static_cast<double>(out * in * tokens);
  }
  void norm(long d, long tokens) {
    parameters += static_cast<double>(d);
    // Each value squared, added, divided by the root, weighted; one mean, one epsilon, one root.
    other += static_cast<double>(tokens * (d + d + d + d + 1 + 1 + 1));
  }
  void attention(long d, long inner, long heads, long queries, long keys, bool biased) {
    norm(d, queries);
    matrix(inner, d, queries);
    matrix(inner, d, keys);
    matrix(inner, d, keys);
    matrix(d, inner, queries);
    macs += 2.0 * static_cast<double>(queries * keys * inner);  // scores, sums of values
    const long softmax = 5;  // maximum, difference, exp, sum, quotient
    other += static_cast<double>(heads * queries * keys * (softmax + (biased ? 1 : 0)));
    other += static_cast<double>(queries * d);  // residual
  }
  void feed_forward(const std::string& kind, long d, double expansion, long tokens) {
    if (kind == "none") return;
    const long inner = std::lround(expansion * static_cast<double>(d)), f = 4 * d;
    norm(d, tokens);
    if (kind == "wide") {
      matrix(f, d, tokens);
      other += static_cast<double>(f * tokens);
      matrix(d, f, tokens);
    } else if (kind == "square" || kind == "relu") {
      matrix(d, d, tokens);
      if (kind == "relu") other += static_cast<double>(d * tokens);
    } else {
      matrix(inner, d, tokens);
      if (kind == "three") matrix(inner, inner, tokens);
      matrix(d, inner, tokens);
    }
    other += static_cast<double>(tokens * d);
  }
};

tally mini(const row& r, long width, bool shipped) {
  const long d = 384, n = 128, heads = 8 * r.heads / 100, inner = heads * width * r.width / 100;
  const auto kind = [&](const char* k) -> std::string {
    return shipped && (k == std::string("two") || k == std::string("three")) ? "square" : k;
  };
  tally t;
  for (int layer = 0; layer < 4; ++layer) {
    t.attention(d, inner, heads, n, n, true);
    t.feed_forward(kind(r.encoder), d, r.expansion, n);
    t.attention(d, inner, heads, n, n, true);
    t.attention(d, inner, heads, n, n, false);
    t.feed_forward(kind(r.decoder), d, r.expansion, n);
  }
  for (int stack = 0; stack < 2; ++stack) {
    t.norm(d, n);
    t.parameters += static_cast<double>(32 * heads);
  }
  return t;
}

/// Writes a result of scale paper. Its settings are those that a refusal names.
void write_result(const std::string& out, const std::string& job, const std::string& figures,
                  const std::string& more = "") {
  const auto write = [&](const std::string& settings) {
    std::ofstream(out + "/runs/" + job + ".json")
        << R"({"job":")" << job << R"(","settings":")" << settings << R"(","figures":{)" << figures
        << R"(},"held_out":[[0,null],[1,2.5]],"texts":{})" << more << "}";
  };
  write("none");
  const std::string words = test::ffn_study({"--scale", "paper", "--out", out}).err;
  const std::size_t first = words.find("not \"") + 5;
  BOOST_REQUIRE_MESSAGE(words.find("of \"none\", not \"") != words.npos, words);
  write(words.substr(first, words.find('"', first) - first));
}

std::string rounded(double millions) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", millions);
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(ffn_study_exact)

BOOST_AUTO_TEST_CASE(tables) {
  const test::scratch_folder folder;
  const test::outcome o = test::ffn_study({"--out", folder.path("out")});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const test::report found(test::contents(folder.path("out/report.csv")));

  // The report's accounting gives its parameters to three decimals, but for two rows.
  const std::string summary = "Published";
  for (const row& r : rows) {
    BOOST_TEST_CONTEXT(r.table << " " << r.name) {
      BOOST_CHECK_EQUAL(found.number(r.table, summary, r.name, "published: parameters (M)"),
                        r.published);
      const double derived = found.number(r.table, summary, r.name, "derived: parameters (M)");
      BOOST_CHECK_EQUAL(rounded(derived) == rounded(r.published), r.reproduced);
      BOOST_CHECK_EQUAL(found.text(r.table, summary, r.name, "derived: parameters agree"),
                        r.reproduced ? "yes" : "no");
      const double flops = found.number(r.table, summary, r.name, "published: FLOPs (G)"),
                   macs = found.number(r.table, summary, r.name, "derived: GMAC");
      if (r.width == 100) BOOST_CHECK_LT(std::abs(macs / flops - 1), 0.04);
    }
  }

  // The exact figures are those of the model written out.
  for (const row& r : rows)
    for (const long width : {32, 64}) {
      const std::string part = "Exact, T5-Mini with heads of width " + std::to_string(width);
      const tally trained = mini(r, width, false), shipped = mini(r, width, true);
      const auto is = [&](const char* column, double expected) {
        BOOST_CHECK_MESSAGE(
            found.number(r.table, part, r.name, std::string("derived: ") + column) == expected,
            r.table << ", " << r.name << ", " << width << ", " << column << ": expected "
                    << static_cast<long>(expected));
      };
      is("parameters, all", trained.parameters + 32128 * 384);
      is("without embedding, trained", trained.parameters);
      is("without embedding, deployed", shipped.parameters);
      is("MACs, trained", trained.macs);
      is("MACs, deployed", shipped.macs);
      is("other operations, trained", trained.other);
      is("other operations, deployed", shipped.other);
    }

  BOOST_CHECK_EQUAL(found.number("3.1", "Parameters", "Mini", "derived: with d_kv 64"), 31'220'480);
  BOOST_CHECK_EQUAL(found.number("3.1", "Parameters", "Mini", "derived: with d_kv 32"), 26'501'888);
  BOOST_CHECK_EQUAL(found.number("3.1", "Parameters", "Base", "derived: with d_kv 64"),
                    222'903'552);
  BOOST_CHECK_CLOSE(found.number("4.2", "As published", "5M", "derived: tokens (G)"), 343.6, 0.01);

  // The other forms of the report hold the same figures.
  const std::string page = test::contents(folder.path("out/report.html"));
  for (const std::string& text : {test::contents(folder.path("out/report.md")), o.out, page})
    for (const char* const figure : {"15.351", "31,220,480", "2,617,245,696", "78.2"})
      BOOST_CHECK_MESSAGE(text.find(figure) != text.npos, figure);
  BOOST_CHECK(page.find("http") == page.npos);  // nothing outside it
}

// What was not finite is null in a file, and nothing in a table.
BOOST_AUTO_TEST_CASE(figures_that_are_missing_and_mixtures) {
  const test::scratch_folder folder;
  const std::string out = folder.path("out");
  std::filesystem::create_directories(out + "/runs");
  write_result(out, "3w.s1",
               R"("bits":2.5,"collapsed.bits":null,"collapsed.change":null,"collapsed.equal":3)");
  write_result(out, "tune.glue.3w.s1", R"("stsb":null,"cola":12.5,"rte":50,"equal":7,"compared":9)",
               R"(,"own_settings":{"tasks":"cola 8+2"})");
  write_result(out, "tune.glue.2w.s1", R"("cola":37.5,"equal":9,"compared":9)",
               R"(,"own_settings":{"tasks":"cola 8+2"})");
  const auto study = [&] {
    return test::ffn_study({"--scale", "paper", "--out", out, "--only", "4.4", "--only", "F4.1"});
  };
  const test::outcome o = study();
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const test::report found(test::contents(out + "/report.csv"));
  const auto cell = [&](const char* part, const char* row, const char* column) {
    return found.text("4.4", part, row, std::string("measured: ") + column);
  };
  const char *const three = "3W, 4x expansion", *const check = "Before and after";
  BOOST_CHECK_EQUAL(cell(check, three, "equal answers, GLUE"), "7 of 9");
  BOOST_CHECK_EQUAL(cell(check, "2W", "equal answers, GLUE"), "9 of 9");
  BOOST_CHECK_EQUAL(cell(check, three, "bits/byte before"), "2.5");
  BOOST_CHECK_EQUAL(cell(check, three, "after"), "");
  BOOST_CHECK_EQUAL(cell(check, three, "change of logits"), "");
  BOOST_CHECK_EQUAL(cell("Quality", three, "CoLA, best"), "12.5");
  BOOST_CHECK_EQUAL(cell("Quality", "2W", "CoLA, best"), "37.5");
  BOOST_CHECK_EQUAL(cell("Quality", three, "RTE, mean"), "50");
  BOOST_CHECK_EQUAL(cell("Quality", three, "STS-B, best"), "");
  BOOST_CHECK_MESSAGE(o.out.find("nan") == o.out.npos, o.out);

  // Two mixtures are not mixed.
  write_result(out, "tune.glue.3w.s2", R"("cola":25)",
               R"(,"own_settings":{"tasks":"cola 8+2, rte 3+1"})");
  const test::outcome other = study();
  BOOST_CHECK_EQUAL(other.status, 2);
  BOOST_CHECK_EQUAL(other.lines_of_error(), 1);
  for (const char* const words : {"\"cola 8+2\"", "\"cola 8+2, rte 3+1\"", ": give another --out"})
    BOOST_CHECK_MESSAGE(other.err.find(words) != std::string::npos, other.err);
}

BOOST_AUTO_TEST_CASE(lectures_keep_no_more_than_their_bytes) {
  study::lectures heard(100);
  int spoken = 0;
  std::vector<std::weak_ptr<const std::vector<float>>> all(10);
  auto one = heard.attend("small.s1 1"), other = heard.attend("small.s1 1");
  BOOST_CHECK(one == other);
  BOOST_CHECK(heard.attend("small.s1 2") != one);
  const auto hear = [&](const auto& course, std::size_t step, std::size_t bytes) {
    const auto said = course->hear(static_cast<linnet::index>(step), bytes, [&] {
      ++spoken;
      const auto made = std::make_shared<const std::vector<float>>(1, static_cast<float>(step));
      all[step] = made;
      return made;
    });
    BOOST_CHECK_EQUAL(said->front(), static_cast<float>(step));
  };
  const auto kept = [&] {
    return std::count_if(all.begin(), all.end(), [](const auto& said) { return !said.expired(); });
  };
  for (const std::size_t step : {0u, 1u, 2u}) hear(one, step, 40);
  BOOST_CHECK_EQUAL(kept(), 2);  // 80 bytes of 100
  for (const std::size_t step : {1u, 2u}) hear(other, step, 40);
  BOOST_CHECK_EQUAL(spoken, 3);
  hear(other, 0, 40);  // forgotten
  BOOST_CHECK_EQUAL(spoken, 4);
  // One is kept, however large, and none beside it while the teacher speaks.
  one->hear(3, 1000, [&] {
    BOOST_CHECK_EQUAL(kept(), 0);
    return std::make_shared<const std::vector<float>>(1, 3.0f);
  });
  hear(other, 3, 1000);
  BOOST_CHECK_EQUAL(spoken, 4);
  // Small ones are not kept without end.
  for (std::size_t step = 0; step < 10; ++step) hear(one, step, 1);
  BOOST_CHECK_EQUAL(kept(), 8);
  // Nobody shares them: the last one is kept. Nobody attends: none.
  other.reset();
  hear(one, 0, 1);
  BOOST_CHECK_EQUAL(kept(), 1);
  one.reset();
  BOOST_CHECK_EQUAL(kept(), 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& words) {
    const test::outcome o = test::ffn_study(arguments);
    BOOST_CHECK_EQUAL(o.status, 2);
    BOOST_CHECK_MESSAGE(o.lines_of_error() == 1 && o.err.starts_with("ffn_study: "), o.err);
    BOOST_CHECK_MESSAGE(o.err.find(words) != std::string::npos, o.err);
    BOOST_CHECK(o.out.empty());
  };
  refused({"--scale", "day"}, "minutes");
  refused({"--only", "4.7"}, "4.7");
  refused({"--data", folder.path("absent")}, "absent");
  refused({"--threads", "0"}, "--threads");
  refused({"--scale", "paper", "--data", folder.path("")}, "LINNET_STUDY_TRUE_SHAPES=ON");
  std::filesystem::create_directories(folder.path("bad/runs"));
  std::ofstream(folder.path("bad/runs/mini.s1.json")) << "{}";
  refused({"--out", folder.path("bad"), "--only", "4.1"}, "mini.s1.json");
  std::ofstream(folder.path("file")) << "x";
  refused({"--out", folder.path("file")}, "file");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::exact
