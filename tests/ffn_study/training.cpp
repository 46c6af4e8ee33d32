// What ffn_study runs: on a text of its own, at the scale that only shows that all works.

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "program.hpp"

namespace {

/// A folder with a text of 200 kB: a few words in a random order.
void write_text(const std::string& folder) {
  static constexpr const char* words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat.\n"};
  std::filesystem::create_directories(folder);
  std::ofstream file(folder + "/text.txt");
  linnet::random_stream random(linnet::seed{5});
  for (int i = 0; i < 60'000; ++i) file << words[random.below(6)];
}

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
  write_text(data);
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

  // Results of another scale are refused, not mixed.
  const test::outcome other =
      test::ffn_study({"--scale", "minutes", "--out", out, "--only", "4.1"});
  BOOST_CHECK_EQUAL(other.status, 2);
  BOOST_CHECK_MESSAGE(other.err.find("of scale check, not minutes") != std::string::npos,
                      other.err);
}

BOOST_AUTO_TEST_CASE(collapsing_keeps_predictions) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  write_text(data);
  const test::report found = study(data, out, "2", {"4.4"});
  for (const char* const row : {"2W", "3W, 4x expansion"}) {
    const auto number = [&](const char* column) {
      return found.number("4.4", "Before and after", row, std::string("measured: ") + column);
    };
    BOOST_CHECK_GT(number("predictions"), 20);
    BOOST_CHECK_EQUAL(number("equal predictions"), number("predictions"));
    BOOST_CHECK_LT(std::abs(number("bits/byte before") - number("after")), 1e-5);
    BOOST_CHECK_LT(number("largest change of a logit"), 1e-5);
    const double change = found.number("4.4", "Cost", row, "measured: largest change of a logit");
    BOOST_CHECK(change > 0 && change < 1e-4);
    BOOST_CHECK_LT(found.number("4.4", "Cost", row, "measured: bytes of weights, deployed"),
                   found.number("4.4", "Cost", row, "measured: bytes of weights, trained"));
  }
  // All that is deployed is a 1W.
  BOOST_CHECK_EQUAL(
      found.number("4.4", "Cost", "1W", "measured: bytes of weights, deployed"),
      found.number("4.4", "Cost", "3W, 4x expansion", "measured: bytes of weights, deployed"));
}

BOOST_AUTO_TEST_SUITE_END()
