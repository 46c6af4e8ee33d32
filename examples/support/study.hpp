#pragma once
// What programs that run a study have in common: options, the folder of results, the report.

#include <CLI/CLI.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "basics.hpp"
#include "render.hpp"

namespace support {

struct study_options {
  std::string data;                 ///< folder, or none: nothing is trained
  std::string out;                  ///< folder: runs/, report.html, report.md, report.csv
  double minutes = HUGE_VAL;        ///< after which what is not finished is left to a later call
  int threads = default_threads();  ///< jobs at a time

  std::string runs() const { return out + "/runs"; }
};
/// Adds --data, --out, --threads and --minutes; `data` says what is in the folder.
void describe(CLI::App& app, study_options& o, const std::string& data);

/// Makes the folder of results, or refuses before hours of work end there.
void prepare_folder(const study_options& o);
/// Writes the report in its three forms and prints it.
void write_report(const study_options& o, const document& d);

/// Parses the command line and calls `run`; what goes wrong is one line on standard error and
/// status 2.
int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run);

}  // namespace support
