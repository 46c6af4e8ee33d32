// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The report of a program that runs a study, and a text to run it on.

#include <fstream>
#include <map>
#include <tuple>

#include "support/data.hpp"

namespace test {

/// The fields of one line of a CSV file.
inline std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> all(1);
  bool inside = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && inside && i + 1 < line.size() && line[i + 1] == '"')
      all.back() += line[++i];
    else if (line[i] == '"')
      inside = !inside;
    else if (line[i] == ',' && !inside)
      all.emplace_back();
    else
      all.back() += line[i];
  }
  return all;
}

/// A report's cells by table, the start of a part's name, row, and column.
class report {
 public:
  explicit report(const std::string& csv) {
    for (std::size_t at = 0, end; at < csv.size(); at = end + 1) {
      end = std::min(csv.find('\n', at), csv.size());
      const auto f = fields(csv.substr(at, end - at));
      BOOST_REQUIRE_EQUAL(f.size(), 6);
      const bool fresh =
          cells_.emplace(std::tuple(f[0], f[1], f[2], f[3] + ": " + f[4]), f[5]).second;
      BOOST_CHECK_MESSAGE(fresh, "two cells " << f[0] << ' ' << f[1] << ' ' << f[2] << ' ' << f[4]);
    }
  }
  /// The text of a cell; "" if there is none.
  std::string text(const std::string& table, const std::string& part, const std::string& row,
                   const std::string& column) const {
    for (const auto& [key, value] : cells_)
      if (std::get<0>(key) == table && std::get<1>(key).starts_with(part) &&
          std::get<2>(key) == row && std::get<3>(key) == column)
        return value;
    return "";
  }
  /// A cell with its place, its column with its source.
  struct line {
    std::string row, column, value;
  };
  /// All cells of a part.
  std::vector<line> lines(const std::string& table, const std::string& part) const {
    std::vector<line> all;
    for (const auto& [key, value] : cells_)
      if (std::get<0>(key) == table && std::get<1>(key).starts_with(part))
        all.push_back({std::get<2>(key), std::get<3>(key), value});
    return all;
  }
  double number(const std::string& table, const std::string& part, const std::string& row,
                const std::string& column) const {
    const std::string found = text(table, part, row, column);
    BOOST_REQUIRE_MESSAGE(!found.empty(),
                          "no cell " << table << ", " << part << ", " << row << ", " << column);
    return std::stod(found);
  }

 private:
  std::map<std::tuple<std::string, std::string, std::string, std::string>, std::string> cells_;
};

/// Writes FOLDER/text.txt, 200 kB: a few words in a random order.
inline void write_text(const std::string& folder) {
  static constexpr const char* words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat.\n"};
  std::filesystem::create_directories(folder);
  std::ofstream file(folder + "/text.txt");
  linnet::random_stream random(linnet::seed{5});
  for (int i = 0; i < 60'000; ++i) file << words[random.below(6)];
}

}  // namespace test
