// SPDX-License-Identifier: MIT
#pragma once
// Runs the program stlm_study.

#include "support/program.hpp"
#include "support/report.hpp"

namespace test {

inline outcome stlm_study(const std::vector<std::string>& arguments) {
  return run_program(STLM_STUDY_PROGRAM, arguments);
}

}  // namespace test
