// SPDX-License-Identifier: MIT
// Readers of tests of language models: small files written for this purpose, the counts of the real
// ones, and what is wrong with wrong ones.

#include <linnet/json.hpp>

#include <cstdlib>
#include <map>

#include "support/data.hpp"

namespace test::eval_tasks_test {

namespace {

namespace ln = linnet;
using items = std::vector<ln::eval_item>;

std::string fixture(const std::string& name) { return contents(golden("eval_tasks/" + name)); }

/// The items, one line each.
template <class Result>
std::string shown(const Result& read) {
  if (!read) return read.error().message();
  std::string all;
  for (const ln::eval_item& item : *read) {
    all += "(" + item.group + ") " + item.context + " |";
    for (std::size_t i = 0; i < item.options.size(); ++i)
      all += (static_cast<ln::index>(i) == item.answer ? " *" : " -") + item.options[i];
    all += item.ending.empty() ? "\n" : " |" + item.ending + "\n";
  }
  return all;
}

/// What a fixture reads as once `from` in it is replaced by `to`.
template <class Read>
std::string changed(const std::string& name, Read read, const std::string& from,
                    const std::string& to) {
  std::string text = fixture(name);
  const std::size_t at = text.find(from);
  BOOST_REQUIRE(at != text.npos);
  text.replace(at, from.size(), to);
  const auto r = read(text, "f");
  return r ? "success" : r.error().message();
}

const std::string zero(1, '\0');

}  // namespace

BOOST_AUTO_TEST_SUITE(eval_tasks)

BOOST_AUTO_TEST_CASE(fixtures) {
  BOOST_TEST(shown(ln::read_blimp(fixture("blimp.jsonl"), "f")) ==
             "(subject_verb_agreement)  | *The linnets sing. -The linnets sings.\n"
             "(anaphor_agreement)  | -A bird washed themselves. *A bird washed itself.\n"
             "(npi_licensing)  | *No caf\xc3\xa9 ever closed. -A caf\xc3\xa9 ever closed.\n");
  BOOST_TEST(shown(ln::read_arc(fixture("arc_easy.json"), "f")) ==
             "() What do linnets eat? | *seeds -stones -sand -steel\n"
             "() A brace } and a \"quote\" stand in a text.\nWhich is first? | -the quote -neither "
             "[of both] *the brace\n");
  BOOST_TEST(shown(ln::read_winogrande(fixture("winogrande.json"), "f")) ==
             "() The linnet fled the cat because the | -linnet *cat | was hungry.\n"
             "()  | *Al -Bo | sang for Bo, who listened to Al's song.\n");
  BOOST_TEST(shown(ln::read_hellaswag(fixture("hellaswag.txt"), "f")) ==
             "(Bird watching) Bird watching: How to find a linnet. Go out early. You | -go back to "
             "bed at once. * look for seeds. -buy a boat. -[only brackets]\n"
             "(Singing) Singing: A man opens his mouth. he | -eats it. -is a tree. -closes [his "
             "eyes *sings a song.\n");
  BOOST_TEST(shown(ln::read_mmlu(fixture("mmlu.csv"), "birds", "f")) ==
             "(birds) How many wings, in all, do \"two\" linnets have? | -1 -2 *4 -8\n"
             "(birds) A question\nof two lines | -red -green, blue -yellow *grey\n");
  BOOST_TEST(
      shown(ln::read_lambada(fixture("lambada.jsonl"), "f")) ==
      "() The bird sat on the branch and began to sing.\n\n\"Listen,\" she said, \"it is a | "
      "*linnet\n() He opened the cage and the bird flew | *away\n");
  BOOST_TEST(shown(ln::read_gsm8k(fixture("gsm8k.jsonl"), "f")) ==
             "() A linnet eats 12 seeds a day. How many does it eat in 100 days? | *1200\n"
             "() Bo has $3 and owes $5. What has he in all? | *-2\n");
}

BOOST_AUTO_TEST_CASE(hellaswag_texts_are_cleaned) {
  BOOST_TEST(ln::clean_hellaswag(" a [title] b [x] c\n") == "a. b c");
  BOOST_TEST(ln::clean_hellaswag("[header] a") == " a");  // as the usual harness has it
  BOOST_TEST(ln::clean_hellaswag("a ] b [ c") == "a ] b [ c");
  BOOST_TEST(ln::clean_hellaswag("a   b    c") == "a  b  c");  // pairs of spaces, once
  BOOST_TEST(ln::clean_hellaswag("[[a] b]") == " b]");
  BOOST_TEST(ln::clean_hellaswag("") == "");
}

BOOST_AUTO_TEST_CASE(errors_name_the_place) {
  const auto mmlu = [](std::string_view text, const std::string& where) {
    return ln::read_mmlu(text, "birds", where);
  };
  BOOST_TEST(changed("blimp.jsonl", ln::read_blimp, "washed itself", "washed themselves") ==
             "success");  // as in the published data
  BOOST_TEST(changed("blimp.jsonl", ln::read_blimp, "\"sentence_bad\"", "\"other\"") ==
             "f:1: sentence_bad: expected a value, got none");
  BOOST_TEST(changed("blimp.jsonl", ln::read_blimp, "The linnets sing.", " ") ==
             "f:1: sentence_good: expected a text, got none");
  BOOST_TEST(changed("blimp.jsonl", ln::read_blimp, "caf\\u00e9", "caf\\u0000") ==
             "f:3: sentence_good: expected UTF-8 text, got a zero byte");
  BOOST_TEST(changed("blimp.jsonl", ln::read_blimp, "caf\xc3\xa9", "caf\xc3")
                 .starts_with("f:3: the line: expected JSON, got an error at byte"));
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "\"answer3\"", "\"answer4\"") ==
             "f:8: answer: expected one of answer1/answer2/answer3, got answer4");
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "\"answer3\"", "\"answer0\"") ==
             "f:8: answer: expected one of answer1/answer2/answer3, got answer0");
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "\"answer3\"", "3") ==
             "f:8: answer: expected one of answer1/answer2/answer3, got 3");
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "Answer2: stones", "stones") ==
             "f:2: instruction: expected \"Answer format: answer1\" for these options, got "
             "answer1/answer2/answer3/answer4");
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "Answer2: stones", "Answer2: ") ==
             "f:2: instruction: expected a text of option 2, got none");
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "Please choose", "Choose")
                 .starts_with("f:2: instruction: expected \"Please choose"));
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "Answer1: seeds", "seeds")
                 .starts_with("f:2: instruction: expected a question, \"Answer1: …\" and"));
  BOOST_TEST(changed("arc_easy.json", ln::read_arc, "    },", "    }") ==
             "f:8: the array: expected , or ], got {");
  BOOST_TEST(changed("winogrande.json", ln::read_winogrande, " _ ", " it ") ==
             "f:1: instruction: expected one blank _ in the sentence, got The linnet fled the cat "
             "because the it was hungry.");
  BOOST_TEST(changed("winogrande.json", ln::read_winogrande, "the cat", "_ cat")
                 .starts_with("f:1: instruction: expected one blank"));
  // Nothing between the first option's name and the format.
  BOOST_TEST(
      test::message(
          ln::read_winogrande("[{\"instruction\":\"Please choose the correct answer to fill in the "
                              "blank to complete the given sentence: A _ b\\n\\nOption1: Answer "
                              "format: option1\",\"answer\":\"option1\"}]",
                              "f"))
          .starts_with("f:1: instruction: expected a question, \"Option1: …\" and"));
  BOOST_TEST(changed("hellaswag.txt", ln::read_hellaswag, "\n1\n", "\n4\n") ==
             "f:2: answer: expected 0, 1, 2 or 3, got 4");
  BOOST_TEST(changed("hellaswag.txt", ln::read_hellaswag, "is a tree.\n", "") ==
             "f:12: ending 3: expected six lines for each item, got the end of the file");
  BOOST_TEST(changed("hellaswag.txt", ln::read_hellaswag, "eats it.", "") ==
             "f:9: ending 0: expected a text, got none");
  BOOST_TEST(changed("hellaswag.txt", ln::read_hellaswag, "eats", "e" + zero) ==
             "f:9: ending 0: expected UTF-8 text, got a zero byte");
  BOOST_TEST(changed("hellaswag.txt", ln::read_hellaswag, "eats", "e\xff") ==
             "f:9: ending 0: expected UTF-8 text, got a byte that begins no UTF-8 sequence");
  BOOST_TEST(changed("mmlu.csv", mmlu, ",8,2", ",8,4") ==
             "f:2: answer: expected 0, 1, 2 or 3, got 4");
  BOOST_TEST(changed("mmlu.csv", mmlu, ",8,2", ",8") == "f:2: fields: expected 6, got 5");
  BOOST_TEST(changed("mmlu.csv", mmlu, "choice3", "d") ==
             "f: column choice3: expected one of that name, got question, choice0, choice1, "
             "choice2, d, answer");
  BOOST_TEST(changed("mmlu.csv", mmlu, "yellow", " ") == "f:3: choice2: expected a text, got none");
  BOOST_TEST(changed("mmlu.csv", mmlu, "yellow", "\xe2\x82") ==
             "f:3: choice2: expected UTF-8 text, got a byte that begins no UTF-8 sequence");
  BOOST_TEST(changed("lambada.jsonl", ln::read_lambada, "He opened the cage and the bird flew away",
                     "Away") == "f:2: text: expected at least two words, got Away");
  BOOST_TEST(changed("gsm8k.jsonl", ln::read_gsm8k, "#### -2", "-2")
                 .starts_with("f:2: answer: expected a number behind \"####\", got 3-5"));
  BOOST_TEST(changed("gsm8k.jsonl", ln::read_gsm8k, "#### -2", "#### -")
                 .starts_with("f:2: answer: expected a number"));
}

BOOST_AUTO_TEST_CASE(files_without_items) {
  const std::string none = "f: items: expected at least one, got none";
  BOOST_TEST(message(ln::read_blimp("", "f")) == none);
  BOOST_TEST(message(ln::read_blimp("\n \n", "f")) == none);
  BOOST_TEST(message(ln::read_arc("[]", "f")) == none);
  BOOST_TEST(message(ln::read_arc("", "f")) ==
             "f:1: the array: expected [, got the end of the file");
  BOOST_TEST(message(ln::read_hellaswag("", "f")) == none);
  BOOST_TEST(message(ln::read_mmlu("question,choice0,choice1,choice2,choice3,answer\n", "", "f")) ==
             none);
  BOOST_TEST(message(ln::read_lambada("", "f")) == none);
  BOOST_TEST(message(ln::read_gsm8k("", "f")) == none);
}

BOOST_AUTO_TEST_CASE(arrays_of_objects) {
  const auto read = [](std::string_view text) {
    const auto t = ln::parse_json_array(text, {"a"}, "f");
    if (!t) return t.error().message();
    std::string all;
    for (ln::index i = 0; i < t->rows(); ++i)
      all += std::to_string(t->line(i)) + "[" + std::string(t->at(i, 0)) + "]";
    return all;
  };
  BOOST_TEST(read("[{\"a\":1},\n\n {\"b\":{\"c\":[{}]},\n\"a\":\"}\\\"{\\\\\"}\n]\n") ==
             "1[1]3[}\"{\\]");
  BOOST_TEST(read(" [ ] ") == "");
  BOOST_TEST(read("{\"a\":1}") == "f:1: the array: expected [, got {");
  BOOST_TEST(read("[1]") == "f:1: the array: expected {, got 1");
  BOOST_TEST(read("[\n{\"a\":1},]") == "f:2: the array: expected {, got ]");
  BOOST_TEST(read("[{\"a\":1}") == "f:1: the array: expected , or ], got the end of the file");
  BOOST_TEST(read("[{\"a\":\"}]") == "f:1: the array: expected }, got the end of the file");
  BOOST_TEST(read("[{\"a\":\"\\") == "f:1: the array: expected }, got the end of the file");
  BOOST_TEST(read("[{\"a\":1}] x") == "f:1: the array: expected nothing behind it, got x");
  BOOST_TEST(read("[{\"a\":1}]]") == "f:1: the array: expected nothing behind it, got ]");
  BOOST_TEST(read("[\n{\"b\":1}]") == "f:2: a: expected a value, got none");
}

// The numbers that the papers or the files' providers state.
BOOST_AUTO_TEST_CASE(counts_of_the_real_files) {
  const auto count = [](const char* name, auto read) -> items {
    const std::string path = data_file(name);
    if (path.empty()) return {};
    auto r = read(contents(path), path);
    LINNET_REQUIRE_OK(r);
    return *std::move(r);
  };
  const auto arc = count("arc_easy/test.json", ln::read_arc);
  if (arc.empty()) return;
  std::map<std::size_t, int> options;
  std::map<ln::index, int> answers;
  for (const auto& item : arc) ++options[item.options.size()], ++answers[item.answer];
  BOOST_TEST(arc.size() == 2376u);
  BOOST_TEST((options == std::map<std::size_t, int>{{3, 7}, {4, 2365}, {5, 4}}));
  BOOST_TEST((answers == std::map<ln::index, int>{{0, 596}, {1, 585}, {2, 633}, {3, 561}, {4, 1}}));
  BOOST_TEST(std::abs(ln::chance_level(arc) - (7 / 3. + 2365 / 4. + 4 / 5.) / 2376) < 1e-12);
  BOOST_TEST(count("arc_easy/train.json", ln::read_arc).size() == 2251u);

  const auto winogrande = count("winogrande/dev.json", ln::read_winogrande);
  BOOST_TEST(winogrande.size() == 1267u);
  BOOST_TEST(std::count_if(winogrande.begin(), winogrande.end(),
                           [](const auto& item) { return item.answer == 1; }) == 639);
  const auto lambada = count("lambada/lambada_test.jsonl", ln::read_lambada);
  BOOST_TEST(lambada.size() == 5153u);
  BOOST_TEST(lambada[0].options[0] == "signs");
  BOOST_TEST(count("gsm8k/test.jsonl", ln::read_gsm8k).size() == 1319u);
  const auto blimp = count("blimp/anaphor_number_agreement.jsonl", ln::read_blimp);
  BOOST_TEST(blimp.size() == 1000u);
  BOOST_TEST(blimp[1].options[1] == "Renee hasn't hurt herself.");
  BOOST_TEST(blimp[1].group == "anaphor_agreement");

  std::size_t questions = 0, subjects = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(std::string(std::getenv("LINNET_DATA")) + "/mmlu")) {
    const std::string name = file.path().filename().string();
    if (!name.starts_with("test__")) continue;
    const auto read = ln::read_mmlu(contents(file.path().string()), name, name);
    LINNET_REQUIRE_OK(read);
    questions += read->size();
    ++subjects;
  }
  BOOST_TEST(questions == 14042u);
  BOOST_TEST(subjects == 57u);

  const scratch_folder folder;
  const std::string packed = data_file("hellaswag/hellaswag_val_full.txt.bz2"),
                    unpacked = folder.path("hellaswag.txt");
  if (std::system(("bzip2 -dc '" + packed + "' > '" + unpacked + "'").c_str()) == 0) {
    const auto hellaswag = ln::read_hellaswag(contents(unpacked), "hellaswag");
    LINNET_REQUIRE_OK(hellaswag);
    BOOST_TEST(hellaswag->size() == 10042u);
    BOOST_TEST((*hellaswag)[0].group == "Roof shingle removal");
  } else {
    std::cout << "SKIPPED: HellaSwag needs bzip2\n";
  }
  if (std::system(("unzip -qo '" + data_file("blimp/BLiMP.zip") + "' 'data/*.jsonl' -d '" +
                   folder.path() + "'")
                      .c_str()) == 0) {
    std::size_t pairs = 0, sets = 0;
    std::map<std::string, int> phenomena;
    for (const auto& file : std::filesystem::directory_iterator(folder.path("data"))) {
      const auto read = ln::read_blimp(contents(file.path().string()), file.path().string());
      LINNET_REQUIRE_OK(read);
      pairs += read->size();
      ++sets;
      for (const auto& item : *read) ++phenomena[item.group];
    }
    BOOST_TEST(pairs == 67000u);
    BOOST_TEST(sets == 67u);
    BOOST_TEST(phenomena.size() == 13u);
    BOOST_TEST(phenomena["binding"] == 7000);
  } else {
    std::cout << "SKIPPED: BLiMP needs unzip\n";
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::eval_tasks_test
