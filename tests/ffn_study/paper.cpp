// SPDX-License-Identifier: MIT
// Scale paper: T5's pieces and true shapes. Its first steps are taken with T5-Tiny and few ids.

#ifdef FFN_STUDY_TINY_PROGRAM

#include <cstdlib>
#include <filesystem>

#include "program.hpp"
#include "support/data.hpp"

namespace test::paper {

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
  const test::outcome o =
      test::run_program(FFN_STUDY_TINY_PROGRAM,
                        {"--scale", "paper", "--data", data, "--out", folder.path("out"), "--try",
                         "20", "--try-batch", "1", "--try-length", "48", "--try-model", "tiny"});
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  BOOST_CHECK_MESSAGE(o.out.find("tiny: 20 steps of 1 x 48 ids") != std::string::npos, o.out);
  BOOST_CHECK_MESSAGE(o.out.find("a step of 128: ") != std::string::npos, o.out);
  BOOST_CHECK_MESSAGE(o.out.find("jobs of scale paper") != std::string::npos, o.out);
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
