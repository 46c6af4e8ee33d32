// SPDX-License-Identifier: MIT
#pragma once
// Trains several variants on one text, then measures every form of each: what `quickstart` and
// `sweep` print and report.

#include <optional>
#include <string>
#include <vector>

#include "course.hpp"

namespace zoo {

/// One form of one trained model, measured.
struct outcome {
  variant ffn;
  form as;
  std::string label;              ///< such as "3w, collapsed, int8"
  counts cost;                    ///< FLOPs of one sequence; bytes in the form's storage
  double ms = 0;                  ///< of one forward call over one sequence
  double bits = 0;                ///< per byte of held-out text
  std::string sample;             ///< how it continues the prompt
  double written_per_second = 0;  ///< bytes, while writing the sample
};

/// How exactly a collapsed model computes what the trained one does.
struct collapse_proof {
  std::string name;
  ln::index logits = 0;           ///< compared
  double largest_difference = 0;  ///< of two logits
  double largest_logit = 0;
  double bits_before = 0, bits_after = 0;
};

/// Everything that was found out.
struct experiment {
  std::string model;
  corpus text;
  course_options options;
  reading how;
  std::vector<variant> variants;
  std::vector<student> students;  ///< one per variant
  course_record training;
  std::vector<outcome> outcomes;  ///< by variant, then form
  std::vector<collapse_proof> proofs;
  std::string prompt;          ///< of the samples
  ln::index scored_bytes = 0;  ///< of held-out text
  double byte_entropy = 0;     ///< bits per byte for a model that only counts bytes

  /// The outcome of one form of one variant, or null.
  const outcome* find(variant ffn, form as) const;
};

/// Trains and measures. Says on standard error what it is doing.
experiment run_experiment(const course_options& o, std::vector<variant> variants);

}  // namespace zoo
