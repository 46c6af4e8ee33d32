#pragma once
// The whole study: runs what is missing, then writes the report of what is there.

#include <cmath>
#include <string>
#include <vector>

#include "jobs.hpp"

namespace study {

struct study_options {
  scale size = scales[1];
  std::string data;                 ///< folder, or none: nothing is trained
  std::string out = "ffn-study";    ///< folder: runs/, report.html, report.md, report.csv
  double minutes = HUGE_VAL;        ///< after which what is not finished is left to a later call
  int threads = 1;                  ///< jobs at a time
  std::vector<std::string> tables;  ///< all if empty
};

/// Runs the jobs that have no result yet, prints the tables and writes the report.
void run_study(study_options o);

}  // namespace study
