// SPDX-License-Identifier: MIT
// stlm_study: versions of the baseline of "Super Tiny Language Models" at equal training FLOPs.
// This file only reads the command line.

#include <fmt/format.h>

#include <algorithm>
#include <linnet/core/platform.hpp>

#include "cost.hpp"
#include "running.hpp"
#include "support/pool.hpp"
#include "support/progress.hpp"
#include "support/study.hpp"
#include "tables.hpp"

namespace {

std::vector<const study::version*> chosen(const std::vector<std::string>& names) {
  std::vector<const study::version*> which;
  for (const study::version& v : study::versions())
    if (names.empty() || std::find(names.begin(), names.end(), v.name) != names.end())
      which.push_back(&v);
  return which;
}

/// Runs the jobs that have no result yet, then writes the report of what is there.
void run_study(const support::study_options& o, const study::scale& s, const std::string& merges,
               const std::vector<const study::version*>& which) {
  support::prepare_folder(o);
  if (!o.data.empty()) {
    if (s.full && merges.empty())
      throw support::failure("scale paper: give GPT-2's merges (vocab.bpe) with --merges");
    const study::workshop w =
        study::open_workshop(s, o.data, merges, o.runs(), support::now() + 60 * o.minutes);
    std::vector<support::work> all;
    for (const study::job& j : study::jobs_of(s, which))
      all.push_back({j.name, {}, j.seed == 0, [&w, j] { return study::run_job(j, w); }});
    support::run_all(std::move(all), o.runs(), s.name, o.threads, w.deadline);
  }
  support::write_report(
      o, {.title = "Super tiny language models at equal training FLOPs",
          .lead = "Versions of the baseline of \"Super Tiny Language Models\" (Hillier et al. "
                  "2024). Derived: computed from model types. Measured: run by this program on "
                  "this machine.",
          .notes = {fmt::format("Scale {}. linnet {}.", s.name, LINNET_VERSION)},
          .tables = study::make_tables(s, which, support::results::read(o.runs(), s.name))});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Versions of the Super Tiny Language Models' baseline at equal training FLOPs",
               "stlm_study"};
  support::study_options o;
  o.out = "stlm-study";
  study::cost_options timing;
  timing.threads = o.threads;
  std::string scale = "minutes", merges, timed = "baseline";
  std::vector<std::string> scales, names, only;
  for (const study::scale& s : study::scales) scales.emplace_back(s.name);
  for (const study::version& v : study::versions()) names.emplace_back(v.name);

  app.add_option("--scale", scale,
                 "how much is trained: minutes (20 on two cores), paper (Table 1), or check "
                 "(seconds; it only shows that all works)")
      ->check(CLI::IsMember(scales))
      ->capture_default_str();
  support::describe(app, o,
                    "folder of text to learn from; without it only what needs no training is "
                    "reported");
  app.add_option("--merges", merges,
                 "GPT-2's vocab.bpe, for scale paper; else a vocabulary is learned from the text")
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  app.add_option("--only", only, "versions to train and report")
      ->check(CLI::IsMember(names))
      ->type_name("VERSION");
  app.require_subcommand(0, 1);
  CLI::App* const cost = app.add_subcommand(
      "cost", "speed and memory of training in Table 1's shape, and what its whole run would take");
  cost->add_option("--version", timed, "what is measured")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  cost->add_option("--threads", timing.threads, "threads of each step")
      ->transform(support::whole_in(1, 256))
      ->capture_default_str();
  cost->add_option("--batch", timing.batch, "windows at a time")
      ->transform(support::whole_in(1, 1024))
      ->capture_default_str();
  cost->add_option("--length", timing.length, "tokens of a window")
      ->transform(support::whole_in(1, 512))
      ->capture_default_str();
  cost->add_option("--repetitions", timing.repetitions, "steps, of which the median counts")
      ->transform(support::whole_in(1, 1000))
      ->capture_default_str();
  return support::run_program(app, argc, argv, [&] {
    if (cost->parsed()) return study::print_cost(*chosen({timed}).front(), timing);
    const auto is = [&](const study::scale& s) { return s.name == scale; };
    run_study(o, *std::find_if(study::scales.begin(), study::scales.end(), is), merges,
              chosen(only));
  });
}
