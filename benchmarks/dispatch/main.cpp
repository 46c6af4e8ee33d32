// SPDX-License-Identifier: MIT
// What choosing the kernels at run time costs: the same works built with the default flags and with
// -march=native, in one program and in turns. Prints the median time of each and of the quotients
// of neighbouring times. Started as bench_dispatch [ROUNDS [NAME]], NAME a part of works' names.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "side.hpp"

alignas(4096) std::byte common_memory[common_size];

namespace {

/// Processor seconds of this thread: what others do on this machine counts little.
double now() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double seconds_of(const timed& work) {
  work.prepare();
  const double start = now();
  work.run();
  return (now() - start) / work.times;
}

double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

}  // namespace

int main(int count, char** argument) {
  const int rounds = count > 1 ? std::atoi(argument[1]) : 301;
  const std::string wanted = count > 2 ? argument[2] : "";
  if (count > 3 || rounds < 1)
    return std::fputs("usage: bench_dispatch [ROUNDS [NAME]]\n", stderr), 2;

  const std::vector<maker> plain = works_of_default_flags(), native = works_of_march_native();
  std::printf("%-40s %12s %14s %10s\n", "one thread, microseconds", "default", "-march=native",
              "quotient");
  double worst = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const timed one = plain[i](), other = native[i]();
    if (one.name.find(wanted) == one.name.npos) continue;
    std::vector<double> ones, others, quotients;
    for (int round = -1; round < rounds; ++round) {
      // Each goes first in every second round.
      double a = 0, b = 0;
      if (round % 2 == 0) a = seconds_of(one);
      b = seconds_of(other);
      if (round % 2 != 0) a = seconds_of(one);
      if (round < 0) continue;  // the first time of all is no measurement
      ones.push_back(a), others.push_back(b), quotients.push_back(a / b);
    }
    const double quotient = median(quotients);
    worst = (std::max)(worst, quotient);
    std::printf("%-40s %12.2f %14.2f %10.3f\n", one.name.c_str(), 1e6 * median(ones),
                1e6 * median(others), quotient);
    std::fflush(stdout);
  }
  std::printf("the largest quotient: %.3f\n", worst);
}
