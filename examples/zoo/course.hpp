// SPDX-License-Identifier: MIT
#pragma once
// Text as examples, and the training of several models side by side on the same ones.

#include <linnet/eval/evaluator.hpp>
#include <string>
#include <vector>

#include "byte_models.hpp"
#include "commands.hpp"

namespace zoo {

/// A text, nine tenths of it to learn from. It is cut into ten stretches and the last tenth of each
/// is held out, so that both parts are alike even where the text changes its topic.
struct corpus {
  std::string name;
  std::string training, held_out;

  ln::index bytes() const { return std::ssize(training) + std::ssize(held_out); }
};

/// Reads a text file of any bytes; refuses one that is too short to learn from.
corpus read_corpus(const std::string& path);

/// Examples that start at these offsets of a text.
example_batch batch_at(const reading& how, std::string_view text,
                       const std::vector<ln::index>& starts);

/// Up to `most` examples spread evenly over a text, in batches of up to `batch`.
std::vector<example_batch> spread_batches(const reading& how, std::string_view text, ln::index most,
                                          ln::index batch);

/// Bytes that a batch asks to predict.
inline ln::index predicted_bytes(const example_batch& l) { return std::ssize(l.labels); }
/// Bits per byte of a model, a learner or a deployed one, on some batches.
template <class Model>
double bits_of(Model& model, const std::vector<example_batch>& batches) {
  double nats = 0;
  ln::index bytes = 0;
  for (const example_batch& l : batches) {
    nats += model.nats(l);
    bytes += predicted_bytes(l);
  }
  return ln::bits_per_byte(nats, bytes);
}

/// Bits per byte of a text whose bytes are drawn independently, each as often as in `text`: what a
/// model reaches that knows how often each byte occurs and nothing else.
double byte_entropy(std::string_view text);

/// A point of a learning curve.
struct curve_point {
  ln::index step;
  double bits;  ///< per byte
};

/// A model in training and what became of it.
struct student {
  std::string name;
  std::unique_ptr<learner> model;
  std::vector<curve_point> losses;    ///< of every step's batch
  std::vector<curve_point> held_out;  ///< now and then
  double seconds = 0;                 ///< in its own steps
  ln::index tokens = 0;               ///< that went through it

  /// Tokens per second of its own training steps.
  double speed() const;
};

/// How a training went.
struct course_record {
  ln::index steps = 0;
  double seconds = 0;
  int signal = 0;  ///< that ended it before its time, or 0
};

/// How a training is kept that may end at any moment.
struct course_keeping {
  std::string checkpoint;  ///< file, or empty: it is not kept
  bool resume = false;     ///< goes on where that file stands, if it is there
  double seconds = 60;     ///< from one checkpoint to the next
};

/// Trains all students in lockstep: each step is taken by every one of them on the same batch,
/// until the steps or the minutes are over, or a signal asks to stop (see stop_requests). The
/// learning rate rises over the first twentieth and then falls along half a cosine. One student
/// alone can be kept in checkpoints: at the start, so that a full disk shows then, at intervals,
/// and at the end.
course_record train_together(std::vector<student>& students, const corpus& text,
                             const course_options& o, const course_keeping& keep = {});

/// The byte-level model and variant of these names; refuses others.
byte_model parse_byte_model(std::string_view name);
variant parse_trainable(std::string_view name);

/// The model in a checkpoint of zoo train, which says what it is; refused if that is not `model`,
/// unless that is empty.
std::unique_ptr<learner> load_learner(const std::string& path, std::string_view model);

}  // namespace zoo
