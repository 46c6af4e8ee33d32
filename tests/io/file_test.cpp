// Whole files: what is read, what is refused, and that a failed write leaves nothing behind.

#include "support/data.hpp"

namespace ln = linnet;

BOOST_AUTO_TEST_SUITE(files)

BOOST_AUTO_TEST_CASE(round_trip) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a"), text("x\0y\n", 4);
  LINNET_REQUIRE_OK(ln::write_file(path, test::bytes(text)));
  BOOST_TEST(test::contents(path) == text);
  LINNET_REQUIRE_OK(ln::write_file(path, {}));
  BOOST_TEST(test::contents(path) == "");
  BOOST_TEST(!std::filesystem::exists(path + ".partial"));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const std::string absent = folder.path("none"), deep = folder.path("none/a");
  BOOST_TEST(test::message(ln::read_file(absent)) ==
             absent + ": expected a readable file, got No such file or directory");
  BOOST_TEST(test::message(ln::read_file(folder.path())) ==
             folder.path() + ": expected a readable file, got Is a directory");
  BOOST_TEST(test::message(ln::read_file("/dev/zero")) ==
             "/dev/zero: expected a regular file, got one without a size");
  BOOST_TEST(test::message(ln::write_file(deep, {})) ==
             deep + ": expected a file that can be written, got No such file or directory");
  BOOST_TEST((ln::read_file(absent).error().code == ln::errc::io));
}

BOOST_AUTO_TEST_CASE(failed_write_keeps_the_old_file) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  std::filesystem::create_directory(path);  // cannot be replaced by a file
  BOOST_TEST(!ln::write_file(path, test::bytes("new")));
  BOOST_TEST(std::filesystem::is_directory(path));
  BOOST_TEST(!std::filesystem::exists(path + ".partial"));
  {
    ln::detail::file_writer abandoned(folder.path("b"));
    abandoned.write(test::bytes("half"));
  }
  BOOST_TEST(std::filesystem::is_empty(path));
  BOOST_TEST(!std::filesystem::exists(folder.path("b")));
  BOOST_TEST(!std::filesystem::exists(folder.path("b.partial")));
}

BOOST_AUTO_TEST_SUITE_END()
