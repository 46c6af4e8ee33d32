// SPDX-License-Identifier: MIT
// Training data that a teacher writes: every method against golden items, filters against planted
// bad answers, and runs that are interrupted.

#include <fstream>
#include <limits>
#include <linnet/generated_data.hpp>
#include <sstream>

#include "support/allocations.hpp"
#include "support/data.hpp"

namespace test::generated_data_test {

namespace ln = linnet;
using ln::index;
using request = ln::teacher_request;

namespace {

/// A teacher whose answers are found by a part of the prompt: the first that fits, draw by draw.
struct script {
  std::vector<std::pair<std::string, std::vector<std::string>>> lines;
  std::vector<request> asked{};

  ln::result<std::vector<std::string>> generate(std::span<const request> all) {
    ln::scripted_teacher teacher([&](const request& one) -> std::optional<std::string> {
      asked.push_back(one);
      for (const auto& [part, answers] : lines)
        if (one.prompt.find(part) != std::string::npos &&
            one.draw < static_cast<index>(answers.size()))
          return answers[static_cast<std::size_t>(one.draw)];
      return {};
    });
    return teacher.generate(all);
  }
};
using lines = std::vector<std::pair<std::string, std::vector<std::string>>>;
using seeds = std::vector<ln::seed_item>;

std::string shown(const ln::result<ln::generated_data>& made) {
  if (!made) return made.error().message();
  std::string all;
  for (const ln::training_item& one : made->items)
    all += one.prompt + " -> " + one.target +
           (one.weight == 1 ? "" : " @" + ln::detail::number_text(one.weight)) + "\n";
  return all + made->statistics.text();
}
template <class Method>
std::string made(const seeds& from, const Method& method, lines said,
                 const ln::data_generation_options& how = {}) {
  script teacher{std::move(said)};
  return shown(ln::generate_data(from, method, teacher, how));
}

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream all;
  all << in.rdbuf();
  return all.str();
}

// Few words around what the tests are about.
const ln::chain_of_thought thought{
    .ask = "{question}?", .prompt = "{question}: ", .needs_mark = false};

}  // namespace

BOOST_AUTO_TEST_SUITE(generated_data)

BOOST_AUTO_TEST_CASE(chain_of_thought) {
  ln::chain_of_thought three = thought;
  three.draws = 3;
  BOOST_TEST(made({{"2+3", "5"}, {"capital", "Paris"}, {"open", ""}}, three,
                  {{"2+3", {"2 and 3. The answer is 5.", "2, 3, then 5", "no. The answer is 6"}},
                   {"capital", {"So: the answer is: paris!", "Paris", "The answer is Paris"}},
                   {"open", {"x", "y", "z"}}}) ==
             "2+3:  -> 2 and 3.\nThe answer is 5.\n2+3:  -> 2, 3, then 5\nThe answer is 5.\n"
             "capital:  -> So:\nThe answer is Paris.\n"
             "capital:  -> Paris\nThe answer is Paris.\n"
             "4 of 9 items accepted, 9 requests; refused: no known answer 3, no rationale 1, "
             "wrong answer 1");
  three.needs_mark = true;
  BOOST_TEST(
      made({{"2+3", "5"}}, three, {{"2+3", {"a. The answer is 5", "b 5", "The answer is"}}}) ==
      "2+3:  -> a.\nThe answer is 5.\n1 of 3 items accepted, 3 requests; refused: no final "
      "answer 2");
  three.needs_mark = false;
  BOOST_TEST(made({{"2+3", "5"}}, three,
                  {{"2+3", {"a 5", "a 5", "The answer is 1. No, b. The answer is 5"}}}) ==
             "2+3:  -> a 5\nThe answer is 5.\n2+3:  -> The answer is 1. No, b.\nThe answer is "
             "5.\n2 of 3 items accepted, 3 requests; refused: repeated 1");
}

BOOST_AUTO_TEST_CASE(step_by_step) {
  ln::step_by_step method{.ask = "{question}?"};
  method.alpha = 0.25;
  BOOST_TEST(made({{"a", "1"}, {"b", ""}, {"c", "2"}, {"d", "3"}, {"e", "4"}}, method,
                  {{"a", {"why a. The answer is 1"}},
                   {"b", {"why b. The answer is yes"}},
                   {"c", {"why c. The answer is 7"}},
                   {"d", {"The answer is 3"}},
                   {"e", {"because"}}}) ==
             "predict: a -> 1 @0.25\nexplain: a -> why a. @0.75\npredict: b -> yes @0.25\n"
             "explain: b -> why b. @0.75\n4 of 7 items accepted, 5 requests; refused: no answer 1, "
             "no rationale 1, wrong answer 1");
}

BOOST_AUTO_TEST_CASE(socratic) {
  const ln::socratic method{.ask = "{question}?",
                            .decompose = "[{question}]",
                            .solve = "<{question}|{steps}|{step}>",
                            .most_questions = 2};
  BOOST_TEST(made({{"all", "3"}, {"bad", "3"}, {"half", "3"}, {"many", "3"}, {"none", "3"}}, method,
                  {{"all", {"Q: one?\nA: 1\nchatter\nQ: two?\nA: it is 3."}},
                   {"bad", {"Q: one?\nA: 4"}},
                   {"half", {"Q: one?\nQ: two?\nA: 3"}},
                   {"many", {"Q: 1\nA: 1\nQ: 2\nA: 2\nQ: 3\nA: 3"}},
                   {"none", {"3"}}}) ==
             "[all] -> one?\ntwo?\n\n<all||one?> ->  1\n<all|Q: one?\nA: 1\n|two?> ->  it is 3.\n"
             "3 of 7 items accepted, 5 requests; refused: a question without an answer 1, no "
             "questions 1, too many questions 1, wrong answer 1");
}

BOOST_AUTO_TEST_CASE(scott) {
  const ln::scott method{.ask = "{question}={answer}", .alpha = 0.25};
  script teacher{
      {{"q=yes", {"because a"}}, {"q=no", {"because b"}}, {"r=1", {"alone"}}, {"s=", {"same"}}}};
  BOOST_TEST(shown(ln::generate_data(seeds{{"q", "yes", "no"}, {"r", "1"}, {"s", "x", "y"}, {"t"}},
                                     method, teacher)) ==
             "[factual] q\n -> [factual] because a So the answer is yes @0.75\n"
             "[counterfactual] q\n[counterfactual] because b So the answer is ->  no @0.25\n"
             "[factual] r\n -> [factual] alone So the answer is 1 @0.75\n"
             "3 of 5 items accepted, 5 requests; refused: no known answer 1, one rationale for "
             "both answers 1");
  BOOST_TEST(teacher.asked.size() == 5);
  BOOST_TEST((teacher.asked[0] == request{"q=yes", "q=no"}));
  BOOST_TEST((teacher.asked[1] == request{"q=no", "q=yes"}));
  BOOST_TEST((teacher.asked[2] == request{"r=1", "r="}));  // against no answer
}

BOOST_AUTO_TEST_CASE(program_aided) {
  const ln::program_aided method{
      .ask = "{question}?", .prompt = "{question}: ", .repair = "<{question}|{program}|{error}>"};
  BOOST_TEST(made({{"half", "2.5"}, {"bad", "3"}, {"loop", "3"}, {"none", "3"}, {"line", "0.3"}},
                  method,
                  {{"half", {"Sure:\n```python\nx = 5\nx / 2\n```\nthere"}},
                   {"bad", {"1 + 1"}},
                   {"loop", {"while True: pass"}},
                   {"none", {""}},
                   {"line", {"0.1 + 0.2"}}}) ==
             "half:  -> x = 5\nx / 2\n<half|x_ = 5\nx / 2|a name that has no value: x> -> x = 5\nx "
             "/ 2\nline:  -> 0.1 + 0.2\n3 of 6 items accepted, 5 requests; refused: no program 1, "
             "program fails 1, wrong answer 1");
}

BOOST_AUTO_TEST_CASE(adversarial_distillation) {
  const ln::adversarial_distillation method{.judge = "{question}/{first}/{second}",
                                            .more_hard = "hard {question}",
                                            .more_easy = "easy {question}"};
  BOOST_TEST(
      made({{"imitate", "", ""},
            {"sort a list", "good", "poor"},
            {"add two numbers", "right", "right too"},
            {"bad judge", "a", "b"},
            {"copy a seed", "a", "b"}},
           method,
           {{"sort a list/good/poor", {"9 4"}},
            {"sort a list/poor/good", {"The first has 7.5, the second 8.5"}},
            {"add two numbers/right/", {"6 5"}},
            {"add two numbers/right too/", {"5.5 5"}},
            {"bad judge/", {"11 3"}},
            {"copy a seed/", {"5 5"}},
            {"hard sort a list", {"merge many sorted lists"}},
            {"easy add", {"name Roman numerals"}},
            {"easy copy a seed", {"add two numbers"}},
            {"imitate", {"done"}},
            {"merge many", {"with a heap"}},
            {"name Roman", {"I V X"}},
            {"add two numbers", {"x"}}}) ==
      "imitate -> done\nmerge many sorted lists -> with a heap\nname Roman numerals -> I V X\n"
      "3 of 5 items accepted, 15 requests; refused: no scores 1, not new 1");
}

BOOST_AUTO_TEST_CASE(lamini) {
  const std::string_view topics[] = {"birds"};
  const ln::lamini method{.by_examples = "more {count}:\n{examples}",
                          .by_topic = "on {topic}",
                          .topics = topics,
                          .count = 4,
                          .examples = 2};
  BOOST_TEST(
      made({{"write one short poem"}, {"name three rivers"}}, method,
           {{"more 4:\n- write one short poem\n- name three rivers",
             {"1. sing a long song\n2) go\n- name three rivers!\nchatter"}},
            {"more 4:\n- name three", {"nothing to say"}},
            {"on birds", {"* name a bird\n* paint what flies\n"}},
            {"sing", {"la"}},
            {"name three", {"x"}},
            {"name a bird", {""}},
            {"paint", {"a kite"}}}) ==
      "sing a long song -> la\npaint what flies -> a kite\n"
      "2 of 8 items accepted, 7 requests; refused: empty answer 2, no instructions 1, not new "
      "2, short instruction 1");
}
BOOST_AUTO_TEST_CASE(evol_instruct) {
  ln::evol_instruct method{.form = "{way}{question}>", .judge = "{question}/{new}", .rounds = 2};
  method.ways = {"deep ", "deep ", "deep ", "deep ", "deep "};
  BOOST_TEST(made({{"boil rice"}, {"sing"}, {"copy"}, {"equal"}, {"sorry"}}, method,
                  {{"deep boil rice>", {"boil rice in milk"}},
                   {"boil rice/", {"Not Equal"}},
                   {"deep boil rice in milk>", {"boil rice in milk with salt"}},
                   {"boil rice in milk/", {"not equal."}},
                   {"boil rice in milk with salt", {"slowly, with care"}},
                   {"boil rice in milk", {"slowly"}},
                   {"deep sing>", {"...", "sing high"}},
                   {"sing/", {"Not equal"}},
                   {"sing high", {"?!"}},
                   {"deep copy>", {"the Rewritten Instruction: a", "here the given instruction"}},
                   {"deep equal>", {"equal 1", "equal 2"}},
                   {"equal/", {"Equal", "Equal"}},
                   {"equal ", {"x"}},
                   {"deep sorry>", {"ask 1", "ask 2"}},
                   {"sorry/", {"Not Equal"}},
                   {"ask ", {"Sorry, I cannot."}}}) ==
             "boil rice in milk -> slowly\nboil rice in milk with salt -> slowly, with care\n"
             "2 of 10 items accepted, 24 requests; refused: copied form 2, empty answer 1, empty "
             "instruction 1, no gain 2, refusal 2");
}

BOOST_AUTO_TEST_CASE(reflection_tuning) {
  const ln::reflection_tuning method{.of_instruction = "first {question}/{answer}",
                                     .of_answer = "then {question}/{answer}"};
  BOOST_TEST(
      made({{"a", "old"}, {"b"}, {"c", "x"}, {"d", "x"}, {"e", "same"}, {"f", "x"}}, method,
           {{"first a/old", {"Dull. [New Instruction] A2 [End]\n[New Answer] N [End]"}},
            {"then A2/N", {"Short. [Better Answer] better [End] bye"}},
            {"first b/own", {"[New Instruction] B2 [New Answer] M"}},
            {"then B2/M", {"[Better answer] m"}},
            {"first c", {"none"}},
            {"first d", {"[New Instruction] D2 [End]"}},
            {"first e", {"[New Instruction] e [End] [New Answer] same [End]"}},
            {"then e", {"[Better Answer] same [End]"}},
            {"first f", {"[New Instruction] F2 [End] [New Answer] y [End]"}},
            {"then F2", {"it is good"}},
            {"b", {"own"}}}) ==
      "A2 -> better\nB2 -> m\n2 of 6 items accepted, 11 requests; refused: no new answer 2, no new "
      "instruction 1, unchanged 1");
}

BOOST_AUTO_TEST_CASE(fanno) {
  const seeds passages{{"Otters eat crabs and fish in rivers"},
                       {"Crabs walk sideways on the beach"},
                       {"Rivers end in the sea"},
                       {"Short"},
                       {"Empty"}};
  std::vector<std::string_view> texts;
  for (const auto& one : passages) texts.push_back(one.question);
  const auto index_of_passages = ln::bm25::open(texts);
  LINNET_REQUIRE_OK(index_of_passages);
  const ln::fanno method{.passages = &*index_of_passages,
                         .ask = "about {passage}",
                         .answer = "[{passages}] {question}"};
  const lines said{
      {"about Otters", {"What do otters eat, is it crabs?"}},
      {"about Crabs", {"How does the text say crabs walk?"}},
      {"about Rivers", {"What do otters eat, is it crab?"}},
      {"about Short", {"Why?"}},
      {"about Empty", {"Where do rivers go now?"}},
      {"[Otters eat crabs and fish in rivers\nCrabs walk sideways", {"crabs and fish"}},
      {"[Otters", {"fish"}},
      {"[Rivers end in the sea\nOtters", {" "}}};
  BOOST_TEST(made(passages, method, said) ==
             "What do otters eat, is it crabs? -> crabs and fish\n1 of 5 items accepted, 8 "
             "requests; refused: empty answer 1, names the passage 1, not new 1, short instruction "
             "1");
  BOOST_TEST(made({{"one"}}, method, said) ==
             "generate_data: items: expected at least 1 that every filter accepts, got none: 0 of "
             "1 items accepted, 0 requests; refused: an index of other passages 1");
}

BOOST_AUTO_TEST_CASE(auggpt) {
  ln::auggpt method{.ask = "{question}?", .prompt = "{question}: ", .paraphrases = 5};
  const lines said{
      {"the 2 films", {"both 2 movies", "The 2 films!", "the 3 films", "", "2 good pictures"}}};
  BOOST_TEST(made({{"the 2 films", "good"}, {"bare"}}, method, said) ==
             "the 2 films:  -> good\nboth 2 movies:  -> good\n2 good pictures:  -> good\n"
             "3 of 7 items accepted, 5 requests; refused: empty paraphrase 1, no label 1, not new "
             "1, other numbers 1");
  method.keep_seed = false, method.keep_numbers = false;
  BOOST_TEST(made({{"the 2 films", "good"}}, method, said)
                 .starts_with("both 2 movies:  -> good\nthe 3 films:  -> good\n"));
}

BOOST_AUTO_TEST_CASE(llm2llm) {
  const ln::llm2llm method{
      .ask = "{question}/{answer}/{other}", .prompt = "{question}: ", .per_failure = 2};
  BOOST_TEST(made({{"add 1 and 2 now", "3", "4"}, {"right", "7", "It is 7"}, {"open", "", "x"}},
                  method,
                  {{"add 1 and 2 now/3/4",
                    {"Question: add 5 and 6 now\nAnswer: 11",
                     "Question: Add 1 and 2 now.\nAnswer: "
                     "3"}}}) ==
             "add 5 and 6 now:  -> 11\n1 of 4 items accepted, 2 requests; refused: no known answer "
             "1, not new 1, student is right 1");
  BOOST_TEST(made({{"q", "3", ""}, {"r", "3", "1"}}, method,
                  {{"q/3/", {"Question: new one\nAnswer: 2", "Question: no more"}},
                   {"r/3/1", {"Answer: 3", "nothing"}}}) ==
             "new one:  -> 2\n1 of 4 items accepted, 4 requests; refused: no answer 1, no question "
             "2");
}

BOOST_AUTO_TEST_CASE(in_context_distillation) {
  ln::in_context_distillation method{.example = "{question}={answer};",
                                     .prompt = "{examples}{question}=",
                                     .examples = 9,
                                     .hard = 0.25};
  // All other seeds with an answer stand before the question, in an order of the seed.
  const seeds from{{"a", "1"}, {"b", "2"}, {"c"}};
  const lines said{{"c=", {"3"}}, {"a=1;b=", {"2, I think\nd=9"}}, {"b=2;a=", {"7"}}};
  const std::string usual = made(from, method, said);
  BOOST_TEST(usual.starts_with("a=1;b= -> 2, I think @0.75\na=1;b= -> 2 @0.25\n"), usual);
  BOOST_TEST(usual.find("c= -> 3\n3 of 4 items accepted, 3 requests; refused: wrong answer 1") !=
                 std::string::npos,
             usual);
  method.only_right = false, method.alone = true;
  const std::string alone = made(from, method, said);
  BOOST_TEST(alone.starts_with("b=2;a= -> 7 @0.75\nb=2;a= -> 1 @0.25\na= -> 7 @0.75\na= -> 1 "
                               "@0.25\n"),
             alone);
}

// What filters that see all items refuse.
BOOST_AUTO_TEST_CASE(common_filters) {
  const lines said{{"a", {"why it is 1"}}, {"b", {"a very long way to say 1"}}};
  const seeds from{{"a", "1"}, {"b", "1"}};
  BOOST_TEST(made(from, thought, said, {.longest = 30}) ==
             "a:  -> why it is 1\nThe answer is 1.\n1 of 2 items accepted, 2 requests; refused: "
             "long target 1");
  const auto blank = [](ln::teacher_dialogue& d) { d.keep({"p", " \n"}); };
  BOOST_TEST(
      made({{"x"}}, blank, {}) ==
      "generate_data: items: expected at least 1 that every filter accepts, got none: 0 of 1 "
      "items accepted, 0 requests; refused: empty target 1");
}

// Filters by score, and scores that are no numbers.
BOOST_AUTO_TEST_CASE(scores) {
  struct scorer : script {
    double second;
    ln::result<double> score(std::string_view prompt, std::string_view) const {
      return prompt.starts_with("a") ? -1 : second;
    }
  };
  const seeds from{{"a", "1"}, {"b", "1"}};
  const auto with = [&](double second, double least) {
    scorer teacher{{{{"a", {"1"}}, {"b", {"1"}}}}, second};
    return shown(ln::generate_data(from, thought, teacher, {.least_score = least}));
  };
  BOOST_TEST(with(-3, -2) ==
             "a:  -> 1\nThe answer is 1.\n1 of 2 items accepted, 2 requests; refused: low score 1");
  BOOST_TEST(with(-3, -4).ends_with("2 of 2 items accepted, 2 requests"));
  BOOST_TEST(with(std::numeric_limits<double>::quiet_NaN(), -2) ==
             "teacher: score of \"1?The answer is 1.\": expected a finite number, got NaN");
  BOOST_TEST(with(-std::numeric_limits<double>::infinity(), -2) ==
             "teacher: score of \"1?The answer is 1.\": expected a finite number, got infinity");
  BOOST_TEST(made(from, thought, {{"", {"1"}}}, {.least_score = -1}) ==
             "teacher: score: expected a teacher that has one, got one that only writes; set "
             "least_score to 0");
}

BOOST_AUTO_TEST_CASE(refusals) {
  BOOST_TEST(made({}, thought, {}) == "generate_data: seeds: expected at least 1, got 0");
  BOOST_TEST(made({{"a"}, {" "}}, thought, {}) ==
             "generate_data: seed 1: expected a question that is not empty, got an empty one");
  BOOST_TEST(made({{"a", "\xff"}}, thought, {}) ==
             "generate_data: seed 0: expected texts in UTF-8, got other bytes");
  BOOST_TEST(made({{"a", "1"}}, thought, {}) ==
             "scripted_teacher: answer 0 to \"a?\": expected one, of a teacher that has not run "
             "out of answers, got none");
  BOOST_TEST(
      made({{"a", "1"}}, thought, {{"a", {"2"}}}) ==
      "generate_data: items: expected at least 1 that every filter accepts, got none: 0 of 1 "
      "items accepted, 1 requests; refused: wrong answer 1");
  BOOST_TEST(made({{"a", "1"}}, ln::step_by_step{.alpha = 2}, {}) ==
             "generate_data: step_by_step.alpha: expected 0 <= alpha <= 1, got 2");
  BOOST_TEST(made({{"a", "1"}}, thought, {}, {.together = 0}) ==
             "generate_data: data_generation_options.together: expected at least 1, got 0");
  const auto endless = [](ln::teacher_dialogue& d) {
    while (!d.waiting()) (void)d.ask("more");
  };
  ln::scripted_teacher yes([](const request&) { return std::string("yes"); });
  BOOST_TEST(shown(ln::generate_data(seeds{{"a"}}, endless, yes, {.most_asked = 5})) ==
             "generate_data: requests about seed 0: expected at most 5, "
             "data_generation_options.most_asked, got 6");
  struct silent {
    ln::result<std::vector<std::string>> generate(std::span<const request>) {
      return std::vector<std::string>{};
    }
  } nothing;
  BOOST_TEST(shown(ln::generate_data(seeds{{"a", "1"}}, thought, nothing)) ==
             "teacher: answers: expected 1, got 0");
}

// Equal requests are asked once, the teacher gets those of several seeds together, and bytes that
// are not UTF-8 become U+FFFD.
BOOST_AUTO_TEST_CASE(requests) {
  script teacher{{{"a", {"a\xff 1"}}, {"b", {"1"}}}};
  const seeds from{{"a", "1"}, {"b", "1"}, {"a", "1"}};
  for (const index together : {index{1}, index{2}, index{3}, index{9}}) {
    teacher.asked.clear();
    BOOST_TEST(shown(ln::generate_data(from, thought, teacher, {.together = together})) ==
               "a:  -> a\xef\xbf\xbd 1\nThe answer is 1.\nb:  -> 1\nThe answer is 1.\na:  -> "
               "a\xef\xbf\xbd 1\nThe answer is 1.\n3 of 3 items accepted, 2 requests");
    BOOST_TEST(teacher.asked.size() == 2);
  }
}

BOOST_AUTO_TEST_CASE(answers_in_files) {
  const auto all = ln::recorded_answers::parse(
      "{\"teacher\": \"me\"}\n{\"prompt\": \"p\", \"answer\": \"a\", \"more\": [1]}\n\n"
      "{\"answer\": \"b\", \"prompt\": \"p\"}\n"
      "{\"prompt\": \"p\", \"against\": \"q\", \"answer\": \"c\"}\n"
      "{\"prompt\": \"p\", \"text\": \"a\", \"score\": -0.5}",
      "f");
  LINNET_REQUIRE_OK(all);
  BOOST_TEST(all->answers() == 3);
  BOOST_TEST(all->name() == "me");
  const std::vector<request> asked{{"p", "", 1}, {"p", "q"}, {"p"}};
  const auto texts = all->generate(asked);
  LINNET_REQUIRE_OK(texts);
  BOOST_TEST((*texts == std::vector<std::string>{"b", "c", "a"}));
  BOOST_TEST(*all->score("p", "a") == -0.5);
  BOOST_TEST(all->score("p", "b").error().message() ==
             "f: score of \"b\": expected one that was recorded, got none");
  const std::vector<request> third{{"p", "", 2}};
  BOOST_TEST(all->generate(third).error().message() ==
             "f: answer 2 to \"p\": expected one, of a teacher that has not run out of answers, "
             "got none");
  const auto wrong = [](const std::string& line) {
    const auto r =
        ln::recorded_answers::parse("{\"prompt\": \"p\", \"answer\": \"a\"}\n" + line, "f");
    return r ? std::string("read") : r.error().message();
  };
  BOOST_TEST(wrong("{\"prompt\": \"p\", \"ans").starts_with("f:2: the line: expected JSON"));
  for (const char* const line :
       {"{\"prompt\": \"p\"}", "{\"answer\": \"a\"}", "{\"prompt\": \"p\", \"score\": 1}",
        "{\"prompt\": \"p\", \"text\": \"t\"}",
        "{\"prompt\": \"p\", \"answer\": \"a\", \"text\": "
        "\"t\", \"score\": 1}",
        "{\"teacher\": \"x\", \"prompt\": \"p\", \"answer\": \"a\"}",
        "{\"prompt\": \"p\", \"against\": \"q\", \"text\": \"t\", \"score\": 1}"})
    BOOST_TEST(wrong(line).starts_with("f:2: the line: expected \"prompt\" with \"answer\""), line);
  BOOST_TEST(wrong("{\"prompt\": \"p\", \"text\": \"t\", \"score\": \"high\"}") ==
             "f:2: score: expected a number, got high");
  BOOST_TEST(!ln::recorded_answers::open("nowhere/at/all"));
}

// A run that a teacher's failure, or a kill in the middle of a line, ended at any place goes on
// exactly: no answer is asked for twice, and the items and the record are those of a run without.
BOOST_AUTO_TEST_CASE(interrupted_runs) {
  const scratch_folder folder;
  const seeds from{{"a", "1"}, {"b", "1"}, {"c", "1"}, {"a", "1"}};
  ln::chain_of_thought two = thought;
  two.draws = 2;
  index calls = 0, left = 0;
  ln::scripted_teacher failing([&](const request& one) -> std::optional<std::string> {
    if (left == 0) return {};
    --left, ++calls;
    return one.prompt + " \"draw\"\n" + std::to_string(one.draw) + ": 1";
  });
  const auto run = [&](const std::string& path, index most, index portion = 1) {
    left = most;
    auto teacher = ln::answer_recorder::open(path, failing, "t", portion);
    LINNET_REQUIRE_OK(teacher);
    return shown(ln::generate_data(from, two, *teacher, {.together = 2}));
  };
  const std::string whole = folder.path("whole"), items = run(whole, 100);
  BOOST_TEST(items.ends_with("8 of 8 items accepted, 6 requests"), items);
  BOOST_TEST(calls == 6);
  const std::string record = contents(whole);
  BOOST_TEST(run(whole, 0) == items);  // all from the record
  for (const index first : {0, 1, 2, 3, 4, 5}) {
    const std::string path = folder.path("part" + std::to_string(first));
    calls = 0;
    BOOST_TEST(run(path, first).starts_with("scripted_teacher: answer "));
    BOOST_TEST(calls == first);
    { std::ofstream(path, std::ios::app) << "{\"prompt\": \"a?\", \"ans"; }  // a line that was torn
    BOOST_TEST(run(path, 100) == items);
    BOOST_TEST(calls == 6);
    BOOST_TEST(contents(path) == record);
  }
  BOOST_TEST(run(folder.path("portions"), 100, 4) == items);
  BOOST_TEST(contents(folder.path("portions")) == record);

  const auto refused = [&](const std::string& name, index portion = 1) {
    const auto teacher = ln::answer_recorder::open(whole, failing, name, portion);
    return teacher ? std::string("opened") : teacher.error().message();
  };
  BOOST_TEST(refused("other") == whole + ": teacher: expected other, got t");
  BOOST_TEST(refused("t", 0) == "answer_recorder::open: portion: expected at least 1, got 0");
  { std::ofstream(whole) << "{\"prompt\": \"p\", \"answer\": \"a\"}\n"; }
  BOOST_TEST(refused("t") ==
             whole + ": teacher: expected t, got a record without a teacher's name");
}

// Scores are recorded, too, and none is asked twice.
BOOST_AUTO_TEST_CASE(recorded_scores) {
  struct scorer : script {
    index scored = 0;
    ln::result<double> score(std::string_view, std::string_view) {
      return -0.1 * static_cast<double>(++scored);
    }
  } teacher{{{{"", {"1"}}}}};
  const scratch_folder folder;
  for (int run = 0; run < 2; ++run) {
    auto recording = ln::answer_recorder::open(folder.path("r"), teacher, "t");
    LINNET_REQUIRE_OK(recording);
    const auto made = ln::generate_data(seeds{{"a", "1"}, {"b", "1"}}, thought, *recording,
                                        {.least_score = -0.1});
    BOOST_TEST(shown(made).ends_with("refused: low score 1"));
    BOOST_TEST(teacher.scored == 2);
  }
  // Draws in the wrong order would be found again under other numbers.
  auto recording = ln::answer_recorder::open(folder.path("s"), teacher, "t");
  LINNET_REQUIRE_OK(recording);
  ln::scripted_teacher any([](const request&) { return std::string("x"); });
  auto draws = ln::answer_recorder::open(folder.path("d"), any, "t");
  LINNET_REQUIRE_OK(draws);
  const std::vector<request> second{{"p", "", 1}};
  BOOST_TEST(!draws->generate(second));
  const std::vector<request> exchanged{{"p", "", 1}, {"p"}}, negative{{"p", "", -1}};
  BOOST_TEST(!draws->generate(negative));
  BOOST_TEST(draws->generate(exchanged).error().message() ==
             folder.path("d") + ": draw: expected one behind all draws below it, got 1");
  BOOST_TEST(draws->record().answers() == 0);      // nothing was asked for
  const std::vector<request> twice{{"q"}, {"q"}};  // one request, and no draw 1
  LINNET_REQUIRE_OK(draws->generate(twice));
  BOOST_TEST(draws->record().find({"q"}) != nullptr);
  BOOST_TEST(draws->record().find({"q", "", 1}) == nullptr);
}

BOOST_AUTO_TEST_CASE(items_in_files) {
  const scratch_folder folder;
  const std::vector<ln::training_item> items{{"a \"b\"\n", "\xc3\xa9", 0.25}, {"", "c"}};
  LINNET_REQUIRE_OK(ln::write_training_items(folder.path("f"), items));
  BOOST_TEST(contents(folder.path("f")) ==
             "{\"prompt\": \"a \\\"b\\\"\\u000a\", \"target\": \"\xc3\xa9\", \"weight\": 0.25}\n"
             "{\"prompt\": \"\", \"target\": \"c\", \"weight\": 1}\n");
  const auto read = ln::read_training_items(folder.path("f"));
  LINNET_REQUIRE_OK(read);
  BOOST_TEST((*read == items));
  { std::ofstream(folder.path("g")) << "{\"prompt\": \"\", \"target\": \"\", \"weight\": -1}"; }
  BOOST_TEST(ln::read_training_items(folder.path("g")).error().message() ==
             folder.path("g") + ":1: weight: expected a number of at least 0, got -1");
  const std::vector<ln::training_item> bad{{"\xff", "x"}};
  BOOST_TEST(ln::write_training_items(folder.path("f"), bad).error().what == "item 0");
  BOOST_TEST(ln::read_training_items(folder.path("f"))->size() == 2);  // untouched
}

BOOST_AUTO_TEST_CASE(programs) {
  const auto run = [](std::string_view source, const ln::program_limits& l = {}) {
    const auto r = ln::run_program(source, l);
    return r ? ln::detail::number_text(*r) : r.error().what + ": " + r.error().got;
  };
  BOOST_TEST(run("x = 3\ny = x * 4 + 2\ny  # all") == "14");
  BOOST_TEST(run("def solution():\n    a = 2\n    return a ** 3 ** 2\n    b = 1 / 0") == "512");
  BOOST_TEST(run("-2 ** 2") == "-4");
  BOOST_TEST(run("2 ** -1") == "0.5");
  BOOST_TEST(run("(7 // -2) % 5 + -7 % 5") == "4");
  // As Python 3.11 answers: the quotient's last bit does not decide.
  BOOST_TEST(run("1 // 0.1") == "9");
  BOOST_TEST(run("1 % 0.1") == "0.09999999999999995");
  BOOST_TEST(run("-1 // 0.1 + 6 // -4") == "-12");
  BOOST_TEST(run("-7.5 % 2 + 7 % -2") == "-0.5");
  BOOST_TEST(run("round(2.675, 2)") == "2.67");
  BOOST_TEST(run("round(-1.075, 2)") == "-1.07");
  BOOST_TEST(run("round(0.125, 2)") == "0.12");
  BOOST_TEST(run("round(1e300, 15)") == "1e+300");
  BOOST_TEST(run("round(1250, -2)") == "1200");
  BOOST_TEST(run("a = 1_000.5\na -= .5\na *= 2\n") == "2000");
  BOOST_TEST(run("round(min(2.5, 7, 3) + max(1) + sum(1, 1) + abs(-int(-1.9)) + float(1))") == "8");
  BOOST_TEST(run("round(1 / 3, 2) * 1e2") == "33");
  BOOST_TEST(run("print(6 * 7)") == "42");
  BOOST_TEST(run("x = 1\nx = x / (x - 1)") == "line 2: division by zero");
  BOOST_TEST(run("0 ** -1") == "line 1: division by zero");
  BOOST_TEST(run("(-8) ** 0.5") == "line 1: a root of a negative number");
  BOOST_TEST(run("2 ** 99999") == "line 1: a number that is too large");
  BOOST_TEST(run("1e999") == "line 1: no number: 1e999");
  BOOST_TEST(run("x = y") == "line 1: a name that has no value: y");
  BOOST_TEST(run("__import__(1)") == "line 1: a function that is not known: __import__");
  BOOST_TEST(run("open('/etc/passwd')") == "line 1: no value: '");
  BOOST_TEST(run("import os") == "line 1: a name that has no value: import");
  BOOST_TEST(run("1 2") == "line 1: not understood: 2");
  BOOST_TEST(run("(1") == "line 1: no closing parenthesis");
  BOOST_TEST(run("x = = 1") == "line 1: no value: =");
  BOOST_TEST(run("") == "line 0: no value: a program without one");
  BOOST_TEST(run("1\xc3\x97"
                 "2")
                 .starts_with("line 1: not understood"));
  BOOST_TEST(run(std::string(3000, '(')) == "line 1: too deep");
  BOOST_TEST(run(std::string(3000, '-') + "1") == "line 1: too deep");
  BOOST_TEST(run("1+1+1", {.steps = 4}) == "line 1: too many steps");
  BOOST_TEST(run("1+1+1", {.steps = 5}) == "3");
  BOOST_TEST(run("a=1\nb=2\na=3\nc=4", {.names = 2}) == "line 4: too many names: c");
  BOOST_TEST(run("1+1", {.bytes = 2}) == "size: 3");
  BOOST_TEST(!ln::run_program("1", {.depth = 0}));
}

// Where the heap has no room, each call says so and no file is spoilt.
BOOST_AUTO_TEST_CASE(without_memory) {
  const scratch_folder folder;
  const std::string long_answer = "a text of more than sixteen bytes. The answer is 17";
  const seeds from{{"a question of more than sixteen bytes", "17", "another wrong answer, long"},
                   {"one more question of that many bytes", "17", "another wrong answer, long"}};
  const auto check = [&](const char* name, const auto& method) {
    check_failing_allocations(name, [&](auto arm) {
      ln::scripted_teacher teacher([&](const request&) { return long_answer; });
      arm();
      return ln::generate_data(from, method, teacher, {.together = 1});
    });
  };
  check("chain_of_thought", ln::chain_of_thought{.draws = 2});
  check("step_by_step", ln::step_by_step{});
  check("auggpt", ln::auggpt{});
  check_failing_allocations("an empty result", [&](auto arm) {
    ln::scripted_teacher teacher([&](const request&) { return long_answer; });
    arm();
    const auto made = ln::generate_data(from, ln::program_aided{}, teacher);
    return made.error().code == ln::errc::invalid ? ln::result<void>()
                                                  : ln::result<void>(made.error());
  });
  const std::string lines =
                        "{\"prompt\": \"a prompt of more than sixteen\", \"answer\": \"and an "
                        "answer of as many\"}\n",
                    where = "f", path = folder.path("a_record");
  check_failing_allocations("parse", [&] { return ln::recorded_answers::parse(lines, where); });
  int run = 0;
  check_failing_allocations("answer_recorder", [&](auto arm) {
    const std::string file = path + std::to_string(++run), name = "a name";
    ln::scripted_teacher teacher([&](const request&) { return long_answer; });
    const std::vector<request> one{{"a prompt of more than sixteen bytes"}};
    arm();
    auto recorder = ln::answer_recorder::open(file, teacher, name);
    return recorder ? recorder->generate(one)
                    : ln::result<std::vector<std::string>>(recorder.error());
  });
  const std::vector<ln::training_item> items{{"a prompt of more than sixteen bytes", "a target"}};
  check_failing_allocations("write", [&] { return ln::write_training_items(path, items); });
  LINNET_REQUIRE_OK(ln::write_training_items(path, items));
  check_failing_allocations("read", [&] { return ln::read_training_items(path); });
  const auto encode = [](std::string_view t) { return std::vector<ln::token>(t.begin(), t.end()); };
  check_failing_allocations("instruction_stream", [&] {
    return ln::instruction_stream::open(items, encode, {.length = 99}, 1, ln::seed{1});
  });
  const std::string_view texts[] = {"some words", "more of them"};
  check_failing_allocations("bm25", [&] { return ln::bm25::open(texts); });
  check_failing_allocations("run_program", [] { return ln::run_program("x = 1\nx + 2"); });
}

// docs/generated-data.md has a row for each option, with its default and its range, and no other.
BOOST_AUTO_TEST_CASE(documented_options) {
  const std::string page = contents(LINNET_TEST_DIR "/../docs/generated-data.md");
  std::size_t rows = 0;
  const auto check = [&](const auto& options, const std::string& name) {
    options.visit_options(options, [&](const char* field, const auto& x, const auto&... range) {
      if constexpr (sizeof...(range) == 1) {
        const auto& r = (range, ...);
        const auto value = static_cast<double>(x);
        const std::string row = "\n| `" + name + "." + field + "` | " +
                                (r.names ? r.names[value > 0] : ln::detail::number_text(value)) +
                                " | `" + r.text(field) + "` | ";
        BOOST_TEST(page.find(row) != page.npos, row);
        BOOST_TEST((r.contains(value) || std::string_view(field) == "length"));
        ++rows;
      }
    });
  };
  check(ln::data_generation_options{}, "data_generation_options");
  check(ln::session_teacher_options{}, "session_teacher_options");
  check(ln::instruction_limits{}, "instruction_limits");
  check(ln::chain_of_thought{}, "chain_of_thought");
  check(ln::step_by_step{}, "step_by_step");
  check(ln::socratic{}, "socratic");
  check(ln::scott{}, "scott");
  check(ln::program_aided{}, "program_aided");
  check(ln::program_limits{}, "program_limits");
  check(ln::program_search_options{}, "program_search_options");
  check(ln::adversarial_distillation{}, "adversarial_distillation");
  check(ln::lamini{}, "lamini");
  check(ln::evol_instruct{}, "evol_instruct");
  check(ln::fanno{}, "fanno");
  check(ln::bm25_options{}, "bm25_options");
  check(ln::auggpt{}, "auggpt");
  check(ln::llm2llm{}, "llm2llm");
  check(ln::in_context_distillation{}, "in_context_distillation");
  std::size_t written = 0;
  for (std::size_t i = page.find("## Options"); (i = page.find("\n| `", i)) != page.npos; ++i)
    ++written;
  BOOST_TEST(written == rows);
}

BOOST_AUTO_TEST_CASE(overlap) {
  BOOST_TEST(ln::rouge_l("The cat sat.", "the cat, SAT") == 1);
  BOOST_TEST(ln::rouge_l("a b c d", "a x c y") == 0.5);
  BOOST_TEST(ln::rouge_l("a b c", "c b a x y") == 0.25);
  BOOST_TEST(ln::rouge_l("", "") == 0);
  BOOST_TEST(ln::rouge_l("...", "a") == 0);
  BOOST_TEST(ln::rouge_l("\xc3\xa9t\xc3\xa9 x", "\xc3\xa9t\xc3\xa9 y") == 0.5);
  const std::string longer(200, 'x');
  BOOST_TEST(ln::rouge_l(longer, longer) == 1);
  BOOST_TEST(ln::rouge_l(longer, longer + "y") == 0);
}

// Against the formula, computed by hand.
BOOST_AUTO_TEST_CASE(retrieval) {
  const std::string_view texts[] = {"a b a", "b c", "d", ""};
  const auto found = ln::bm25::open(texts);
  LINNET_REQUIRE_OK(found);
  const auto best = found->find("A b e", 9);
  BOOST_REQUIRE(best.size() == 2);
  BOOST_TEST(best[0].text == 0);
  BOOST_TEST(best[1].text == 1);
  const double mean = 6.0 / 4, once = std::log(1 + 3.5 / 1.5), twice = std::log(1 + 2.5 / 2.5);
  const auto term = [&](double f, double words) {
    return f * 2.2 / (f + 1.2 * (0.25 + 0.75 * words / mean));
  };
  BOOST_TEST(std::abs(best[0].score - (once * term(2, 3) + twice * term(1, 3))) < 1e-12);
  BOOST_TEST(std::abs(best[1].score - twice * term(1, 2)) < 1e-12);
  BOOST_TEST(found->find("a b e", 1).size() == 1);
  BOOST_TEST(found->find("z", 9).empty());
  BOOST_TEST(!ln::bm25::open(texts, {.b = 2}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::generated_data_test
