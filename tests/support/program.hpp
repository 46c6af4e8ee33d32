// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Runs a program as a user would and keeps what it printed.

#include <boost/test/unit_test.hpp>

#include <sys/wait.h>
#include <algorithm>
#include <cstdlib>
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

inline outcome run_program(const char* program, const std::vector<std::string>& arguments) {
  const scratch_folder folder;
  std::string command = quoted(program);
  for (const std::string& argument : arguments) (command += ' ') += quoted(argument);
  (command += " >") += folder.path("out");
  (command += " 2>") += folder.path("err");
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(folder.path("out")),
          contents(folder.path("err"))};
}

}  // namespace test
