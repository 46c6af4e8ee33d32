// SPDX-License-Identifier: MIT
#pragma once
// A training that is under way: its steps, the looks at held-out text, and what it comes to.

#include <memory>
#include <string>

#include "commands.hpp"
#include "module.hpp"
#include "train_report.hpp"
#include "training_examples.hpp"

namespace zoo {

inline constexpr ln::index checked_examples = 48;    ///< held out of each text, while training
inline constexpr ln::index examined_examples = 256;  ///< at the end

/// The schedule of the rate; refuses unknown words.
ln::schedule schedule_of(const train_options& o);

/// How a student learns from its teacher; refuses unknown words.
ln::distillation_options lesson_of(const train_options& o);

/// Steps of TED's first stage.
inline long filter_steps(const train_options& o) {
  return o.filter_steps > 0 ? o.filter_steps : o.steps;
}
/// The file of those filters, which the folder has while the training lasts.
inline std::string filters_of(const train_options& o) { return o.out + "/filters.safetensors"; }

/// What is trained: the model, or before it the filters of its teacher.
enum class stage { filters, model };

/// What a training is of. All of it outlives the training.
struct course_parts {
  const train_options& options;
  const module& code;
  const training_text& text;
  const tokenizing& by;
  const lesson_plan& plan;
  const model_spec& model;
  const std::string& weights;  ///< that it begins with, or a teacher's
  examples& from;
};

/// A training that is under way.
class training_course {
 public:
  training_course(const course_parts& of, training_record& record, stage which = stage::model);

  /// Takes the steps; false if the time is over or a signal came before the last one.
  bool run(double deadline);
  /// Writes the filters alone.
  void save_filters() { model_->save(filters_of(of_.options)); }
  /// Writes the weights, judges them by so many examples of each text, and lets them write.
  void save(ln::index examples_of_each);

 private:
  course_parts of_;
  training_record& record_;
  stage stage_;
  std::unique_ptr<trainee> model_;

  double examine(ln::index most);
  void write_sample(const std::string& weights);
  void fill_gaps(const std::string& weights);
};

}  // namespace zoo
