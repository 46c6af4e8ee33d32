// SPDX-License-Identifier: MIT
#pragma once
// Runs the program zoo.

#include <nlohmann/json.hpp>

#include "support/program.hpp"

namespace test {

inline outcome zoo(const std::vector<std::string>& arguments) {
  return run_program(ZOO_PROGRAM, arguments);
}

/// What the program prints when all is well.
inline std::string zoo_prints(const std::vector<std::string>& arguments) {
  const outcome o = zoo(arguments);
  BOOST_REQUIRE_MESSAGE(o.status == 0,
                        "zoo " << arguments[0] << ": status " << o.status << ", " << o.err);
  return o.out;
}

/// Passes if the program refuses these arguments as it should: status 2, one line that has `words`
/// in it, nothing else.
inline void check_refused(const std::vector<std::string>& arguments, const std::string& words) {
  const outcome o = zoo(arguments);
  std::string shown;
  for (const std::string& argument : arguments) shown += " " + argument;
  BOOST_CHECK_MESSAGE(o.status == 2, "zoo" << shown << ": status " << o.status);
  BOOST_CHECK_MESSAGE(o.lines_of_error() == 1 && o.err.starts_with("zoo: "),
                      "zoo" << shown << ": " << o.err);
  BOOST_CHECK_MESSAGE(o.err.find(words) != std::string::npos, "zoo" << shown << ": " << o.err);
  BOOST_CHECK_MESSAGE(o.out.empty(), "zoo" << shown << " also printed: " << o.out);
}

}  // namespace test
