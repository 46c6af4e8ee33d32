// SPDX-License-Identifier: MIT
// Beam search over programs: as wide as the tree it finds what enumeration finds; lines that do not
// run are dropped, and a verifier turns the search.

#include <linnet/generated_data.hpp>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::program_search_test {

namespace {

/// Proposes the same four lines behind every program, the last of which ends it, and scores a
/// program by a number that its text gives.
struct proposer {
  std::vector<std::string> lines{"a = 2", "b = a * 3", "b = 5 - 1", ""};

  ln::result<std::vector<std::string>> generate(std::span<const ln::teacher_request> all) {
    std::vector<std::string> texts;
    for (const auto& one : all) texts.push_back(lines[at(one.draw)] + "\nnever read");
    return texts;
  }
  ln::result<double> score(std::string_view prompt, std::string_view text) const {
    BOOST_TEST(prompt == "How many?\n");
    std::uint64_t hash = 1469598103934665603u;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    return -static_cast<double>(hash >> 40) / (1 << 24);
  }
};

/// All programs of at most three lines that run, best first.
std::vector<ln::found_program> enumerated(const proposer& from) {
  std::vector<ln::found_program> all;
  std::vector<std::string> going{""};
  for (int line = 0; line < 3; ++line) {
    std::vector<std::string> next;
    for (const std::string& before : going)
      for (std::size_t i = 0; i < 3; ++i) next.push_back(before + from.lines[i] + '\n');
    for (const std::string& text : next)
      if (const auto value = ln::run_program(text))
        all.push_back({text, *value, *from.score("How many?\n", text)});
    going = next;
  }
  std::ranges::stable_sort(all, std::ranges::greater{}, &ln::found_program::score);
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(program_search)

BOOST_AUTO_TEST_CASE(as_wide_as_the_tree) {
  proposer from;
  const auto want = enumerated(from);
  // "b = a * 3" runs behind "a = 2" alone.
  BOOST_TEST(want.size() == 2u + 5 + 14);
  const auto found = ln::search_program(from, "How many?\n", {.width = 99, .lines = 3});
  LINNET_REQUIRE_OK(found);
  BOOST_REQUIRE(found->size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    BOOST_TEST((*found)[i].text == want[i].text);
    BOOST_TEST((*found)[i].value == want[i].value);
    BOOST_TEST((*found)[i].score == want[i].score);
  }
}

// A beam of one goes with the best line; a verifier says which one that is.
BOOST_AUTO_TEST_CASE(a_verifier_turns_the_search) {
  proposer from;
  const auto wants = [](std::string_view line) {
    return [line](std::string_view text) { return text.find(line) == text.npos ? 0.0 : 1.0; };
  };
  for (const char* const line : {"b = 5", "a = 2"}) {
    const auto found = ln::search_program(from, "How many?\n",
                                          {.width = 1, .lines = 1, .verifier = 9}, wants(line));
    LINNET_REQUIRE_OK(found);
    BOOST_REQUIRE(found->size() == 1u);
    BOOST_TEST((*found)[0].text.find(line) == 0u);
    BOOST_TEST((*found)[0].score > 7.9);
  }
}

BOOST_AUTO_TEST_CASE(nothing_and_refusals) {
  // What computes nothing yet goes on; what fails does not.
  ln::scripted_teacher defines([](const ln::teacher_request& one) {
    const bool first = one.prompt.ends_with("?\n");
    return std::string(first ? (one.draw == 0 ? "def solve():" : "x = y") : "  return 7");
  });
  const auto found = ln::search_program(defines, "How many?\n", {.draws = 2, .lines = 2});
  LINNET_REQUIRE_OK(found);
  BOOST_REQUIRE(found->size() == 1u);
  BOOST_TEST((*found)[0].text == "def solve():\n  return 7\n");
  BOOST_TEST((*found)[0].value == 7);
  const auto none = ln::search_program(defines, "How many?\n", {.draws = 2, .lines = 1});
  LINNET_REQUIRE_OK(none);
  BOOST_TEST(none->empty());
  BOOST_TEST(message(ln::search_program(defines, "", {.width = 0})) ==
             "search_program: program_search_options.width: expected at least 1, got 0");
  ln::scripted_teacher silent(
      [](const ln::teacher_request&) { return std::optional<std::string>(); });
  BOOST_TEST(!ln::search_program(silent, "How many?\n"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::program_search_test
