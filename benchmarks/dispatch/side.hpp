#pragma once
// What one build of side.cpp offers to main.cpp.

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

/// Sets up a work when its turn comes.
using maker = timed (*)();

std::vector<maker> works_of_default_flags();
std::vector<maker> works_of_march_native();
