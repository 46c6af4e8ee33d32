// SPDX-License-Identifier: MIT
// Files as read-only memory.

#include "support/data.hpp"

namespace test::corpus_test {

namespace ln = linnet;
using test::message;

BOOST_AUTO_TEST_SUITE(corpus)

BOOST_AUTO_TEST_CASE(files_are_texts) {
  const test::scratch_folder folder;
  const std::vector<std::string> paths{folder.path("a"), folder.path("empty"), folder.path("b")};
  const std::string long_text(100'000, 'b');
  LINNET_REQUIRE_OK(ln::write_file(paths[0], test::bytes("first\n")));
  LINNET_REQUIRE_OK(ln::write_file(paths[1], {}));
  LINNET_REQUIRE_OK(ln::write_file(paths[2], test::bytes(long_text)));
  auto opened = ln::corpus::open(paths);
  LINNET_REQUIRE_OK(opened);
  const ln::corpus moved = *std::move(opened);
  BOOST_TEST(moved.size() == 100'006);
  BOOST_REQUIRE_EQUAL(moved.texts().size(), 3u);
  BOOST_TEST(moved.texts()[0] == "first\n");
  BOOST_TEST(moved.texts()[1].empty());
  BOOST_TEST((moved.texts()[2] == long_text));

  const auto one = ln::corpus::open(paths[0]);
  LINNET_REQUIRE_OK(one);
  BOOST_TEST(one->texts()[0] == "first\n");
  // The last document's end is a token too.
  BOOST_TEST(ln::byte_source(moved.texts(), "\n").size() == 5 + 1 + 100'000 + 1);
}

BOOST_AUTO_TEST_CASE(a_mapped_file_survives_its_name_and_its_moves) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  LINNET_REQUIRE_OK(ln::write_file(path, test::bytes("text")));
  auto first = ln::mapped_file::open(path);
  LINNET_REQUIRE_OK(first);
  LINNET_REQUIRE_OK(ln::write_file(path, test::bytes("other")));
  auto second = ln::mapped_file::open(path);
  LINNET_REQUIRE_OK(second);
  std::filesystem::remove(path);
  const char* const at = first->text().data();
  ln::mapped_file moved = *std::move(first);
  BOOST_TEST(moved.text() == "text");
  BOOST_TEST(moved.text().data() == at);
  moved = *std::move(second);
  BOOST_TEST(moved.text() == "other");
}

BOOST_AUTO_TEST_CASE(what_is_no_file) {
  const test::scratch_folder folder;
  const auto absent = ln::corpus::open(folder.path("absent"));
  BOOST_REQUIRE(!absent);
  BOOST_TEST(absent.error().where == folder.path("absent"));
  BOOST_TEST((absent.error().code == ln::errc::io));
  const auto directory = ln::mapped_file::open(folder.path());
  BOOST_REQUIRE(!directory);
  BOOST_TEST((directory.error().code == ln::errc::io));
}

BOOST_AUTO_TEST_CASE(a_real_corpus_is_one_epoch_of_examples) {
  const std::string path = test::data_file("tinyshakespeare/input.txt");
  if (path.empty()) return;
  const auto text = ln::corpus::open(path);
  LINNET_REQUIRE_OK(text);
  BOOST_TEST(text->size() == 1'115'394);
  const ln::byte_source source(text->texts(), "\n\n");
  const auto stream = ln::denoising_stream<>::open(source, {}, {.batch = 8, .source = 512}, {1});
  LINNET_REQUIRE_OK(stream);
  BOOST_TEST(source.documents() == 7222);
  BOOST_TEST(source.size() == 1'108'174);
  BOOST_TEST(stream->planned().target == 114);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::corpus_test
