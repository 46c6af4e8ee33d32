// SPDX-License-Identifier: MIT
#pragma once
// The whole study: runs what is missing, then writes the report of what is there.

#include "support/study.hpp"
#include "trial.hpp"

namespace study {

struct options : support::study_options {
  scale size = scales[1];
  std::vector<std::string> tables;  ///< those of the report if empty
  trial_options trial;              ///< instead of the jobs
};

/// Runs the jobs that have no result yet, prints the tables and writes the report.
void run_study(options o);

}  // namespace study
