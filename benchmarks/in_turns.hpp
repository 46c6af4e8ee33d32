// SPDX-License-Identifier: MIT
#pragma once
// Two works that are timed in turns, so that what changes on the machine meanwhile changes both.

#include <time.h>

#include <algorithm>
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

/// Processor seconds of this thread: what others do on this machine counts little.
inline double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
inline double seconds_of(const timed& work) {
  work.prepare();
  const double start = thread_seconds();
  work.run();
  return (thread_seconds() - start) / work.times;
}
inline double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

/// Medians of seconds, and of the quotients of neighbouring times.
struct medians {
  double one = 0, other = 0, quotient = 0;
};
/// Those of so many rounds; each work goes first in every second one.
inline medians in_turns(const timed& one, const timed& other, int rounds) {
  std::vector<double> ones, others, quotients;
  for (int round = -1; round < rounds; ++round) {
    double a = 0, b = 0;
    if (round % 2 == 0) a = seconds_of(one);
    b = seconds_of(other);
    if (round % 2 != 0) a = seconds_of(one);
    if (round < 0) continue;  // the first time of all is no measurement
    ones.push_back(a), others.push_back(b), quotients.push_back(a / b);
  }
  return {median(ones), median(others), median(quotients)};
}
