// SPDX-License-Identifier: MIT
#pragma once
// What tests of trainings share: a text, a folder, and a cache of what zoo compiles.

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "program.hpp"

namespace test {

/// One type for most tests of a program, so that it is compiled once: room for 1,100 ids.
inline constexpr const char* small_decoder =
    "decoder:layers=1,d_model=16,heads=2,context=32,vocabulary=1100,d_ff=24";

/// Compiles fast and keeps what it compiled for the other cases.
struct training_workshop {
  test::scratch_folder folder;
  std::string text = written("text.txt", 1'500, "the linnet sings ");
  test::compiling_into there{cache().path()};

  static const test::scratch_folder& cache() {
    static const test::scratch_folder kept;
    return kept;
  }
  std::string written(const std::string& name, int lines, const std::string& words) const {
    const std::string path = folder.path(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream to(path);
    for (int i = 0; i < lines; ++i) to << words << i % 7 << ".\n";
    return path;
  }
  /// The arguments of a training, of the small decoder unless another model is named.
  std::vector<std::string> train(const std::string& out, const std::string& steps,
                                 const std::vector<std::string>& more = {},
                                 const std::string& model = small_decoder) const {
    std::vector<std::string> all{"train",   "--model", model,     "--text", text,
                                 "--steps", steps,     "--batch", "2",      "--threads",
                                 "1",       "--out",   out};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

/// Bits per byte of held-out text, as a training says them.
inline double bits_of(const std::string& said) {
  const std::size_t at = said.find("held out ");
  BOOST_REQUIRE_MESSAGE(at != said.npos, said);
  return std::stod(said.substr(at + 9));
}

}  // namespace test
