// SPDX-License-Identifier: MIT
#pragma once
// What one build of side.cpp offers to main.cpp.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

/// A work that is timed again and again.
struct timed {
  std::string name;
  int times = 1;  ///< how often one run does what `name` says
  std::function<void()> run;
  std::function<void()> prepare = [] {};  ///< comes before each run and is not timed
};

/// Memory that the works of both builds use in turns: which pages it has decides what caches do.
inline constexpr std::size_t common_size = std::size_t{4} << 20;
extern std::byte common_memory[common_size];

/// Sets up a work when its turn comes.
using maker = timed (*)();

std::vector<maker> works_of_default_flags();
std::vector<maker> works_of_march_native();
