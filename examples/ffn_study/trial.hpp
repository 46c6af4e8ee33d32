// SPDX-License-Identifier: MIT
#pragma once
// A few steps of one model, and what all jobs would take by them.

#include "learner.hpp"
#include "running.hpp"

namespace study {

/// What is tried.
struct trial_options {
  ln::index steps = 0;   ///< of pre-training; 0 tries nothing
  ln::index batch = 0;   ///< examples of a step; 0 for the scale's
  ln::index length = 0;  ///< ids of text in an example; 0 for the scale's
  model what = model::mini;
};

/// What came of it.
struct trial_result {
  double first = 0, last = 0;        ///< nats per label of the first and the last step
  double seconds = 0;                ///< of processor time, of a step behind the first
  double peak = 0;                   ///< bytes that the process has held until then
  training_cost tried{}, planned{};  ///< of the batch that was tried, and of the scale's
};
/// Takes the steps, and keeps nothing.
trial_result run_trial(const trial_options& how, const workshop& w);

/// A student, its teacher, and bytes of both in training with the teacher's logits for two batches:
/// others may still learn from the one before.
struct taught_cost {
  model student = model::mini, teacher = model::mini;
  ln::index bytes = 0;
};
/// The most that one of these jobs with a teacher takes; 0 bytes without any.
taught_cost most_taught(const std::vector<job>& jobs, const workshop& w);

/// Processor seconds of these jobs at the speed of a trial: operations of the labels' and the
/// teachers' forward calls, and twice as many for each backward.
double seconds_of(const std::vector<job>& jobs, const trial_result& found, const workshop& w);

}  // namespace study
