// SPDX-License-Identifier: MIT
#pragma once
// What zoo compress does with a model: its methods, what they read, and how much they leave out.

#include "compress_subject.hpp"
#include "compress_text.hpp"
#include "compress_words.hpp"

namespace zoo {

/// Windows, steps, seconds and bytes that a compression took.
struct costs {
  ln::index windows = 0;  ///< of calibration
  ln::index steps = 0;    ///< of a method that learns
  double calibrating = 0, compressing = 0;
  /// Most memory: before calibration, from there until it is compressed, and until all is judged.
  ln::index peak_before = 0, peak = 0, peak_after = 0;
};

/// Whether one of the methods does this.
inline bool does(const method_chain& chain, effect what) {
  return any_method(chain, [&](std::string_view name) { return words_of(name).does == what; });
}

/// Refuses options that do not go with the methods. A text that none reads is let go, with a word.
void check_methods(compress_options& o, const method_chain& chain);
/// Whether what reads text first reads it of the weights that all steps begin with.
bool calibrates_at_once(const compress_options& o, const method_chain& chain);
/// How many weights methods make 0, as --sparsity says, or as the storage has places for.
pruning pruning_of(const compress_options& o, const method_chain& chain);
/// Refuses outputs that cannot be written, or whose names are those of inputs or of each other.
void check_results(const compress_options& o);
/// Refuses statistics that are of something else, and says what those to come are of.
void check_statistics(const compress_options& o, const subject& s);
/// The windows that calibration reads, drawn by the seed, for as long as there is time.
/// `o`, `text` and `c` outlive the plan; `c` receives the steps of learning.
calibration_plan plan_of(const compress_options& o, text_windows& text, costs& c);

}  // namespace zoo
