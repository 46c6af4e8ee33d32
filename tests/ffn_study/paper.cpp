// SPDX-License-Identifier: MIT
// Scale paper: T5's pieces and true shapes. T5-Tiny takes its first steps with few ids, and is
// tuned on small tasks.

#ifdef FFN_STUDY_TINY_PROGRAM

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "program.hpp"
#include "support/data.hpp"

namespace test::paper {

namespace {

/// A task's files of GLUE, with their own headers. QQP has a line that is torn in two.
void write_glue(const std::string& folder) {
  const std::string pair = "index\tsentence1\tsentence2\tlabel\n",
                    wnli = pair + "0\ta\tb\t1\n1\tc\td\t0\n";
  const std::string mnli =
      "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
      "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\t";
  const std::string row =
      "0\t1\t1n\tfiction\t( A cow )\t( An animal )\t(ROOT)\t(ROOT)\tA cow\tAn "
      "animal\tentailment\t";
  const std::string dev = mnli + "label2\tgold_label\n" + row + "neutral\tentailment\n";
  const struct {
    const char* task;
    std::string train;
  } all[] = {{"CoLA", "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThey drank the pub.\n"},
             {"SST-2", "sentence\tlabel\na joy \t1\n"},
             {"MRPC", "\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n"},
             {"STS-B",
              "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t"
              "score\n0\tnews\tx\t2012\t1\tnone\tnone\ta\tb\t3.800\n"},
             {"QQP",
              "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tHow\ncome?\t1\n"
              "2\t4\t5\tWho?\tWho is?\t1\n"},
             {"MNLI", mnli + "gold_label\n" + row + "entailment\n"},
             {"QNLI", "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1066.\tentailment\n"},
             {"RTE", pair + "0\ta\tb\tnot_entailment\n"},
             {"WNLI", wnli}};
  for (const auto& [task, train] : all) {
    const std::string to = folder + "/glue/" + task;
    std::filesystem::create_directories(to);
    std::ofstream(to + "/train.tsv") << train;
    if (task != std::string("MNLI")) std::ofstream(to + "/dev.tsv") << train;
  }
  std::ofstream(folder + "/glue/MNLI/dev_matched.tsv") << dev;
  std::ofstream(folder + "/glue/MNLI/dev_mismatched.tsv") << dev;
}

/// Makes a folder of text, T5's pieces and GLUE; false without the pieces.
bool make_data(const std::string& data) {
  const char* const shared = std::getenv("LINNET_DATA");
  if (shared == nullptr || !std::filesystem::exists(std::string(shared) + "/tokenizer_t5")) {
    BOOST_TEST_MESSAGE("skipped: no LINNET_DATA with tokenizer_t5");
    return false;
  }
  test::write_text(data);
  std::filesystem::create_directory_symlink(std::string(shared) + "/tokenizer_t5",
                                            data + "/tokenizer_t5");
  write_glue(data);
  return true;
}

/// The number behind some words.
double behind(const std::string& text, const std::string& words) {
  const auto at = text.find(words);
  BOOST_REQUIRE_MESSAGE(at != text.npos, words << " in " << text);
  return std::stod(text.substr(at + words.size()));
}

/// Operations of a forward call of a batch of scale paper.
template <class M>
double forward(linnet::index target = 257) {
  return static_cast<double>(M::flops(128, 513, target));
}

/// Operations of all jobs of tables 4.2 and 4.6 in units of all steps of T5-Tiny.
double all_jobs() {
  using linnet::zoo::t5_tiny, linnet::zoo::t5_mini, linnet::zoo::t5_small, linnet::zoo::t5_base;
  // Mini: five seeds of 1, 2, 4 and 10 times the steps. Students: five seeds of what the report
  // has, seed 1 of the rest of a grid of 12 for each teacher.
  const double minis = 5 * (1 + 2 + 4 + 10) + (5 + 11) + (2 * 5 + 10), tinies = 5 + 5 + 5;
  const double teaching = (16 + 5) * forward<t5_small>() + (20 + 5) * forward<t5_base>();
  const double tuning = (5 * 4 + 5 + 10) * forward<t5_mini>(8) + tinies * forward<t5_tiny>(8);
  return (minis * forward<t5_mini>() + tinies * forward<t5_tiny>() + forward<t5_small>() +
          forward<t5_base>() + teaching / 3 + tuning / 2) /
         forward<t5_tiny>();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(ffn_study_paper)

BOOST_AUTO_TEST_CASE(takes_twenty_steps) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data");
  if (!make_data(data)) return;
  const test::outcome o = test::run_program(
      FFN_STUDY_TINY_PROGRAM,
      {"--scale", "paper", "--data", data, "--out", folder.path("out"), "--only", "4.2", "--only",
       "4.6", "--try", "20", "--try-batch", "1", "--try-length", "48", "--try-model", "tiny"});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  BOOST_CHECK_MESSAGE(o.out.find("tiny: 20 steps of 1 x 48 ids") != std::string::npos, o.out);
  // The report's settings, and all nine tasks of the mixture.
  for (const char* const line :
       {"32,128 ids; 524288 steps of 128 x 512, ",
        ", tuned 262144 x 512 at 0.001 with dropout 0.1, ",
        ", dropout 0.1, not clipped, tuned on GLUE without WNLI\n",
        "cola: 2 to learn from, 2 of cola\n", "sst2: 1 to learn from, 1 of sst2\n",
        "mrpc: 1 to learn from, 1 of mrpc\n", "stsb: 1 to learn from, 1 of stsb\n",
        "qqp: 1 to learn from, 1 of qqp; 4 torn lines left out\n",
        "mnli: 1 to learn from, 1 of mnli-m, 1 of mnli-mm\n", "qnli: 1 to learn from, 1 of qnli\n",
        "rte: 1 to learn from, 1 of rte\n", "wnli: none to learn from, 2 of wnli\n",
        "9 tasks, 0 MB to learn from, read in "})
    BOOST_CHECK_MESSAGE(o.out.find(line) != std::string::npos, line << " in " << o.out);
  // 32,128 pieces guessed alike are ln 32,128 = 10.4 nats; T5 begins a little above it.
  const auto at = o.out.find(" ids, ");
  BOOST_REQUIRE(at != std::string::npos);
  const double first = std::stod(o.out.substr(at + 6));
  BOOST_CHECK_MESSAGE(first > 8 && first < 20, first);
  BOOST_CHECK(!std::filesystem::exists(folder.path("out")));  // it keeps nothing

  // Times are those of the steps by the operations of the whole, within what printing rounds off.
  const double share =
      forward<linnet::zoo::t5_tiny>() / static_cast<double>(linnet::zoo::t5_tiny::flops(1, 49, 25));
  const double tried = behind(o.out, "a step: "), step = behind(o.out, "a step of 128: "),
               days = behind(o.out, "524,288 of them: "), most = behind(o.out, "with a teacher: ");
  BOOST_CHECK_MESSAGE(std::abs(step - share * tried) <= 0.51 + 0.0051 * share, o.out);
  BOOST_CHECK_MESSAGE(std::abs(days - step * 524'288 / 86'400) <= 0.051 + 0.51 * 524'288 / 86'400,
                      o.out);
  const double all = days * all_jobs();
  BOOST_CHECK_MESSAGE(std::abs(behind(o.out, "all 124 jobs of scale paper: ") - all) <=
                          0.51 + 0.051 * all_jobs() + 1e-9 * all,
                      all << " in " << o.out);
  // Mini and Base in training, and Base's logits of two batches, each of 4.2 GB.
  BOOST_CHECK_MESSAGE(o.out.find(" GB at most (base -> mini)\n") != std::string::npos, o.out);
  const double planned = std::stod(o.out.substr(o.out.find(" s, ", o.out.find("step of 128")) + 4));
  BOOST_CHECK_MESSAGE(most > 2 * planned + 2 * 4 * 128 * 257 * 32'128e-9, o.out);
}

// Two steps of everything that T5-Tiny is in, on tasks of a line or two.
BOOST_AUTO_TEST_CASE(tunes_on_glue) {
  const test::scratch_folder folder;
  const std::string data = folder.path("data"), out = folder.path("out");
  if (!make_data(data)) return;
  const auto study = [&](bool learns) {
    std::vector<std::string> words{"--scale", "paper-check", "--out", out,      "--threads",
                                   "1",       "--only",      "4.6",   "--only", "4.5"};
    if (learns) words.insert(words.end(), {"--data", data});
    return test::run_program(FFN_STUDY_TINY_PROGRAM, words);
  };
  const auto file_of = [&](const char* end) {
    return out + "/runs/tune.glue.tiny.s1" + std::string(end);
  };
  test::outcome o = study(true);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const std::string report = test::contents(out + "/report.csv");
  const test::report found(report);
  // One example or two of each, so that a figure is one of few.
  for (const auto& [column, least, step] : {std::tuple{"SST-2", 0, 100},
                                            {"MNLI-m", 0, 100},
                                            {"MNLI-mm", 0, 100},
                                            {"CoLA", -100, 100},
                                            {"MRPC", 0, 100},
                                            {"QQP", 0, 100},
                                            {"QNLI", 0, 100},
                                            {"RTE", 0, 100},
                                            {"WNLI", 0, 50}}) {
    const double score =
        found.number("4.6", "Quality", "tiny alone", std::string("measured: ") + column + ", best");
    BOOST_CHECK_MESSAGE(score >= least && score <= 100 && std::fmod(score, step) == 0,
                        column << ": " << score);
  }
  // No correlation of one score: a figure that is left out, with which later calls go on.
  BOOST_CHECK_EQUAL(found.text("4.6", "Quality", "tiny alone", "measured: STS-B, best"), "");
  const std::string result = test::contents(file_of(".json"));
  BOOST_CHECK(result.find("null") == result.npos && result.find("stsb\":") == result.npos);
  o = study(false);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  BOOST_CHECK_EQUAL(test::contents(out + "/report.csv"), report);
  // Without a model, of two sentences and of two pairs.
  const std::string part = "Tasks without";
  BOOST_CHECK_EQUAL(found.number("4.5", part, "cola", "measured: bag of words"), 100);
  BOOST_CHECK_EQUAL(found.number("4.5", part, "wnli", "measured: majority class"), 50);
  BOOST_CHECK_EQUAL(found.number("4.5", part, "wnli", "measured: examples"), 2);

  // WNLI is judged and not learned from.
  BOOST_CHECK_MESSAGE(result.find("\"cola 2+2, sst2 1+1, mrpc 1+1, stsb 1+1, qqp 1+1, mnli 1+1+1, "
                                  "qnli 1+1, rte 1+1, wnli 0+2\"") != result.npos,
                      result);
  const std::string log = test::contents(file_of(".jsonl"));
  BOOST_CHECK_EQUAL(std::count(log.begin(), log.end(), '\n'), 2);  // a line for each step
  for (const char* const end : {".json", ".jsonl"}) std::filesystem::remove(file_of(end));
  std::ofstream(data + "/glue/WNLI/train.tsv", std::ios::app) << "2\te\tf\t1\n3\tg\th\t1\n";
  o = study(true);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  BOOST_CHECK_EQUAL(test::contents(file_of(".jsonl")), log);

  // Results of another mixture are refused, not mixed.
  std::filesystem::remove_all(data + "/glue/RTE");
  o = study(true);
  BOOST_CHECK_EQUAL(o.status, 2);
  BOOST_CHECK_MESSAGE(o.err.find("rte 1+1, wnli 0+2\", not \"cola 2+2, ") != o.err.npos, o.err);
  BOOST_CHECK_MESSAGE(o.err.find("qnli 1+1, wnli 0+2\": give another --out") != o.err.npos, o.err);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::paper

#endif
