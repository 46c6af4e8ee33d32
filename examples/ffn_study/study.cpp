// SPDX-License-Identifier: MIT
#include "study.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/core/platform.hpp>

#include "running.hpp"
#include "support/basics.hpp"
#include "support/console.hpp"
#include "support/pool.hpp"
#include "support/progress.hpp"
#include "tables.hpp"

namespace study {

namespace {

support::document report_of(const options& o, const support::results& known) {
  support::document d{
      .title = "T5's feed-forwards: published, derived, measured",
      .lead = fmt::format(
          "The tables of \"Exploring the Limits of Small Language Models\" (UC Berkeley, "
          "EECS-2023-141). Published: as printed there. Derived: computed from model types "
          "or by a stated formula. Measured: run by this program on this machine, with {} "
          "models{}.",
          sizes_trained, true_shapes ? "" : " of bytes, so that only differences compare"),
      .notes = {},
      .tables = {}};
  for (const std::string& id : o.tables) d.tables.push_back(make_table(id, o.size, known));
  d.notes.push_back(fmt::format("Scale {}. linnet {}.", o.size.name, LINNET_VERSION));
  return d;
}

/// The texts.
workshop open_workshop(const options& o, lectures& heard) {
  support::texts text = support::read_texts(o.data);
  const reader reads = reader::open(o.data);
  readable training(text.training, reads), held_out(text.held_out, reads);
  const std::uint64_t mark = text.mark();
  return {o.size,
          std::move(text),
          reads,
          std::move(training),
          std::move(held_out),
          {},
          o.runs(),
          support::now() + 60 * o.minutes,
          heard,
          0,
          mark};
}

/// Reads the tasks that are there.
void read_tasks(const options& o, workshop& w) {
  if (o.size.tuning_steps == 0) return;
  if (o.size.glue) {
    const double start = support::processor_seconds();
    std::vector<task> all;
    for (const std::string_view name : glue_names)
      if (auto one = read_glue(o.data, name))
        all.push_back(std::move(*one));
      else
        support::say("{}/glue: without {}\n", o.data, name);
    if (std::all_of(all.begin(), all.end(), [](const task& t) { return t.judged_only; }))
      support::say("{}/glue: nothing to tune on\n", o.data);
    else
      w.tasks.emplace("glue", std::move(all));
    w.reading = support::processor_seconds() - start;
    return;
  }
  for (const std::string_view name : task_names)
    if (const std::string folder = folder_of(o.data, name); std::filesystem::exists(folder))
      w.tasks[std::string(name)].push_back(read_task(o.data, name));
    else
      support::say("{} is not there: without {}\n", folder, name);
}

/// What the tasks of GLUE that are there hold, and what reading them took.
void report_tasks(const workshop& w) {
  const auto all = w.tasks.find("glue");
  if (all == w.tasks.end()) return;
  std::size_t bytes = 0;
  for (const task& t : all->second) {
    std::string asked;
    for (const task::exam& e : t.exams)
      asked += fmt::format(", {} of {}", support::grouped(std::ssize(e.pairs)), e.name);
    if (t.left_out > 0) asked += fmt::format("; {} torn lines left out", t.left_out);
    support::put("{}: {} to learn from{}\n", t.words.name,
                 t.judged_only ? "none" : support::grouped(std::ssize(t.training)), asked);
    if (t.judged_only) continue;
    for (const ln::text_pair& p : t.training) bytes += p.input.size() + p.target.size();
  }
  support::put("{} tasks, {:.0f} MB to learn from, read in {:.1f} s of a processor\n",
               all->second.size(), static_cast<double>(bytes) / 1e6, w.reading);
}

/// Tries a few steps, and says what all jobs of the tables would take.
void report_trial(const options& o, workshop& w) {
  const trial_result found = run_trial(o.trial, w);
  if (o.size.glue) read_tasks(o, w);  // behind the trial, whose memory is reported
  const double gigabyte = 1e9, day = 86'400;
  const double share = found.planned.operations / found.tried.operations;
  support::put("{} ids; {}\n", support::grouped(trained_vocabulary), settings_of(o.size));
  report_tasks(w);
  support::put("{}: {} steps of {} x {} ids, {:.2f} nats per label, then {:.2f}\n",
               name_of(o.trial.what), o.trial.steps,
               o.trial.batch > 0 ? o.trial.batch : o.size.batch,
               o.trial.length > 0 ? o.trial.length : o.size.length, found.first, found.last);
  support::put("a step: {:.2f} s of a processor, {:.2f} GB planned; {:.2f} GB held at most\n",
               found.seconds, static_cast<double>(found.tried.bytes) / gigabyte,
               found.peak / gigabyte);
  support::put("a step of {}: {:.0f} s, {:.1f} GB; {} of them: {:.1f} days\n", o.size.batch,
               found.seconds * share, static_cast<double>(found.planned.bytes) / gigabyte,
               support::grouped(o.size.steps),
               found.seconds * share * static_cast<double>(o.size.steps) / day);
  const std::vector<job> jobs = jobs_of(o.size, o.tables);
  if (const taught_cost most = most_taught(jobs, w); most.bytes > 0)
    support::put("with a teacher: {:.1f} GB at most ({} -> {})\n",
                 static_cast<double>(most.bytes) / gigabyte, name_of(most.teacher),
                 name_of(most.student));
  support::put("all {} jobs of scale {}: {:.0f} days of a processor\n", jobs.size(), o.size.name,
               seconds_of(jobs, found, w) / day);
}

/// The jobs of the tables that this program and the tasks can run.
std::vector<job> possible_jobs(const options& o, const workshop& w) {
  std::vector<job> all = jobs_of(o.size, o.tables);
  std::vector<std::string> without;
  std::erase_if(all, [&](const job& j) {
    const bool asks_words = j.kind == job_kind::baseline, tuned = j.kind == job_kind::tuning;
    const bool possible = (j.task.empty() || w.tasks.contains(j.task)) &&
                          (asks_words || has_learner(j.what)) &&
                          std::find(without.begin(), without.end(), j.needs) == without.end() &&
                          (j.needs.empty() || tuned || has_learner(model_of(j.needs)));
    if (!possible) without.push_back(j.name);
    return !possible;
  });
  return all;
}

}  // namespace

void run_study(options o) {
  if (!o.data.empty() && true_shapes != o.size.full_size)
    throw support::failure(fmt::format(
        "scale {} trains {} shapes: configure CMake with -DLINNET_STUDY_TRUE_SHAPES={}",
        o.size.name, true_shapes ? "scaled-down" : "T5's true", true_shapes ? "OFF" : "ON"));
  if (o.trial.steps > 0 && o.data.empty())
    throw support::failure("--try: needs the text of --data");
  if (o.tables.empty()) o.tables.assign(table_ids.begin(), table_ids.end());
  if (o.trial.steps == 0) support::prepare_folder(o);

  std::map<std::string, std::string> mixture;
  if (!o.data.empty()) {
    lectures heard;
    workshop w = open_workshop(o, heard);
    if (o.trial.steps > 0) return report_trial(o, w);
    read_tasks(o, w);
    if (const auto tasks = w.tasks.find("glue"); tasks != w.tasks.end())
      mixture["tasks"] = mixture_of(tasks->second);
    support::results::read(o.runs(), settings_of(o.size), mixture);  // refuses another one
    std::vector<support::work> all;
    for (const job& j : possible_jobs(o, w))
      all.push_back({j.name, j.needs, j.kind == job_kind::cost, [&w, j] { return run_job(j, w); }});
    support::run_all(std::move(all), o.runs(), settings_of(o.size), o.threads, w.deadline);
  }
  support::write_report(
      o, report_of(o, support::results::read(o.runs(), settings_of(o.size), mixture)));
}

}  // namespace study
