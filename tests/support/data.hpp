// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Files for the tests: the golden fixtures, real data from LINNET_DATA, and a folder to write in.

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <linnet/linnet.hpp>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

/// The folder of a golden fixture.
inline std::string golden(const std::string& name) { return LINNET_TEST_DIR "/golden/" + name; }

/// Tensors of a text fixture: lines `name rows columns` and as many numbers.
inline std::map<std::string, std::vector<double>> golden_tensors(const std::string& name) {
  std::ifstream in(golden(name + ".txt"));
  std::map<std::string, std::vector<double>> all;
  std::string tensor;
  for (std::size_t rows = 0, columns = 0; in >> tensor >> rows >> columns;) {
    auto& x = all[tensor];
    x.resize(rows * columns);
    for (double& v : x) in >> v;
  }
  BOOST_REQUIRE_MESSAGE(!all.empty() && in.eof(), name);
  return all;
}

/// The cases that got no real data, for the last line of the program.
inline std::set<boost::unit_test::test_unit_id> without_data;

/// Path of a file of the real data, named relative to LINNET_DATA. Where that is set, a missing
/// file is a failure; where it is not, returns "", and the case counts as skipped.
inline std::string data_file(const std::string& name) {
  const char* const folder = std::getenv("LINNET_DATA");
  if (folder == nullptr || *folder == '\0') {
    without_data.insert(boost::unit_test::framework::current_test_case().p_id);
    return "";
  }
  const std::string path = std::string(folder) + "/" + name;
  BOOST_REQUIRE_MESSAGE(std::filesystem::is_regular_file(path), "LINNET_DATA lacks " << path);
  return path;
}

/// A fresh folder, removed at the end of the test.
class scratch_folder {
 public:
  scratch_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "linnet-test-XXXXXX").string();
    BOOST_REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  /// Path of a file in the folder, or of the folder itself.
  std::string path(const std::string& name = "") const {
    return name.empty() ? path_ : path_ + "/" + name;
  }

 private:
  std::string path_;
};

/// The bytes of a file that must be there.
inline std::string contents(const std::string& path) {
  const auto file = linnet::read_file(path);
  BOOST_REQUIRE_MESSAGE(file, (file ? "" : file.error().message()));
  return {reinterpret_cast<const char*>(file->data()), file->size()};
}

/// A text as bytes.
inline std::span<const std::byte> bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// The message of a failed result, or "success".
template <class Result>
std::string message(const Result& r) {
  return r ? std::string("success") : r.error().message();
}

/// Passes on success and shows the message otherwise.
#define LINNET_REQUIRE_OK(result) BOOST_REQUIRE_EQUAL(::test::message(result), "success")

/// `text` with its only occurrence of `from` replaced.
inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  BOOST_REQUIRE_MESSAGE(at != text.npos && text.find(from, at + 1) == text.npos,
                        "not exactly once: " << from);
  return text.replace(at, from.size(), to);
}

/// A value's bytes, as they stand in files.
template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace test
