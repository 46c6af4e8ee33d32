// SPDX-License-Identifier: MIT
#pragma once
// Methods of compression on several models: what is run, what came of it, the report.

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/basics.hpp"
#include "support/study.hpp"

namespace study {

namespace ln = linnet;
using json = nlohmann::ordered_json;

/// A method of zoo compress.
struct method {
  std::string name;
  bool calibrates;
  std::string storage{};  ///< the only one that it gives; empty: all
};
/// All methods that are compared; a new one is a row.
inline const std::vector<method> methods{
    {"rtn", false}, {"gptq", true}, {"clip", true}, {"awq", true}, {"hqq", false, "q4_1"}};

/// A model with its texts, and what is tried on it.
struct subject {
  std::string name;                     ///< in the report
  std::vector<std::string> model;       ///< options of zoo compress that name it
  std::string calibrate, evaluate;      ///< files of text
  std::vector<std::string> storages;    ///< as zoo compress spells them
  std::vector<std::string> training{};  ///< the call of zoo that makes the model, or nothing
  std::string made{};                   ///< file that is there once it is made
};

/// How much is run.
struct scale {
  std::string name;
  long samples, windows, length;  ///< of calibration and evaluation
  long seeds;                     ///< of the calibration text
};

struct options : support::study_options {
  scale size{};
  std::string zoo;                  ///< the program
  std::vector<std::string> models;  ///< names of subjects; none: all
};

/// What zoo compress said of one model, storage, method and seed.
struct cell {
  std::string model, storage, method;
  long seed = 0;
  json found;
};

/// The subjects of a scale for which there are files.
std::vector<subject> subjects_of(const options& o);
/// Runs what is not in DIR/results.jsonl yet, and adds a line for each; all that is there.
std::vector<cell> run_cells(const options& o, const std::vector<subject>& all);

/// All seeds of one model, storage and method.
struct summary {
  std::string model, storage, method;
  std::vector<const cell*> cells;
  double bits = 0, least_bits = 0, most_bits = 0;  ///< per byte: the mean over seeds, and the range
  /// Bits per byte more than rounding to nearest in the same storage: over all seeds, the mean, and
  /// the ends of the 95% intervals (paired by window) that are furthest out. NaN for itself.
  double more = 0, low = 0, high = 0;
  bool frontier_bytes = false, frontier_speed = false;  ///< nothing is better in both

  const json& found() const { return cells.front()->found; }
  double number(const char* name) const {
    const auto at = found().find(name);
    return at != found().end() && at->is_number() ? at->get<double>() : std::nan("");
  }
  bool better() const { return high < 0; }
};
std::vector<summary> summarize(const std::vector<cell>& cells);

/// Writes DIR/report.html and prints the table.
void report(const options& o, const std::vector<summary>& all);

}  // namespace study
