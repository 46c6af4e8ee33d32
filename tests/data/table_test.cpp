// SPDX-License-Identifier: MIT
// Tables and the tasks read from them: by hand, errors by their whole message, and the real files.

#include <cmath>
#include <map>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::table_test {

namespace {

/// Fields of a parsed table in brackets, rows by lines, each with its number.
std::string shown(const ln::result<ln::table>& t) {
  if (!t) return message(t);
  std::string all;
  for (index i = 0; i < t->rows(); ++i) {
    all += std::to_string(t->line(i)) + ":";
    for (index j = 0; j < t->columns(); ++j) all += "[" + std::string(t->at(i, j)) + "]";
    all += ";";
  }
  return all;
}
std::string csv(std::string_view text, bool header = false) {
  return shown(ln::table::parse(text, ln::table_format::csv(header), "f.csv"));
}
std::string tsv(std::string_view text, bool header = false) {
  return shown(ln::table::parse(text, ln::table_format::tsv(header), "f.tsv"));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(table)

BOOST_AUTO_TEST_CASE(plain) {
  BOOST_TEST(tsv("") == "");
  BOOST_TEST(tsv("a") == "1:[a];");
  BOOST_TEST(tsv("a\tb\n\tc\n") == "1:[a][b];2:[][c];");
  BOOST_TEST(tsv("a\tb\r\n\"c\t\"\r\n") == "1:[a][b];2:[\"c][\"];");  // quotes mean nothing
  BOOST_TEST(tsv("a\rb\tc") == "1:[a\rb][c];");
  BOOST_TEST(tsv("a\t\nb\t") == "1:[a][];2:[b][];");
  BOOST_TEST(tsv("\n\n") == "1:[];2:[];");
  BOOST_TEST(csv("\xef\xbb\xbf"
                 "a,b\n") == "1:[a][b];");
}

BOOST_AUTO_TEST_CASE(short_lines) {
  ln::table_format format = ln::table_format::tsv(false);
  format.skips_short = true;
  const auto t = ln::table::parse("a\tb\nc\n\nd\te", format, "f.tsv");
  BOOST_TEST(shown(t) == "1:[a][b];4:[d][e];");
  BOOST_TEST(t->left_out() == 2);
  format.quoted = true;  // a field may hold a line's end
  BOOST_TEST(shown(ln::table::parse("a\tb\nc\n", format, "f.tsv")) ==
             "f.tsv:2: fields: expected 2, got 1");
}

BOOST_AUTO_TEST_CASE(quotes) {
  BOOST_TEST(csv("\"a,b\",\"c\nd\"\ne,f\n") == "1:[a,b][c\nd];3:[e][f];");
  BOOST_TEST(csv("\"\"\"a\"\"\",\"\"\r\n\"\"\"\",b") == "1:[\"a\"][];2:[\"][b];");
  BOOST_TEST(csv("\"\r\n\",\"x\"") == "1:[\r\n][x];");
  BOOST_TEST(csv("\"a\",\n") == "1:[a][];");
  BOOST_TEST(csv("\"a\"\n") == "1:[a];");
}

BOOST_AUTO_TEST_CASE(header) {
  const auto t = ln::table::parse("x,y\n1,2\n", ln::table_format::csv(), "f.csv");
  BOOST_TEST(shown(t) == "2:[1][2];");
  BOOST_TEST(*t->column("y") == 1);
  BOOST_TEST(message(t->column("z")) == "f.csv: column z: expected one of that name, got x, y");
  BOOST_TEST(csv("x,y\n", true) == "");
  BOOST_TEST(csv("x,y\n1\n", true) == "f.csv:2: fields: expected 2, got 1");
}

BOOST_AUTO_TEST_CASE(errors_name_the_place) {
  BOOST_TEST(tsv("a\tb\nc\n") == "f.tsv:2: fields: expected 2, got 1");
  BOOST_TEST(tsv("a\tb\nc\td\te\n") == "f.tsv:2: fields: expected 2, got 3");
  BOOST_TEST(csv("\"a\nb\"\nc,d\n") == "f.csv:3: fields: expected 1, got 2");
  BOOST_TEST(csv("a,b\nc,\"d\n") ==
             "f.csv:2: field 2: expected a closing quote, got the end of the file");
  BOOST_TEST(csv("\"a\n\"\"b") ==  // where it was opened
             "f.csv:1: field 1: expected a closing quote, got the end of the file");
  BOOST_TEST(csv("a,b\nc\",d\n") ==
             "f.csv:2: field 1: expected no quote inside a field without quotes, got c\"");
  BOOST_TEST(csv("\"a\n\"b,c\n") ==
             "f.csv:2: field 1: expected a delimiter or a line's end behind the quote, got b");
  BOOST_TEST(csv("\"a\"\rb\n").starts_with("f.csv:1: field 1: expected a delimiter"));
  BOOST_TEST(csv("\"a\" ").starts_with("f.csv:1: field 1: expected a delimiter"));
}

BOOST_AUTO_TEST_SUITE_END()

namespace {

using pairs = ln::result<std::vector<ln::text_pair>>;

std::string shown(const pairs& all) {
  if (!all) return message(all);
  std::string text;
  for (const auto& p : *all) text += p.input + " -> " + p.target + ";";
  return text;
}

/// How often each label stands in a file with so many pairs.
std::map<std::string, int> labels(const pairs& all, std::size_t count) {
  LINNET_REQUIRE_OK(all);
  BOOST_TEST(all->size() == count);
  std::map<std::string, int> n;
  for (const auto& p : *all) ++n[p.target];
  return n;
}
using counted = std::map<std::string, int>;

}  // namespace

BOOST_AUTO_TEST_SUITE(glue)

BOOST_AUTO_TEST_CASE(sst2) {
  BOOST_TEST(shown(ln::glue::read_sst2("label\tsentence\n1\tgood . \n0\tbad\n", "f")) ==
             "sst2 sentence: good . -> positive;sst2 sentence: bad -> negative;");
  BOOST_TEST(shown(ln::glue::read_sst2("sentence\tlabel\na\t1\nb\t2\n", "f")) ==
             "f:3: label: expected one of 0, 1, got 2");
  BOOST_TEST(shown(ln::glue::read_sst2("text\tlabel\n", "f")) ==
             "f: column sentence: expected one of that name, got text, label");
  BOOST_TEST(ln::glue::sst2.class_of("positive") == 1);
  BOOST_TEST(ln::glue::sst2.class_of("Positive") == -1);
}

BOOST_AUTO_TEST_CASE(cola) {
  BOOST_TEST(shown(ln::glue::read_cola("gj04\t0\t*\tThey drank the pub.\nx\t1\t\tIt is.", "f")) ==
             "cola sentence: They drank the pub. -> unacceptable;cola sentence: It is. -> "
             "acceptable;");
  BOOST_TEST(shown(ln::glue::read_cola("a\t1\tb\n", "f")) == "f:1: fields: expected 4, got 3");
}

BOOST_AUTO_TEST_CASE(mnli) {
  using ln::glue::mnli_layout;
  const auto read = [](std::string_view text, mnli_layout layout) {
    return shown(ln::glue::read_mnli(text, layout, "f"));
  };
  BOOST_TEST(read("index\thypothesis\tpremise\tgold_label\n0\th \t p\tneutral\n",
                  mnli_layout::named) == "mnli hypothesis: h premise: p -> neutral;");
  BOOST_TEST(read("entailment\tp\th\n", mnli_layout::label_first) ==
             "mnli hypothesis: h premise: p -> entailment;");
  BOOST_TEST(read("p\th\tentailment\n", mnli_layout::label_first) ==
             "f:1: label: expected one of entailment, neutral, contradiction, got p");
  const std::string question =
      "Question,Answer\n\"For the statement, \"\"p, q\"\", does the hypothesis \"\"h\"\" represent "
      "entailment, contradiction, or neutrality?\",contradiction\n";
  BOOST_TEST(read(question, mnli_layout::question) ==
             "mnli hypothesis: h premise: p, q -> contradiction;");
  BOOST_TEST(read(replaced(question, "does", "did"), mnli_layout::question)
                 .starts_with("f:2: Question: expected For the statement, \""));
  const auto refused = [&](std::string_view from, std::string_view to) {
    BOOST_TEST(
        read(replaced(question, from, to), mnli_layout::question).starts_with("f:2: Question: "));
  };
  refused("\"\"p, q\"\", does", "\"\", does");  // one quote where two parts need two
  refused("\"\"h\"\" represent", "\"\" represent");
  refused("h\"\" ", "h\"\", does the hypothesis \"\"h\"\" ");  // two middles
  BOOST_TEST(read("Question,Label\n", mnli_layout::question) ==
             "f: column Answer: expected one of that name, got Question, Label");
}

// The columns of the benchmark's own files; others between them are left out.
BOOST_AUTO_TEST_CASE(pairs_of_sentences) {
  BOOST_TEST(shown(ln::glue::read_mrpc("\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
                                       "1\t7\t8\tHe \"said\" so .\tSo he said .\n0\t1\t2\ta\tb\n",
                                       "f")) ==
             "mrpc sentence1: He \"said\" so . sentence2: So he said . -> equivalent;"
             "mrpc sentence1: a sentence2: b -> not_equivalent;");
  BOOST_TEST(shown(ln::glue::read_qqp("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
                                      "0\t1\t2\tWhy?\tHow? \t0\n1\t3\t4\tWho?\tWho is?\t1\n",
                                      "f")) ==
             "qqp question1: Why? question2: How? -> not_duplicate;"
             "qqp question1: Who? question2: Who is? -> duplicate;");
  // Lines of it are torn in two; those behind keep their numbers.
  BOOST_TEST(shown(ln::glue::read_qqp("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
                                      "0\t1\t2\tWhy?\tHow \nis it?\t0\n1\t3\t4\tWho?\tHow?\t1\n",
                                      "f")) == "qqp question1: Who? question2: How? -> duplicate;");
  BOOST_TEST(shown(ln::glue::read_qqp("question1\tquestion2\tis_duplicate\na\n\nb\tc\t2", "f")) ==
             "f:4: label: expected one of 0, 1, got 2");
  BOOST_TEST(shown(ln::glue::read_qqp("question1\tquestion2\tis_duplicate\na\tb\t1\t1", "f")) ==
             "f:2: fields: expected 3, got 4");
  BOOST_TEST(shown(ln::glue::read_qnli("index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1066.\t"
                                       "entailment\n",
                                       "f")) ==
             "qnli question: When? sentence: In 1066. -> entailment;");
  BOOST_TEST(shown(ln::glue::read_rte(
                 "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", "f")) ==
             "rte sentence1: a sentence2: b -> not_entailment;");
  BOOST_TEST(shown(ln::glue::read_rte("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t0\n", "f")) ==
             "f:2: label: expected one of entailment, not_entailment, got 0");
  BOOST_TEST(shown(ln::glue::read_wnli(
                 "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t0\n1\tc\td\t1\n", "f")) ==
             "wnli sentence1: a sentence2: b -> not_entailment;"
             "wnli sentence1: c sentence2: d -> entailment;");
  BOOST_TEST(shown(ln::glue::read_mnli("index\tsentence1\tsentence2\tlabel1\tgold_label\n"
                                       "0\tp\th\tneutral\tcontradiction\n",
                                       ln::glue::mnli_layout::glue, "f")) ==
             "mnli hypothesis: h premise: p -> contradiction;");
  BOOST_TEST(shown(ln::glue::read_qqp("id\tquestion1\tis_duplicate\n", "f")) ==
             "f: column question2: expected one of that name, got id, question1, is_duplicate");
}

BOOST_AUTO_TEST_CASE(scores_as_text) {
  BOOST_TEST(shown(ln::glue::read_stsb("index\tgenre\tsentence1\tsentence2\tscore\n"
                                       "0\tnews\ta\tb\t3.800\n1\tnews\tc\td\t5\n",
                                       "f")) ==
             "stsb sentence1: a sentence2: b -> 3.8;"
             "stsb sentence1: c sentence2: d -> 5.0;");
  for (const char* const wrong : {"5.1", "-0.1", "", "x", "1 2", "nan", "1e400"})
    BOOST_TEST(shown(ln::glue::read_stsb(
                         "sentence1\tsentence2\tscore\na\tb\t" + std::string(wrong) + "\n", "f"))
                   .starts_with("f:2: score: expected a number from 0 to 5"));
  // As TensorFlow rounds score * 5: 12.5 to the even 12.
  for (const auto& [score, text] :
       {std::pair(2.5, "2.4"), std::pair(1.5, "1.6"), std::pair(0.0, "0.0"), std::pair(0.09, "0.0"),
        std::pair(0.11, "0.2"), std::pair(4.89, "4.8"), std::pair(4.91, "5.0"),
        std::pair(3.667, "3.6")})
    BOOST_TEST(ln::glue::stsb_target(score) == text);
  BOOST_TEST(ln::glue::stsb_target(std::nan("")) == "");
  BOOST_TEST(ln::glue::stsb_score(" 3.8 ") == 3.8);
  BOOST_TEST(ln::is_nan(ln::glue::stsb_score("3.8 or so")));
}

BOOST_AUTO_TEST_CASE(real_files) {
  const std::string file = data_file("sst2/dev.tsv");
  if (file.empty()) return;
  const auto of = [](const std::string& name) { return contents(data_file(name)); };
  // Counted by other means (Python's csv module).
  const auto dev = ln::glue::read_sst2(contents(file), file);
  BOOST_TEST((labels(dev, 6735) == counted{{"negative", 2994}, {"positive", 3741}}));
  BOOST_TEST(dev->front().input == "sst2 sentence: the expressive power of the camera");
  BOOST_TEST((labels(ln::glue::read_sst2(of("sst2/test.tsv"), "f"), 872) ==
              counted{{"negative", 428}, {"positive", 444}}));
  BOOST_TEST((labels(ln::glue::read_cola(of("cola/out_of_domain_dev.tsv"), "f"), 516) ==
              counted{{"unacceptable", 162}, {"acceptable", 354}}));
  using ln::glue::mnli_layout;
  const auto train = ln::glue::read_mnli(of("mnli_train10k/mnli_train.csv"), mnli_layout::question,
                                         "mnli_train.csv");
  BOOST_TEST((labels(train, 10000) ==
              counted{{"entailment", 3239}, {"neutral", 3367}, {"contradiction", 3394}}));
  BOOST_TEST(train->at(1).input ==
             "mnli hypothesis: The power plant has air pollutant control to capture CO2 premise: "
             "Combined Power Plant Air Pollutant Control");
  BOOST_TEST(
      (labels(ln::glue::read_mnli(of("mnli_m_dev/mnli_matched_dev.tsv"), mnli_layout::named, "f"),
              9815) == counted{{"entailment", 3479}, {"neutral", 3123}, {"contradiction", 3213}}));
  const auto mismatched = ln::glue::read_mnli(of("mnli_mm_sample1000/mnli_mismatched.tsv"),
                                              mnli_layout::label_first, "f");
  BOOST_TEST((labels(mismatched, 1000) ==
              counted{{"entailment", 346}, {"neutral", 319}, {"contradiction", 335}}));
  BOOST_TEST(mismatched->front().input ==
             "mnli hypothesis: You are not able to bring it with you . premise: You ca n't take it "
             "with you -- neither can I , unfortunately .");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::table_test
