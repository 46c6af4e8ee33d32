// SPDX-License-Identifier: MIT
// What choosing the kernels at run time costs: the same works built with the default flags and with
// -march=native, in one program and in turns. Prints the median time of each and of the quotients
// of neighbouring times. Started as bench_dispatch [ROUNDS [NAME]], NAME a part of works' names.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "side.hpp"

alignas(4096) std::byte common_memory[common_size];

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
    const medians found = in_turns(one, other, rounds);
    worst = (std::max)(worst, found.quotient);
    std::printf("%-40s %12.2f %14.2f %10.3f\n", one.name.c_str(), 1e6 * found.one,
                1e6 * found.other, found.quotient);
    std::fflush(stdout);
  }
  std::printf("the largest quotient: %.3f\n", worst);
}
