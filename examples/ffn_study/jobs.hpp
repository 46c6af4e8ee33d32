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
  ln::index steps;            ///< of pre-training
  ln::index batch;            ///< examples of a step
  ln::index bytes;            ///< of text in an example
  ln::index curve_steps;      ///< of each run of Figure 4.1
  ln::index checked;          ///< held-out examples
  ln::index tuning_steps;     ///< of SST-2 and MNLI; 0 leaves them out
  int seeds;                  ///< of each row
  std::array<int, 3> longer;  ///< multiples of the steps in Table 4.2, 0 for none
  bool sweep;                 ///< alpha and T over a grid, or the report's values only
  int timings;                ///< repetitions of each measured call
};

inline constexpr std::array scales{
    scale{"check", 3, 2, 64, 2, 4, 0, 1, {2, 0, 0}, false, 1},
    scale{"minutes", 400, 16, 128, 200, 128, 0, 1, {2, 4, 0}, false, 9},
    scale{"hour", 1000, 16, 128, 500, 256, 600, 1, {2, 4, 0}, false, 15},
    scale{"hours", 4000, 32, 128, 2000, 512, 3000, 3, {2, 4, 10}, true, 31},
    scale{"paper", 524'288, 128, 512, 524'288, 4096, 262'144, 5, {2, 4, 10}, true, 31},
};

enum class job_kind { cost, pretraining };
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
  std::string teacher{};  ///< the job that trained it, or none
  double alpha = 1;       ///< share of the hard labels in the loss
  double temperature = 1;
};

/// A row of a table: jobs that differ in their seed alone.
struct series {
  std::string label;
  std::string name;  ///< of the jobs, without their seeds
  model what = model::mini;
  double alpha = 1, temperature = 1;
};

std::string job_name(const series& s, std::uint64_t seed);

/// The rows of tables 4.2 and 4.6; those of the others are models.
std::vector<series> longer_trainings(const scale& s);
std::vector<series> distillations(const scale& s);
/// The two series of Figure 4.1, five seeds each.
std::vector<series> curves();
inline constexpr int curve_seeds = 5;

/// All jobs of these tables ("3.1" to "4.6", "F4.1"), teachers before their students, each once.
std::vector<job> jobs_of(const scale& s, const std::vector<std::string>& tables);

/// The models whose rows a table has; empty for tables of another kind.
std::vector<model> models_of(std::string_view table);

}  // namespace study
