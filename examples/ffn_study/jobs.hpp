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

/// How much is run. Steps are those of a baseline.
struct scale {
  std::string_view name;
  ln::index steps;         ///< of pre-training
  ln::index batch;         ///< examples of a step
  ln::index bytes;         ///< of text in an example
  ln::index curve_steps;   ///< of each run of Figure 4.1
  double highest_rate;     ///< of Adafactor, at the end of the linear warm-up
  double warm_up;          ///< share of the steps
  ln::index checked;       ///< held-out examples
  ln::index tuning_steps;  ///< of SST-2 and MNLI; 0 leaves them out
  ln::index tuning_bytes;  ///< of an input; what is longer loses its end
  double tuning_rate;      ///< constant
  double tuning_dropout;
  int seeds;                  ///< of each row
  std::array<int, 3> longer;  ///< multiples of the steps in Table 4.2, 0 for none
  bool sweep;                 ///< alpha and T over a grid, too, or the report's values only
  int timings;                ///< repetitions of each measured call
};

/// The report's warm-up: 20,000 linear or 10,000 constant of 524,288 steps, the rate 1 / sqrt(step)
/// after it.
inline constexpr double report_warm_up = 20'000 / 524'288.0;
inline constexpr double report_rate = 0.0070710678;  // 20,000^(-1/2)
inline constexpr std::array scales{
    scale{"check", 3, 2, 32, 2, 0.02, 0.5, 4, 2, 32, 0.005, 0, 1, {2, 0, 0}, false, 1},
    scale{"minutes", 6000, 16, 32, 4400, 0.04, 1 / 6.0, 256, 0, 0, 0, 0, 1, {2, 4, 0}, false, 9},
    scale{"hour",
          16'000,
          16,
          32,
          6000,
          0.04,
          1 / 16.0,
          512,
          2000,
          160,
          0.005,
          0,
          1,
          {2, 4, 0},
          false,
          15},
    // The jobs of scale hour and more of them: goes on where that one has ended.
    scale{"hours",
          16'000,
          16,
          32,
          6000,
          0.04,
          1 / 16.0,
          512,
          2000,
          160,
          0.005,
          0,
          3,
          {2, 4, 10},
          true,
          15},
    scale{"paper",
          524'288,
          128,
          512,
          524'288,
          report_rate,
          report_warm_up,
          4096,
          262'144,
          512,
          1e-3,
          0.1,
          5,
          {2, 4, 10},
          true,
          31},
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
  std::string needs{};  ///< the job whose weights teach it or are tuned, or none
  std::string task{};   ///< of a tuning or a baseline: "sst2", "mnli"
  double alpha = 1;     ///< share of the hard labels in the loss
  double temperature = 1;
};

/// A row of a table: jobs that differ in their seed alone.
struct series {
  std::string label;
  std::string name;  ///< of the jobs, without their seeds
  model what = model::mini;
  double alpha = 1, temperature = 1;
  bool in_full = true;  ///< with all seeds and tasks; or with seed 1 and none
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

/// All jobs of these tables ("3.1" to "4.6", "F4.1"), what is needed first before what needs it,
/// each once.
std::vector<job> jobs_of(const scale& s, const std::vector<std::string>& tables);

/// The models whose rows a table has; empty for tables of another kind.
std::vector<model> models_of(std::string_view table);

}  // namespace study
