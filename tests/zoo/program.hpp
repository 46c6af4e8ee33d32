#pragma once
// Runs the program zoo as a user would and keeps what it printed.

#include <boost/test/unit_test.hpp>

#include <sys/wait.h>
#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/data.hpp"

namespace test {

struct outcome {
  int status = -1;
  std::string out, err;

  long lines_of_error() const { return std::count(err.begin(), err.end(), '\n'); }
};

/// One argument for the shell.
inline std::string quoted(const std::string& argument) {
  std::string safe = "'";
  for (const char c : argument) {
    if (c == '\'')
      safe += "'\\''";
    else
      safe += c;
  }
  return safe + "'";
}

inline outcome zoo(const std::vector<std::string>& arguments) {
  const scratch_folder folder;
  std::string command = quoted(ZOO_PROGRAM);
  for (const std::string& argument : arguments) (command += ' ') += quoted(argument);
  (command += " >") += folder.path("out");
  (command += " 2>") += folder.path("err");
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(folder.path("out")),
          contents(folder.path("err"))};
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
