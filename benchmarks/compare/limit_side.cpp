// SPDX-License-Identifier: MIT
// The machine's side of a comparison: the time that a work takes at the highest rate of products
// and of reading memory, whichever is longer. Started as limit_side TYPE FLOPS BYTES PASSES
// THREADS: BYTES of weights are read in PASSES equal passes.

#include <cstdio>
#include <string_view>

#include "../machine.hpp"

int main(int count, char** argument) {
  if (count != 6)
    return std::fputs("usage: limit_side TYPE FLOPS BYTES PASSES THREADS\n", stderr), 2;
  const std::string_view name = argument[1];
  const auto type = name == "f32"    ? machine::type::f32
                    : name == "bf16" ? machine::type::bf16
                                     : machine::type::int8;
  const double flops = std::atof(argument[2]), bytes = std::atof(argument[3]),
               passes = std::atof(argument[4]);
  const int threads = std::atoi(argument[5]);
  const machine::memory memory(bytes / passes, threads);
  std::puts("{\"check\": []}");
  std::fflush(stdout);
  for (double seconds = 0; std::scanf("%lf", &seconds) == 1; std::fflush(stdout)) {
    const double peak = machine::peak(type, threads, seconds / 2);
    const double read = machine::read_bandwidth(memory, threads, seconds / 2);
    const double compute = peak > 0 ? 1e-6 * flops / peak : 0, reading = 1e-6 * bytes / read;
    const double ms = std::max(compute, bytes > 0 ? reading : 0);
    std::printf("{\"ms\": [%.9g], \"cpu_ms\": [%.9g], \"gflops\": %.9g, \"read_gbs\": %.9g}\n", ms,
                ms * threads, peak, read);
  }
}
