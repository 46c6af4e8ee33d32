// SPDX-License-Identifier: MIT
// SQuAD: files of both versions, what is no such file, and the figures of answers.

#include <cmath>
#include <linnet/json.hpp>

#include "support/data.hpp"

namespace test::squad_test {

namespace ln = linnet;

namespace {

const std::string first_version = R"({"data": [{"title": "t", "paragraphs": [
  {"context": "The linnet sings in May.", "qas": [
    {"answers": [{"answer_start": 20, "text": "May"}, {"text": "in May", "answer_start": 17}],
     "question": "When?", "id": "q1"},
    {"answers": [{"answer_start": 4, "text": "linnet"}], "question": "Who?", "id": "q2"}]},
  {"context": "Nothing is asked here.", "qas": []},
  {"context": "c", "qas": [{"id": "q3", "question": "\u00c9?", "answers": []}]}]}],
  "version": "1.1"})";

std::string shown(const ln::result<ln::squad>& read) {
  if (!read) return message(read);
  std::string all;
  for (std::size_t i = 0; i < read->questions.size(); ++i) {
    const ln::text_pair pair = read->pair(i);
    all += read->questions[i].id + ": " + pair.input + " -> " + pair.target + ";";
  }
  return all;
}
std::string read(const std::string& text) { return shown(ln::read_squad(text, "f")); }

}  // namespace

BOOST_AUTO_TEST_SUITE(squad)

BOOST_AUTO_TEST_CASE(questions_and_their_contexts) {
  BOOST_TEST(read(first_version) ==
             "q1: question: When? context: The linnet sings in May. -> May;"
             "q2: question: Who? context: The linnet sings in May. -> linnet;"
             "q3: question: \xc3\x89? context: c -> ;");
  const auto two = ln::read_squad(first_version, "f");
  LINNET_REQUIRE_OK(two);
  BOOST_TEST(two->contexts.size() == 3u);
  BOOST_TEST(two->questions[0].answers.size() == 2u);
  // Version 2 has the context behind the questions.
  BOOST_TEST(read(R"({"version": "v2.0", "data": [{"paragraphs": [
      {"qas": [{"plausible_answers": [{"text": "x"}], "question": "Q", "id": "i", "answers": [],
                "is_impossible": true}], "context": "C"},
      {"qas": [{"question": "R", "id": "j", "answers": [{"text": "a"}]}], "context": "D"}]}]})") ==
             "i: question: Q context: C -> ;j: question: R context: D -> a;");
}

BOOST_AUTO_TEST_CASE(what_is_no_such_file) {
  const auto without = [](const std::string& from, const std::string& to) {
    return read(replaced(first_version, from, to));
  };
  BOOST_TEST(read("{}") == "f: data: expected at least one question, got none");
  BOOST_TEST(read("3") == "f: the file: expected an object with data, got 3");
  BOOST_TEST(read("[\"data\"]") == "f: data: expected at least one question, got none");
  BOOST_TEST(without("\"context\": \"c\", ", "") == "f: context: expected a text, got none");
  BOOST_TEST(without("\"question\": \"Who?\", ", "") == "f: question: expected a text, got none");
  BOOST_TEST(without("\"q2\"", "2") == "f: id: expected a text, got 2");
  BOOST_TEST(without("\"q2\"", "[\"q2\"]") == "f: id: expected a text, got none");
  BOOST_TEST(without("\"id\": \"q1\"", "\"other\": \"q1\"") == "f: id: expected a text, got none");
  BOOST_TEST(without("\"text\": \"linnet\"", "\"text\": null") ==
             "f: text: expected a text, got null");
  BOOST_TEST(without("{\"answer_start\": 4, \"text\": \"linnet\"}", "\"linnet\"") ==
             "f: answers: expected objects, got \"linnet\"");
  BOOST_TEST(without(", \"text\": \"linnet\"", "") == "f: answers.text: expected a text, got none");
  BOOST_TEST(without("\"question\": \"Who?\"", "\"question\": \"a\", \"question\": \"b\"") ==
             "f: question: expected it once, got twice");
  BOOST_TEST(without("\"version\": \"1.1\"", "").starts_with("f: the file: expected JSON"));
  BOOST_TEST(read(std::string(40, '[')).starts_with("f: the file: expected at most 32 levels"));
  // Names with dots, and lists in lists, are no way into what is not open.
  BOOST_TEST(read(R"({"data.paragraphs.qas.id": "x", "data": [[{"id": "x"}], "y"]})") ==
             "f: data: expected at least one question, got none");
}

// Values of the benchmark's own script.
BOOST_AUTO_TEST_CASE(answers_are_compared_without_case_articles_and_punctuation) {
  BOOST_TEST(ln::normalized_answer(" The  cat, an A-frame;\tTHE end! ") == "cat aframe end");
  BOOST_TEST(ln::normalized_answer("\xc3\x89t\xc3\xa9 a \xe2\x80\x93the\xe2\x80\x93 x") ==
             "\xc3\xa9t\xc3\xa9 \xe2\x80\x93 \xe2\x80\x93 x");
  BOOST_TEST(ln::normalized_answer("anthem a1 _the_") == "anthem a1");
  BOOST_TEST(ln::normalized_answer("\xff") == "\xff");
  const std::vector<std::string> answers{"the Norman conquest", "1066"}, none;
  BOOST_TEST(ln::squad_exact("Norman Conquest.", answers));
  BOOST_TEST(!ln::squad_exact("conquest", answers));
  BOOST_TEST(ln::squad_f1("The conquest", answers) == 2.0 / 3);
  BOOST_TEST(ln::squad_f1("in 1066", answers) == 2.0 / 3);
  BOOST_TEST(ln::squad_f1("conquest conquest", answers) == 0.5);
  BOOST_TEST(ln::squad_f1("1066", std::vector<std::string>{"1066, 1066"}) == 2.0 / 3);
  BOOST_TEST(ln::squad_f1("x", answers) == 0);
  BOOST_TEST(ln::squad_f1("the", answers) == 0);
  BOOST_TEST(ln::squad_exact("A!", none));
  BOOST_TEST(ln::squad_f1("A!", none) == 1);
  BOOST_TEST(ln::squad_f1("b", none) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::squad_test
