// SPDX-License-Identifier: MIT
#pragma once
// Runs the program ffn_study.

#include "support/program.hpp"
#include "support/report.hpp"

namespace test {

inline outcome ffn_study(const std::vector<std::string>& arguments) {
  return run_program(FFN_STUDY_PROGRAM, arguments);
}

}  // namespace test
