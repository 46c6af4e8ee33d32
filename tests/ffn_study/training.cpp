// SPDX-License-Identifier: MIT
// What ffn_study runs: on a text of its own, at the scale that only shows that all works.

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "program.hpp"

namespace test::training {

namespace {

/// Runs the check of some tables; returns what it wrote.
test::report study(const std::string& data, const std::string& out, const char* threads,
                   const std::vector<std::string>& tables) {
  std::vector<std::string> arguments{"--scale", "check", "--data",    data,
                                     "--out",   out,     "--threads", threads};
  for (const std::string& t : tables) arguments.insert(arguments.end(), {"--only", t});
  const test::outcome o = test::ffn_study(arguments);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  return test::report(test::contents(out + "/report.csv"));
}

/// SST-2 and MNLI of a few lines, in the layouts of the files that the program reads.
void write_tasks(const std::string& folder) {
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(folder + "/" + name).parent_path());
    std::ofstream(folder + "/" + name) << text;
  };
  write("sst2/train.tsv",
        "sentence\tlabel\nGood , good fun\t1\na joy\t1\ngood\t1\nbad\t0\nso bad\t0\n");
  write("sst2/test.tsv", "sentence\tlabel\nvery good\t1\nbad\t0\nBAD\t0\ngood\t0\nunseen\t0\n");
  const auto question = [](const char* p, const char* h, const char* label) {
    return std::string("\"For the statement, \"\"") + p + "\"\", does the hypothesis \"\"" + h +
           "\"\" represent entailment, contradiction, or neutrality?\"," + label + ",x\n";
  };
  write("mnli_train10k/mnli_train.csv", "Question,Answer,Origin\n" +
                                            question("A cat", "An animal", "entailment") +
                                            question("A cat", "A dog", "contradiction") +
                                            question("A cat", "A red cat", "neutral") +
                                            question("A dog", "An animal", "entailment"));
  write("mnli_m_dev/mnli_matched_dev.tsv",
        "index\tpremise\thypothesis\tgold_label\tnumber of correct responses (out of 100)\n"
        "0\tA cow\tAn animal\tentailment\t90\n1\tA cow\tA dog\tcontradiction\t90\n");
  write("mnli_mm_sample1000/mnli_mismatched.tsv", "neutral\tA cow .\tA red cow .\n");
}

nlohmann::json run_of(const std::string& out, const std::string& job) {
  nlohmann::json j = nlohmann::json::parse(test::contents(out + "/runs/" + job + ".json"));
  j["figures"].erase("seconds");  // the only figure that may differ
  return j;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(ffn_study_training)

BOOST_AUTO_TEST_CASE(jobs_run_once_and_give_the_same_bits) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  test::write_text(data);
  const test::report found = study(data, out, "2", {"4.1", "F4.1"});

  const char* const quality = "Quality";
  for (const char* const row : {"Baseline", "Skip FFN", "Skip encoder FFN"}) {
    const double bits = found.number("4.1", quality, row, "measured: bits/byte, best");
    BOOST_CHECK_MESSAGE(bits > 1 && bits < 30, row << ": " << bits);
    BOOST_CHECK_EQUAL(found.number("4.1", quality, row, "measured: runs"), 1);
    BOOST_CHECK_GT(found.number("4.1", "Cost", row, "measured: ms, trained"), 0);
  }
  // Three blocks of weights fewer make a difference that needs no patience to see.
  const auto bytes = [&](const char* row) {
    return found.number("4.1", "Cost", row, "measured: bytes of weights, trained");
  };
  BOOST_CHECK_EQUAL(bytes("Baseline") - bytes("Skip FFN"), 4.0 * (8 * (2 * 384 * 1536 + 384)));
  BOOST_CHECK_EQUAL(found.number("F4.1", "Held-out", "linear warm-up", "measured: runs"), 5);

  // A later call runs what is missing and nothing else, and with one thread finds the same.
  const std::string removed = out + "/runs/skip.s1.json", kept = out + "/runs/mini.s1.json";
  const auto before = run_of(out, "skip.s1");
  std::filesystem::remove(removed);
  const auto time = std::filesystem::last_write_time(kept);
  study(data, out, "1", {"4.1"});
  BOOST_CHECK(std::filesystem::last_write_time(kept) == time);
  BOOST_CHECK_EQUAL(run_of(out, "skip.s1"), before);

  // Results of other settings are refused, not mixed.
  const test::outcome other =
      test::ffn_study({"--scale", "minutes", "--out", out, "--only", "4.1"});
  BOOST_CHECK_EQUAL(other.status, 2);
  BOOST_CHECK_MESSAGE(other.err.find("of \"3 steps of 2 x 32") != std::string::npos, other.err);
  BOOST_CHECK_MESSAGE(other.err.find(", not clipped") != std::string::npos, other.err);
}

BOOST_AUTO_TEST_CASE(collapsing_keeps_predictions) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  test::write_text(data);
  const test::report found = study(data, out, "2", {"4.4"});
  for (const char* const row : {"2W", "3W, 4x expansion"}) {
    const auto number = [&](const char* column) {
      return found.number("4.4", "Before and after", row, std::string("measured: ") + column);
    };
    BOOST_CHECK_GT(number("predictions"), 20);
    BOOST_CHECK_EQUAL(number("equal predictions"), number("predictions"));
    BOOST_CHECK_LT(std::abs(number("bits/byte before") - number("after")), 1e-5);
    BOOST_CHECK_LT(number("change of logits"), 1e-5);
    const double change = found.number("4.4", "Cost", row, "measured: change of logits");
    BOOST_CHECK(change > 0 && change < 1e-5);
    BOOST_CHECK_LT(found.number("4.4", "Cost", row, "measured: bytes of weights, deployed"),
                   found.number("4.4", "Cost", row, "measured: bytes of weights, trained"));
  }
  // All that is deployed is a 1W.
  BOOST_CHECK_EQUAL(
      found.number("4.4", "Cost", "1W", "measured: bytes of weights, deployed"),
      found.number("4.4", "Cost", "3W, 4x expansion", "measured: bytes of weights, deployed"));
}

BOOST_AUTO_TEST_CASE(interrupted_jobs_go_on_with_the_same_bits) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), whole = folder.path("whole"),
                    parts = folder.path("parts");
  test::write_text(data);
  study(data, whole, "1", {"4.2"});  // 3 and 6 steps
  std::filesystem::create_directories(parts + "/runs");
  std::ofstream(parts + "/runs/mini.s1.json").flush();  // a result that was lost with the power
  int calls = 0;
  for (; calls < 20 && !std::filesystem::exists(parts + "/runs/mini.x2.s1.json"); ++calls) {
    const test::outcome o = test::ffn_study({"--scale", "check", "--data", data, "--out", parts,
                                             "--threads", "1", "--minutes", "0", "--only", "4.2"});
    BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  }
  BOOST_CHECK_EQUAL(calls, 8);  // one step each, but for the two with which a job ends
  for (const std::string job : {"mini.s1", "mini.x2.s1"}) {
    BOOST_CHECK_EQUAL(run_of(parts, job), run_of(whole, job));
    for (const char* const end : {".safetensors", ".jsonl"})
      BOOST_CHECK_MESSAGE(test::contents(parts + "/runs/" + job + end) ==
                              test::contents(whole + "/runs/" + job + end),
                          job << end);
    BOOST_CHECK(!std::filesystem::exists(parts + "/runs/" + job + ".ckpt"));
    BOOST_CHECK(!std::filesystem::exists(parts + "/runs/" + job + ".ckpt.previous"));
  }
}

BOOST_AUTO_TEST_CASE(early_stops_and_restarts) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  test::write_text(data);
  const test::report found = study(data, out, "2", {"early", "restarts"});
  const auto run = [&](const std::string& job) { return run_of(out, job + ".s1"); };
  // From seed 1 halfway, after one of three steps, seed 1 goes on as if nothing had been.
  BOOST_CHECK_EQUAL(run("mini.restart")["figures"], run("mini")["figures"]);
  const auto other = run_of(out, "mini.restart.s2");
  BOOST_CHECK_EQUAL(other["held_out"][0], run("mini")["held_out"][1]);
  BOOST_CHECK_NE(other["figures"]["bits"], run("mini")["figures"]["bits"]);
  BOOST_CHECK_EQUAL(found.number("restarts", "Held-out", "from seed 1 halfway", "measured: runs"),
                    5);
  // A teacher that falls silent after two of three steps, and one after the first.
  const auto point = [&](const char* job, std::size_t i) { return run(job)["held_out"][i]; };
  const char *const whole = "mini.from-small.a0.1.t3", *const half = "mini.from-small.a0.1.t3.half",
                    *const quarter = "mini.from-small.a0.1.t3.quarter";
  BOOST_CHECK_EQUAL(point(half, 2), point(whole, 2));
  BOOST_CHECK_NE(point(half, 3), point(whole, 3));
  BOOST_CHECK_EQUAL(point(quarter, 1), point(whole, 1));
  BOOST_CHECK_NE(point(quarter, 2), point(whole, 2));
  // One that has stopped early itself: its first step is that of the whole run.
  BOOST_CHECK_EQUAL(point("small-half", 1), point("small", 1));
  BOOST_CHECK_NE(run("mini.from-small-half.a0.1.t3")["figures"]["bits"],
                 run(whole)["figures"]["bits"]);
  // Another seed runs what is missing, and no tasks are tuned on.
  BOOST_CHECK_EQUAL(found.number("early", "Quality", "Small teaches a quarter", "measured: runs"),
                    1);
  const test::outcome more = test::ffn_study(
      {"--scale", "check", "--data", data, "--out", out, "--only", "early", "--seeds", "2"});
  BOOST_REQUIRE_MESSAGE(more.status == 0, more.err);
  const test::report both(test::contents(out + "/report.csv"));
  BOOST_CHECK_EQUAL(both.number("early", "Quality", "Small teaches a quarter", "measured: runs"),
                    2);
  const std::string taught = whole;
  BOOST_CHECK_NE(run_of(out, taught + ".s2")["figures"]["bits"], run(taught)["figures"]["bits"]);
  BOOST_CHECK(!std::filesystem::exists(out + "/runs/" + taught + ".s3.json"));
}

BOOST_AUTO_TEST_CASE(teachers_and_tasks) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out"),
                    together = folder.path("together");
  test::write_text(data);
  write_tasks(data);
  const test::report found = study(data, out, "1", {"4.6", "4.5"});
  const auto bits = [&](const std::string& job) {
    return run_of(out, job)["figures"]["bits"].get<double>();
  };
  // From the same start with the same examples, what each teacher says makes a difference.
  const double all[] = {bits("mini.s1"), bits("mini.from-small.a0.1.t3.s1"),
                        bits("mini.from-base.a0.1.t3.s1"), bits("mini.from-base.a0.9.t4.s1")};
  for (std::size_t i = 0; i < std::size(all); ++i)
    for (std::size_t k = 0; k < i; ++k) BOOST_CHECK_NE(all[i], all[k]);
  const auto start = [&](const char* job) { return run_of(out, job)["held_out"][0]; };
  BOOST_CHECK_EQUAL(start("mini.s1"), start("mini.from-base.a0.9.t4.s1"));
  BOOST_CHECK_NE(start("mini.s1"), start("tiny.s1"));

  // Those that listen to a teacher at the same time learn what they learn alone.
  study(data, together, "8", {"4.6"});
  for (const char* const taught : {"mini.from-small.a0.1.t3", "mini.from-base.a0.1.t3",
                                   "mini.from-base.a0.9.t4", "tiny.from-base.a0.9.t4"}) {
    const std::string job = std::string(taught) + ".s1";
    BOOST_CHECK_EQUAL(run_of(together, job), run_of(out, job));
  }

  // Five sentences, two matched pairs, one mismatched.
  for (const auto& [column, step] : {std::pair{"SST-2", 20}, {"MNLI-m", 50}, {"MNLI-mm", 100}}) {
    const double score = found.number("4.6", "Quality", "small -> tiny, alpha 0.1, T 2",
                                      std::string("measured: ") + column + ", best");
    BOOST_CHECK_MESSAGE(score >= 0 && score <= 100 && std::fmod(score, step) == 0, score);
  }
  // Without a model: all positive; by words all but the two that no word tells.
  const std::string part = "Tasks without";
  BOOST_CHECK_EQUAL(found.number("4.5", part, "sst2", "measured: majority class"), 20);
  BOOST_CHECK_EQUAL(found.number("4.5", part, "sst2", "measured: bag of words"), 60);
  BOOST_CHECK_EQUAL(found.number("4.5", part, "mnli-m", "measured: majority class"), 50);
  BOOST_CHECK_EQUAL(found.number("4.5", part, "sst2", "measured: examples"), 5);
  // Collapsing keeps the answers.
  for (const char* const row : {"3W, 4x expansion", "3W, 1.2x expansion"}) {
    BOOST_CHECK_EQUAL(found.text("4.5", "Before and after", row, "measured: equal answers, SST-2"),
                      "5 of 5");
    BOOST_CHECK_EQUAL(found.text("4.5", "Before and after", row, "measured: equal answers, MNLI"),
                      "3 of 3");
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::training
