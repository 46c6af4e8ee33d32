#include "study.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <linnet/config/platform.hpp>
#include <linnet/io/file.hpp>

#include "pool.hpp"
#include "render.hpp"
#include "support/basics.hpp"
#include "support/progress.hpp"
#include "tables.hpp"

namespace study {

namespace {

document report_of(const study_options& o, const results& known) {
  document d{.title = "T5's feed-forwards: published, derived, measured",
             .lead =
                 "The tables of \"Exploring the Limits of Small Language Models\" (UC Berkeley, "
                 "EECS-2023-141). Published: as printed there. Derived: computed from model types "
                 "or by a stated formula. Measured: run by this program on this machine, with "
                 "scaled-down byte-level models, so that only differences compare.",
             .notes = {},
             .tables = {}};
  for (const std::string& id : o.tables) d.tables.push_back(make_table(id, o.size, known));
  d.notes.push_back(fmt::format("Scale {}. linnet {}.", o.size.name, LINNET_VERSION));
  return d;
}

void write_text(const std::string& path, const std::string& text) {
  support::take(ln::write_file(path, std::as_bytes(std::span(text))));
}

}  // namespace

void run_study(study_options o) {
  if (!o.data.empty() && true_shapes != (o.size.name == "paper"))
    throw support::failure(fmt::format(
        "scale {} trains {} shapes: configure CMake with -DLINNET_STUDY_TRUE_SHAPES={}",
        o.size.name, true_shapes ? "scaled-down" : "T5's true", true_shapes ? "OFF" : "ON"));
  if (o.tables.empty()) o.tables.assign(table_ids.begin(), table_ids.end());
  const std::string runs = o.out + "/runs";
  std::error_code problem;
  std::filesystem::create_directories(runs, problem);
  if (problem) throw support::failure(fmt::format("{}: {}", runs, problem.message()));
  support::check_writable(o.out + "/report.html");

  if (!o.data.empty()) {
    workshop w{o.size, read_texts(o.data), {}, runs, support::now() + 60 * o.minutes};
    for (const std::string_view name : task_names) {
      if (o.size.tuning_steps == 0) break;
      if (const std::string folder = folder_of(o.data, name); std::filesystem::exists(folder))
        w.tasks.emplace(name, read_task(o.data, name));
      else
        fmt::print(stderr, "{} is not there: without {}\n", folder, name);
    }
    std::vector<job> jobs = jobs_of(o.size, o.tables);
    std::erase_if(jobs, [&](const job& j) { return !j.task.empty() && !w.tasks.contains(j.task); });
    run_jobs(jobs, w, o.threads);
  }
  const document d = report_of(o, results::read(runs, settings_of(o.size)));
  write_text(o.out + "/report.html", html(d));
  write_text(o.out + "/report.csv", csv(d));
  write_text(o.out + "/report.md", markdown(d));
  fmt::print("{}", markdown(d));
  fmt::print(stderr, "report: {}/report.html, .md, .csv\n", o.out);
}

}  // namespace study
