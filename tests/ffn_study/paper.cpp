// SPDX-License-Identifier: MIT
// Scale paper: T5's pieces and true shapes. Its first steps are taken with T5-Tiny and few ids.

#ifdef FFN_STUDY_TINY_PROGRAM

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "program.hpp"
#include "support/data.hpp"

namespace test::paper {

namespace {

/// A task's files of GLUE, with their own headers. QQP has a line that is torn in two.
void write_glue(const std::string& folder) {
  const std::string pair = "index\tsentence1\tsentence2\tlabel\n";
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
             {"WNLI", pair + "0\ta\tb\t1\n1\tc\td\t0\n"}};
  for (const auto& [task, train] : all) {
    const std::string to = folder + "/glue/" + task;
    std::filesystem::create_directories(to);
    std::ofstream(to + "/train.tsv") << train;
    if (task != std::string("MNLI")) std::ofstream(to + "/dev.tsv") << train;
  }
  std::ofstream(folder + "/glue/MNLI/dev_matched.tsv") << dev;
  std::ofstream(folder + "/glue/MNLI/dev_mismatched.tsv") << dev;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(ffn_study_paper)

BOOST_AUTO_TEST_CASE(takes_twenty_steps) {
  const char* const shared = std::getenv("LINNET_DATA");
  if (shared == nullptr || !std::filesystem::exists(std::string(shared) + "/tokenizer_t5")) {
    BOOST_TEST_MESSAGE("skipped: no LINNET_DATA with tokenizer_t5");
    return;
  }
  const test::scratch_folder folder;
  const std::string data = folder.path("data");
  test::write_text(data);
  std::filesystem::create_directory_symlink(std::string(shared) + "/tokenizer_t5",
                                            data + "/tokenizer_t5");
  write_glue(data);
  const test::outcome o =
      test::run_program(FFN_STUDY_TINY_PROGRAM,
                        {"--scale", "paper", "--data", data, "--out", folder.path("out"), "--try",
                         "20", "--try-batch", "1", "--try-length", "48", "--try-model", "tiny"});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  BOOST_CHECK_MESSAGE(o.out.find("tiny: 20 steps of 1 x 48 ids") != std::string::npos, o.out);
  BOOST_CHECK_MESSAGE(o.out.find("a step of 128: ") != std::string::npos, o.out);
  BOOST_CHECK_MESSAGE(o.out.find("jobs of scale paper") != std::string::npos, o.out);
  // The report's settings, and all nine tasks of the mixture.
  for (const char* const line :
       {"32,128 ids; 524288 steps of 128 x 512, ",
        ", tuned 262144 x 512 at 0.001 with dropout 0.1, ", ", dropout 0.1, not clipped\n",
        "cola: 2 to learn from, 2 of cola\n", "sst2: 1 to learn from, 1 of sst2\n",
        "mrpc: 1 to learn from, 1 of mrpc\n", "stsb: 1 to learn from, 1 of stsb\n",
        "qqp: 1 to learn from, 1 of qqp; 4 torn lines left out\n",
        "mnli: 1 to learn from, 1 of mnli-m, 1 of mnli-mm\n", "qnli: 1 to learn from, 1 of qnli\n",
        "rte: 1 to learn from, 1 of rte\n", "wnli: 2 to learn from, 2 of wnli\n",
        "9 tasks, 0 MB to learn from, read in "})
    BOOST_CHECK_MESSAGE(o.out.find(line) != std::string::npos, line << " in " << o.out);
  // 32,128 pieces guessed alike are ln 32,128 = 10.4 nats; T5 begins a little above it.
  const auto at = o.out.find(" ids, ");
  BOOST_REQUIRE(at != std::string::npos);
  const double first = std::stod(o.out.substr(at + 6));
  BOOST_CHECK_MESSAGE(first > 8 && first < 20, first);
  BOOST_CHECK(!std::filesystem::exists(folder.path("out")));  // it keeps nothing
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::paper

#endif
