// SPDX-License-Identifier: MIT
#pragma once
// What there is to run, as data: a scale names the sizes, jobs_of() lists the jobs.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "learner.hpp"

namespace study {

/// How much is run. Steps are those of the baseline; the others take as many as cost the same.
struct scale {
  std::string_view name;
  bool full;           ///< Table 1's shape, or the small one
  ln::index steps;     ///< of the baseline
  ln::index batch;     ///< windows at a time
  ln::index parts;     ///< batches of a step
  ln::index length;    ///< tokens of a window
  double rate;         ///< highest, of AdamW
  double floor;        ///< at the end
  double warm_up;      ///< share of the steps
  double dropout;      ///< throughout
  ln::index checked;   ///< held-out windows of each text, while training
  ln::index examined;  ///< at the end
  int seeds;
  int timings;  ///< repetitions of each measured step
};

inline constexpr std::array scales{
    scale{"check", false, 4, 2, 2, 16, 3e-3, 3e-4, 0.25, 0.1, 4, 4, 2, 1},
    scale{"minutes", false, 1200, 8, 1, 128, 8e-3, 8e-4, 0.1, 0, 16, 256, 3, 9},
    // Table 1, with the repository's lowest rate.
    scale{"paper", true, 25'000, 24, 20, 512, 6e-4, 6e-5, 0.2, 0.1, 480, 4800, 3, 9}};

/// The shape that a scale trains.
constexpr const ln::decoder_shape& shape_of(const scale& s) { return s.full ? table_1 : small; }

/// One unit of work. Its name is its identity: a job with a result is not run again.
struct job {
  std::string name;
  const version* what;
  std::uint64_t seed = 0;  ///< of a training; 0: measures the speed
};

/// How many steps of a version cost as much as the baseline's, backward included: forward calls
/// of F floating-point operations against F0 of the baseline.
constexpr ln::index equal_steps(ln::index steps, ln::index baseline, ln::index forward) {
  const double exact =
      static_cast<double>(steps) * static_cast<double>(baseline) / static_cast<double>(forward);
  return exact < 1 ? 1 : static_cast<ln::index>(exact + 0.5);
}

std::string speed_name(const version& v);
std::string job_name(const version& v, std::uint64_t seed);
/// All jobs of these versions, the first seed of all before the second.
std::vector<job> jobs_of(const scale& s, const std::vector<const version*>& which);

}  // namespace study
