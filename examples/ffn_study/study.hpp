// SPDX-License-Identifier: MIT
#pragma once
// The whole study: runs what is missing, then writes the report of what is there.

#include "jobs.hpp"
#include "support/study.hpp"

namespace study {

struct options : support::study_options {
  scale size = scales[1];
  std::vector<std::string> tables;  ///< all if empty
};

/// Runs the jobs that have no result yet, prints the tables and writes the report.
void run_study(options o);

}  // namespace study
