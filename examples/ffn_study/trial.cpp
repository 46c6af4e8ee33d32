// SPDX-License-Identifier: MIT
#include "trial.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <map>

#include "learner.hpp"
#include "support/basics.hpp"
#include "support/progress.hpp"

namespace study {

namespace {

ln::limits limits_of(const denoising_examples& examples) {
  const ln::example_limits& most = examples.planned();
  return {.batch = most.batch, .source = most.source, .target = most.target};
}

/// Of the scale's batches.
ln::limits learning_limits(const workshop& w) {
  return limits_of(denoise(w.training, w.reads, w.size.batch, w.size.length, 1));
}

}  // namespace

trial_result run_trial(const trial_options& how, const workshop& w) {
  const ln::index batch = how.batch > 0 ? how.batch : w.size.batch;
  const ln::index length = how.length > 0 ? how.length : w.size.length;
  auto examples = denoise(w.training, w.reads, batch, length, 1);
  const ln::limits tried = limits_of(examples), planned = learning_limits(w);
  const auto m = make_learner(how.what);
  m->initialize(1);
  m->begin({.limits = tried,
            .rate = ln::schedule::constant(w.size.highest_rate),
            .clip = w.size.clip,
            .dropout = w.size.dropout,
            .seed = 1});
  trial_result found{.tried = m->cost(tried), .planned = m->cost(planned)};
  taught labels;
  double start = support::processor_seconds();
  for (ln::index step = 0; step < how.steps; ++step) {
    found.last = m->step(examples.batch(static_cast<std::uint64_t>(step * batch)), labels);
    if (!ln::is_finite(found.last)) throw support::failure("the loss of the trial is not finite");
    if (step > 0) continue;
    found.first = found.last;  // its step touches all memory for the first time
    if (how.steps > 1) start = support::processor_seconds();
  }
  found.seconds = (support::processor_seconds() - start) /
                  static_cast<double>(std::max<ln::index>(1, how.steps - 1));
  rusage used{};
  if (getrusage(RUSAGE_SELF, &used) == 0) found.peak = 1024.0 * static_cast<double>(used.ru_maxrss);
  return found;
}

taught_cost most_taught(const std::vector<job>& jobs, const workshop& w) {
  const ln::limits l = learning_limits(w);
  const ln::index lecture =
      static_cast<ln::index>(sizeof(float)) * l.batch * l.target * trained_vocabulary;
  taught_cost most;
  for (const job& j : jobs) {
    if (j.kind != job_kind::pretraining || j.needs.empty() || j.restarts) continue;
    const model teacher = model_of(j.needs);
    const ln::index bytes = training_bytes(j.what, l) + training_bytes(teacher, l) + 2 * lecture;
    if (bytes > most.bytes) most = {j.what, teacher, bytes};
  }
  return most;
}

double seconds_of(const std::vector<job>& jobs, const trial_result& found, const workshop& w) {
  const ln::limits learning = learning_limits(w);
  const ln::limits tuning{.batch = w.size.batch, .source = w.size.tuning_length + 1, .target = 8};
  std::map<std::pair<model, bool>, double> known;
  const auto forward = [&](model m, bool tuned) {
    double& operations = known[{m, tuned}];
    if (operations == 0) operations = operations_of(m, tuned ? tuning : learning);
    return operations;
  };
  double operations = 0;
  for (const job& j : jobs) {
    const bool tuned = j.kind == job_kind::tuning;
    if (!tuned && j.kind != job_kind::pretraining) continue;
    const auto steps = static_cast<double>(j.steps);
    operations += 3 * steps * forward(j.what, tuned);
    if (!tuned && !j.needs.empty() && !j.restarts)
      operations += (j.taught > 0 ? static_cast<double>(j.taught) : steps) *
                    forward(model_of(j.needs), false);
  }
  return operations * found.seconds / (3 * found.tried.operations);
}

}  // namespace study
