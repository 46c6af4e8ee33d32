// SPDX-License-Identifier: MIT
#pragma once
// What programs have in common: numbers on the command line, how they end; and those that run a
// study: options, the folder of results, the report.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "basics.hpp"
#include "render.hpp"

namespace support {

/// Accepts numbers in [low, high]; unlike CLI::Range it refuses "nan".
CLI::Validator number_in(double low, double high);
/// Accepts whole decimal numbers in [low, high]; unlike CLI::Range it refuses what only begins with
/// one after it has been cut to fit, and reads 010 as ten.
template <class T>
CLI::Validator whole_in(T low, T high) {
  return {[=](std::string& text) {
            T value{};
            std::string_view number = text;
            while (number.starts_with(' ')) number.remove_prefix(1);
            while (number.ends_with(' ')) number.remove_suffix(1);
            const char* const end = number.data() + number.size();
            const auto [last, problem] = std::from_chars(number.data(), end, value);
            if (problem != std::errc{} || last != end || value < low || value > high)
              return fmt::format("'{}' is not a whole number from {} to {}", text, low, high);
            text = std::to_string(value);
            return std::string();
          },
          "", "whole_in"};
}

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
/// status 2, or 128 + its number after a signal. So is a standard output that cannot be written.
int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run);

}  // namespace support
