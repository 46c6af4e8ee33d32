// SPDX-License-Identifier: MIT
#pragma once
// What the paper's whole run would take on this machine.

#include "jobs.hpp"

namespace study {

struct cost_options {
  int threads = 1;
  ln::index batch = 2;     ///< windows at a time
  ln::index length = 512;  ///< tokens of a window
  int repetitions = 3;
};

/// Measures training steps of a version in Table 1's shape, on random tokens, and prints speed,
/// memory and the time of the whole run.
void print_cost(const version& v, const cost_options& o);

}  // namespace study
