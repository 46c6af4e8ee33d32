// SPDX-License-Identifier: MIT
#include "study.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <linnet/core/platform.hpp>

#include "running.hpp"
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
          "byte-level models, so that only differences compare.",
          sizes_trained),
      .notes = {},
      .tables = {}};
  for (const std::string& id : o.tables) d.tables.push_back(make_table(id, o.size, known));
  d.notes.push_back(fmt::format("Scale {}. linnet {}.", o.size.name, LINNET_VERSION));
  return d;
}

}  // namespace

void run_study(options o) {
  if (!o.data.empty() && true_shapes != (o.size.name == "paper"))
    throw support::failure(fmt::format(
        "scale {} trains {} shapes: configure CMake with -DLINNET_STUDY_TRUE_SHAPES={}",
        o.size.name, true_shapes ? "scaled-down" : "T5's true", true_shapes ? "OFF" : "ON"));
  if (o.tables.empty()) o.tables.assign(table_ids.begin(), table_ids.end());
  support::prepare_folder(o);

  if (!o.data.empty()) {
    lectures heard;
    workshop w{o.size,   support::read_texts(o.data),     {},
               o.runs(), support::now() + 60 * o.minutes, heard};
    for (const std::string_view name : task_names) {
      if (o.size.tuning_steps == 0) break;
      if (const std::string folder = folder_of(o.data, name); std::filesystem::exists(folder))
        w.tasks.emplace(name, read_task(o.data, name));
      else
        support::say("{} is not there: without {}\n", folder, name);
    }
    std::vector<support::work> all;
    for (const job& j : jobs_of(o.size, o.tables))
      if (j.task.empty() || w.tasks.contains(j.task))
        all.push_back(
            {j.name, j.needs, j.kind == job_kind::cost, [&w, j] { return run_job(j, w); }});
    support::run_all(std::move(all), o.runs(), settings_of(o.size), o.threads);
  }
  support::write_report(o, report_of(o, support::results::read(o.runs(), settings_of(o.size))));
}

}  // namespace study
