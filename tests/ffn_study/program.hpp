#pragma once
// Runs the program ffn_study and reads its tables.

#include <map>
#include <tuple>

#include "support/program.hpp"

namespace test {

inline outcome ffn_study(const std::vector<std::string>& arguments) {
  return run_program(FFN_STUDY_PROGRAM, arguments);
}

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

}  // namespace test
