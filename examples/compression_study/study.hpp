// SPDX-License-Identifier: MIT
#pragma once
// Methods of compression on several models: what is run, what came of it, the report.

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/basics.hpp"
#include "support/study.hpp"
#include "zoo/compress_words.hpp"

namespace study {

namespace ln = linnet;
using json = nlohmann::ordered_json;

using zoo::methods;

/// How weights are stored, and what inputs of products are rounded to.
struct stored {
  std::string storage;
  std::string compute = "f32";

  std::string name() const { return compute == "f32" ? storage : storage + ", inputs " + compute; }
};

/// Methods in a row that make weights 0 or a model smaller, and how far.
struct trial {
  std::string method;  ///< as zoo compress spells it, such as wanda+distil
  stored to;
  std::string sparsity{};  ///< such as 50 or 2:4
  std::string shape{};     ///< such as layers=4

  std::string name() const {
    if (!shape.empty()) return method + ' ' + shape;
    return sparsity.empty() ? method
                            : method + ' ' + sparsity + (sparsity.find(':') < 9 ? "" : "%");
  }
};

/// A model with its texts, and what is tried on it.
struct subject {
  std::string name;                     ///< in the report
  std::vector<std::string> model;       ///< options of zoo compress that name it
  std::string calibrate, evaluate;      ///< files of text
  std::vector<stored> storages;         ///< as zoo compress spells them
  std::vector<std::string> methods{};   ///< that are tried where they give a storage; none: all
  std::vector<std::string> training{};  ///< the call of zoo that makes the model, or nothing
  std::string made{};                   ///< file that is there once it is made
  long times = 1;  ///< its windows for one of the scale; an encoder's are lines
  std::vector<trial> pruned{};
};

/// How much is run.
struct scale {
  std::string name;
  long samples, windows, length;  ///< of calibration and evaluation
  long seeds;                     ///< of the calibration text
  long steps;                     ///< of recovery
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

/// What a model is judged by, as it was or as it is: bits per byte, or of an encoder how far its
/// vectors turn, 1 - cosine. The less, the better.
struct judgement {
  double loss;
  std::vector<double> windows;  ///< of each window
};
judgement judge(const json& found, bool before = false);
/// How it is called in tables, and what runs how often a second.
inline bool of_encoder(const json& found) { return found.contains("cosine_after"); }
inline const char* loss_name(const json& found) {
  return of_encoder(found) ? "1 - cosine" : "bits per byte";
}
inline std::string speed_name(const json& found) {
  return of_encoder(found) ? "texts_per_second" : "tokens_per_second";
}

/// All seeds of one model, storage and method.
struct summary {
  std::string model, storage, method;
  std::vector<const cell*> cells;
  double loss = 0, least = 0, most = 0;  ///< the mean over seeds, and the range; see judgement
  /// Loss above that of rounding to nearest in the same storage, or above that of the model as it
  /// was where that was not run: over all seeds, the mean, and the ends of the 95% intervals
  /// (paired by window) that are furthest out. NaN for itself.
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
