// SPDX-License-Identifier: MIT
#pragma once
// What there is to run, as data: a scale names the sizes, jobs_of() lists the jobs.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models.hpp"

namespace study {

/// The tables and the figure of the report.
inline constexpr std::array<std::string_view, 8> table_ids{"3.1", "4.1", "4.2", "4.3",
                                                           "4.4", "4.5", "4.6", "F4.1"};
/// What it says in words, without figures: distillation and teachers that stop early, and runs that
/// go on from one checkpoint. They are run where they are asked for.
inline constexpr std::array<std::string_view, 2> extra_ids{"early", "restarts"};

/// How much is run. Steps are those of a baseline.
struct scale {
  std::string_view name;
  ln::index steps;                ///< of pre-training
  ln::index batch = 16;           ///< examples of a step
  ln::index length = 32;          ///< ids of text in an example: bytes, or T5's pieces
  ln::index curve_steps;          ///< of each run of Figure 4.1
  double highest_rate = 0.04;     ///< of Adafactor, at the end of the linear warm-up
  double warm_up;                 ///< share of the steps
  ln::index checked;              ///< held-out examples
  ln::index tuning_steps = 0;     ///< of SST-2 and MNLI; 0 leaves them out
  ln::index tuning_length = 160;  ///< ids of an input; what is longer loses its end
  double tuning_rate = 0.005;     ///< constant
  double tuning_dropout = 0;      ///< the report's tenth keeps models this small from learning
  double dropout = 0;             ///< of pre-training
  double clip = 0;                ///< largest norm of a gradient; none: Adafactor bounds its steps
  bool glue = false;              ///< tunes on all tasks of GLUE together, not on two by themselves
  bool full_size = false;         ///< of true_shapes, which the program is compiled for
  int seeds = 1;                  ///< of each row
  std::array<int, 3> longer = {2, 4, 0};  ///< multiples of the steps in Table 4.2, 0 for none
  bool sweep = false;  ///< alpha and T over a grid, too, or the report's values only
  int timings;         ///< repetitions of each measured call
};

inline constexpr scale hour{.name = "hour",
                            .steps = 16'000,
                            .curve_steps = 6000,
                            .warm_up = 1 / 16.0,
                            .checked = 512,
                            .tuning_steps = 2000,
                            .timings = 15};
/// The report's warm-up: 20,000 linear or 10,000 constant of 524,288 steps, the rate 1 / sqrt(step)
/// after it.
inline constexpr double report_warm_up = 20'000 / 524'288.0;
inline constexpr double report_rate = 0.0070710678;  // 20,000^(-1/2)
inline constexpr scale paper{.name = "paper",
                             .steps = 524'288,
                             .batch = 128,
                             .length = 512,
                             .curve_steps = 524'288,
                             .highest_rate = report_rate,
                             .warm_up = report_warm_up,
                             .checked = 4096,
                             .tuning_steps = 262'144,
                             .tuning_length = 512,
                             .tuning_rate = 1e-3,
                             .tuning_dropout = 0.1,
                             .dropout = 0.1,
                             .glue = true,
                             .full_size = true,
                             .seeds = 5,
                             .longer = {2, 4, 10},
                             .sweep = true,
                             .timings = 31};
inline constexpr std::array scales{
    scale{.name = "check",
          .steps = 3,
          .batch = 2,
          .curve_steps = 2,
          .highest_rate = 0.02,
          .warm_up = 0.5,
          .checked = 4,
          .tuning_steps = 2,
          .tuning_length = 32,
          .longer = {2, 0, 0},
          .timings = 1},
    scale{.name = "minutes",
          .steps = 6000,
          .curve_steps = 4400,
          .warm_up = 1 / 6.0,
          .checked = 256,
          .timings = 9},
    hour,
    // The jobs of scale hour and more of them: goes on where that one has ended.
    [] {
      scale s = hour;
      s.name = "hours";
      s.seeds = 3;
      s.longer = {2, 4, 10};
      s.sweep = true;
      return s;
    }(),
    paper,
    // Scale check, of scale paper.
    [] {
      scale s = paper;
      s.name = "paper-check";
      s.steps = s.curve_steps = s.tuning_steps = s.batch = s.checked = 2;
      s.length = 48;
      s.tuning_length = 64;
      s.warm_up = 0.5;
      s.seeds = s.timings = 1;
      s.longer = {2, 0, 0};
      s.sweep = false;
      return s;
    }(),
};

/// What a job's result depends on besides its name. Scales that agree in it share results.
std::string settings_of(const scale& s);

enum class job_kind { cost, pretraining, tuning, baseline };
/// Both fall with the inverse square root of the step; they differ while warming up.
enum class warm_up { linear, constant };

/// One unit of work. Its name is its identity: a job with a result is not run again.
struct job {
  std::string name{};
  job_kind kind = job_kind::pretraining;
  model what = model::mini;
  std::uint64_t seed = 1;
  ln::index steps = 0;
  warm_up start = warm_up::linear;
  std::string needs{};  ///< the job whose weights teach it, are tuned or go on; or none
  std::string task{};   ///< of a tuning or a baseline: "sst2", "mnli"
  double alpha = 1;     ///< share of the hard labels in the loss
  double temperature = 1;
  ln::index taught = 0;      ///< steps that it listens to its teacher; 0 for all
  ln::index planned = 0;     ///< steps that its schedule is of; 0 for its own
  bool keeps_state = false;  ///< leaves its optimizer's state, too
  bool restarts = false;     ///< goes on from the state of the job that it needs
};

/// A row of a table: jobs that differ in their seed alone.
struct series {
  std::string label;
  std::string name;  ///< of the jobs, without their seeds
  model what = model::mini;
  double alpha = 1, temperature = 1;
  bool in_full = true;  ///< with all seeds and tasks; or with seed 1 and none
  double taught = 1;    ///< share of its steps that it listens to its teacher
  bool tuned = true;    ///< on the tasks, if it is there in full
};

std::string job_name(const series& s, std::uint64_t seed);
/// The job that tunes what another one has trained.
std::string tuning_name(std::string_view task, std::string_view trained);

/// The rows of tables 4.2 and 4.6; those of the others are models.
std::vector<series> longer_trainings(const scale& s);
std::vector<series> distillations(const scale& s);
/// The two series of Figure 4.1, five seeds each.
std::vector<series> curves();
inline constexpr int curve_seeds = 5;
/// Small teaches Mini to the end, a half and a quarter of the steps; one that has a quarter or a
/// half of its own steps teaches, too (Cho and Hariharan 2019).
std::vector<series> early_stops();
/// Five seeds: from the start, and from the state of seed 1 halfway, with text in other orders.
std::vector<series> restarts();

/// All jobs of these tables ("3.1" to "4.6", "F4.1"), what is needed first before what needs it,
/// each once.
std::vector<job> jobs_of(const scale& s, const std::vector<std::string>& tables);

/// The models whose rows a table has; empty for tables of another kind.
std::vector<model> models_of(std::string_view table);

}  // namespace study
