// SPDX-License-Identifier: MIT
// The machine's limits: products from registers per type, and reading of each level of memory.

#include "counters.hpp"

namespace bench::limits {

namespace {

template <machine::type T>
void products(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  double best = 0;
  for (auto _ : state) best = std::max(best, machine::peak(T, threads));
  if (best == 0) state.SkipWithError("this processor has no such instruction");
  state.counters["Gop/s"] = best;
}

/// Level 1 to 3 of the caches; 4 is the memory.
void reading(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(1));
  const double bytes = machine::working_set(static_cast<int>(state.range(0)), threads);
  double best = 0;
  for (auto _ : state) best = std::max(best, machine::read_bandwidth(bytes, threads));
  state.counters["MB"] = 1e-6 * bytes;
  state.counters["GB/s"] = best;
}

/// The time of an iteration is that of the measurement and says nothing.
void sampled(benchmark::internal::Benchmark* b) { b->Iterations(7)->Unit(benchmark::kMillisecond); }

}  // namespace

BENCHMARK(products<machine::type::f32>)->ArgName("threads")->Arg(1)->Arg(2)->Apply(sampled);
BENCHMARK(products<machine::type::bf16>)->ArgName("threads")->Arg(1)->Arg(2)->Apply(sampled);
BENCHMARK(products<machine::type::int8>)->ArgName("threads")->Arg(1)->Arg(2)->Apply(sampled);
BENCHMARK(reading)
    ->ArgNames({"level", "threads"})
    ->ArgsProduct({{1, 2, 3, 4}, {1, 2}})
    ->Apply(sampled);

}  // namespace bench::limits
