// SPDX-License-Identifier: MIT
// What stlm_study runs: on a text of its own, at the scale that only shows that all works.

#include <cmath>
#include <nlohmann/json.hpp>

#include "program.hpp"

namespace test::training {

namespace {

/// Runs the check; returns what it wrote.
test::report study(const std::string& data, const std::string& out, const char* threads,
                   const std::vector<std::string>& only = {}) {
  std::vector<std::string> arguments{"--scale", "check", "--data",    data,
                                     "--out",   out,     "--threads", threads};
  for (const std::string& v : only) arguments.insert(arguments.end(), {"--only", v});
  const test::outcome o = test::stlm_study(arguments);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  return test::report(test::contents(out + "/report.csv"));
}

nlohmann::json run_of(const std::string& out, const std::string& job) {
  nlohmann::json j = nlohmann::json::parse(test::contents(out + "/runs/" + job + ".json"));
  j["figures"].erase("seconds");  // the only figure that may differ
  return j;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stlm_study_training)

BOOST_AUTO_TEST_CASE(jobs_run_once_and_give_the_same_bits) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  test::write_text(data);
  const test::report found = study(data, out, "2");

  int versions = 0;
  for (const test::report::line& r : found.lines("versions", "At equal")) {
    if (r.column != "measured: tokens/s") continue;
    ++versions;
    BOOST_CHECK_MESSAGE(std::stod(r.value) > 0, r.row);
  }
  BOOST_CHECK_GE(versions, 2);
  // The figures of the report are those of the runs.
  double bits[2][2];  // of a version, of a seed
  const char* const names[] = {"baseline", "untied"};
  for (int v = 0; v < 2; ++v)
    for (int seed = 0; seed < 2; ++seed) {
      const auto j = run_of(out, std::string(names[v]) + ".s" + std::to_string(seed + 1));
      bits[v][seed] = j["figures"]["bits"].get<double>();
      BOOST_CHECK_EQUAL(bits[v][seed], j["figures"]["bits/text.txt"].get<double>());  // one text
      BOOST_CHECK_EQUAL(j["held_out"].size(), 5);
      BOOST_CHECK_EQUAL(bits[v][seed], j["held_out"][4][1].get<double>());
      BOOST_CHECK_LT(bits[v][seed], 0.97 * j["held_out"][0][1].get<double>());  // learned something
      BOOST_CHECK_EQUAL(j["texts"].size(), seed == 0 ? 1 : 0);
    }
  BOOST_CHECK_NE(bits[0][0], bits[0][1]);
  BOOST_CHECK_NE(bits[0][0], bits[1][0]);
  const auto at = [&](const char* row, const char* column) {
    return found.number("versions", "Held-out", row, std::string("measured: ") + column);
  };
  BOOST_CHECK_CLOSE(at("baseline", "mean"), (bits[0][0] + bits[0][1]) / 2, 1e-9);
  BOOST_CHECK_CLOSE(at("baseline", "sd"), std::abs(bits[0][0] - bits[0][1]) / std::sqrt(2.), 1e-6);
  const double less[] = {bits[1][0] - bits[0][0], bits[1][1] - bits[0][1]};
  BOOST_CHECK_CLOSE(at("untied head", "less the baseline's"), (less[0] + less[1]) / 2, 1e-6);
  BOOST_CHECK_CLOSE(at("untied head", "standard error"), std::abs(less[0] - less[1]) / 2, 1e-6);
  BOOST_CHECK(test::contents(out + "/report.md").find("**untied head, text.txt**") !=
              std::string::npos);

  // A later call runs what is missing and nothing else, and with one thread finds the same.
  const std::string removed = out + "/runs/untied.s1.json", kept = out + "/runs/baseline.s2.json";
  const auto before = run_of(out, "untied.s1");
  std::filesystem::remove(removed);
  const auto time = std::filesystem::last_write_time(kept);
  study(data, out, "1", {"baseline", "untied"});
  BOOST_CHECK(std::filesystem::last_write_time(kept) == time);
  BOOST_CHECK_EQUAL(run_of(out, "untied.s1"), before);

  // Two processes, as mpirun would begin them, share what is missing: each job is done once.
  const auto first = run_of(out, "baseline.s1");
  for (const char* const job : {"untied.s1", "baseline.s1"})
    std::filesystem::remove(out + "/runs/" + job + ".json");
  std::string command;
  for (const std::string part : {"one", "two"}) {
    command += test::quoted(STLM_STUDY_PROGRAM);
    for (const std::string& word :
         std::vector<std::string>{"--scale", "check", "--data", data, "--out", out, "--threads",
                                  "1", "--only", "baseline", "--only", "untied"})
      command += ' ' + test::quoted(word);
    command += " >/dev/null 2>" + test::quoted(folder.path(part)) + " & ";
  }
  BOOST_CHECK_EQUAL(std::system((command + "wait").c_str()), 0);
  std::size_t done = 0;
  const std::string said = test::contents(folder.path("one")) + test::contents(folder.path("two"));
  for (std::size_t i = said.find("bits/byte"); i != said.npos; i = said.find("bits/byte", i + 1))
    ++done;
  BOOST_CHECK_MESSAGE(done == 2, said);
  BOOST_CHECK_EQUAL(run_of(out, "untied.s1"), before);
  BOOST_CHECK_EQUAL(run_of(out, "baseline.s1"), first);
  for (const auto& file : std::filesystem::directory_iterator(out + "/runs"))
    BOOST_CHECK(file.path().extension() != ".claim");

  // Results of another scale are refused, not mixed.
  const test::outcome other = test::stlm_study({"--scale", "minutes", "--out", out});
  BOOST_CHECK_EQUAL(other.status, 2);
  BOOST_CHECK_MESSAGE(other.err.find("of \"check\", not \"minutes\"") != std::string::npos,
                      other.err);
}

BOOST_AUTO_TEST_CASE(interrupted_jobs_go_on_with_the_same_bits) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), whole = folder.path("whole"),
                    parts = folder.path("parts");
  test::write_text(data);
  study(data, whole, "1", {"baseline"});  // two seeds of 4 steps
  int calls = 0;
  for (; calls < 20 && !std::filesystem::exists(parts + "/runs/baseline.s2.json"); ++calls) {
    const test::outcome o =
        test::stlm_study({"--scale", "check", "--data", data, "--out", parts, "--threads", "1",
                          "--minutes", "0", "--only", "baseline"});
    BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  }
  BOOST_CHECK_EQUAL(calls, 7);  // one step each, but for the two in the call that ends the first
  for (const std::string job : {"baseline.s1", "baseline.s2"}) {
    BOOST_CHECK_EQUAL(run_of(parts, job), run_of(whole, job));
    for (const char* const end : {".safetensors", ".jsonl"})
      BOOST_CHECK_MESSAGE(test::contents(parts + "/runs/" + job + end) ==
                              test::contents(whole + "/runs/" + job + end),
                          job << end);
    BOOST_CHECK(!std::filesystem::exists(parts + "/runs/" + job + ".ckpt"));
    BOOST_CHECK(!std::filesystem::exists(parts + "/runs/" + job + ".ckpt.previous"));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::training
