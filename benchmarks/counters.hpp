// SPDX-License-Identifier: MIT
#pragma once
// What results say beside their times: rates, and how near they come to this machine's limits.

#include <benchmark/benchmark.h>

#include <map>
#include <utility>

#include "works.hpp"

namespace counters {

/// Gop/s of products from registers, measured once.
inline double highest(machine::type t, int threads) {
  static std::map<std::pair<machine::type, int>, double> known;
  double& value = known[{t, threads}];
  if (value == 0) value = machine::best_of(3, [&] { return machine::peak(t, threads); });
  return value;
}
/// GB/s of reading a working set, measured once.
inline double bandwidth(double bytes, int threads) {
  static std::map<std::pair<double, int>, double> known;
  double& value = known[{bytes, threads}];
  if (value == 0)
    value = machine::best_of(3, [&] { return machine::read_bandwidth(bytes, threads); });
  return value;
}

/// The time that the iterations of a benchmark take, each of them on the clock.
class clock {
 public:
  explicit clock(const benchmark::State& state) : state_(state) {}
  /// Seconds of one iteration so far; called behind the loop.
  double seconds() const {
    return (machine::now() - start_) / static_cast<double>(state_.iterations());
  }

 private:
  const benchmark::State& state_;
  double start_ = machine::now();
};

/// GFLOP/s of an iteration that takes `seconds`, and their part of the peak in `type`.
inline void products(benchmark::State& state, double flops, double seconds, int threads = 1,
                     machine::type type = machine::type::f32) {
  const double rate = 1e-9 * flops / seconds;
  state.counters["GFLOP/s"] = rate;
  if (const double best = highest(type, threads); best > 0) state.counters["of_peak"] = rate / best;
}
/// The part of the bandwidth of reading a working set of `bytes`, of an iteration that reads it
/// once in `seconds`.
inline void reads(benchmark::State& state, double bytes, double seconds, int threads = 1) {
  state.counters["of_bandwidth"] = 1e-9 * bytes / seconds / bandwidth(bytes, threads);
}

/// Times a work of works.hpp. A run makes `passes` over the weights; times are of one of them.
template <class Work>
void time(benchmark::State& state, Work& work, const works::cost& cost, int threads,
          double passes = 1) {
  double all = 0;
  for (auto _ : state) {
    work.prepare();
    const double start = machine::now();
    work();
    const double seconds = (machine::now() - start) / passes;
    state.SetIterationTime(seconds);
    all += seconds;
  }
  const double seconds = all / static_cast<double>(state.iterations());
  products(state, cost.flops / passes, seconds, threads);
  if (cost.bytes > 0) reads(state, cost.bytes / passes, seconds, threads);
  state.counters["tokens/s"] = cost.tokens / passes / seconds;
}

/// How works are timed: one and two threads, by the clock.
inline void usual(benchmark::internal::Benchmark* b) {
  b->ArgName("threads")->Arg(1)->Arg(2)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace counters
