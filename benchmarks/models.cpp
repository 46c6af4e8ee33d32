// Whole models: a training step, encoding a source, one decode step. The argument is the number of
// threads.

#include <benchmark/benchmark.h>

#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

namespace {

using T5 = ln::zoo::t5_mini_kv32;
constexpr ln::index batch = 8, source = 128, target = 32;

template <class M>
ln::weights<M> random_weights() {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  return w;
}

void t5_mini_training_step(benchmark::State& state) {
  auto w = random_weights<T5>();
  auto train = ln::trainer<T5>::open(w, {.batch = batch,
                                         .source = source,
                                         .target = target,
                                         .threads = static_cast<int>(state.range(0))});
  const std::vector<ln::token> from(batch * source, 5), to(batch * target, 7);
  for (auto _ : state) train->step({from.data(), nullptr, to.data(), batch, source, target});
  state.counters["tokens/s"] =
      benchmark::Counter(batch * (source + target), benchmark::Counter::kIsIterationInvariantRate);
}

template <class S>
void t5_mini_encoder(benchmark::State& state) {
  using M = ln::quantized<T5, S>;
  const auto w = random_weights<T5>();
  const auto packed = ln::pack(ln::quantize<S>(w));
  auto run = ln::session<M>::open(
      packed, {.source = source, .target = target, .threads = static_cast<int>(state.range(0))});
  const std::vector<ln::token> from(source, 5);
  for (auto _ : state) run->encode(from);
}

template <class S>
void t5_mini_decode_step(benchmark::State& state) {
  using M = ln::quantized<T5, S>;
  const auto w = random_weights<T5>();
  const auto packed = ln::pack(ln::quantize<S>(w));
  auto run = ln::session<M>::open(
      packed, {.source = source, .target = 64, .threads = static_cast<int>(state.range(0))});
  const std::vector<ln::token> from(source, 5);
  run->encode(from);
  const ln::token t = 3;
  for (auto _ : state) {
    if (run->position() == run->capacity()) run->truncate(1);
    benchmark::DoNotOptimize(run->feed({&t, 1}).data());
  }
}

}  // namespace

BENCHMARK(t5_mini_training_step)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(t5_mini_encoder<ln::storage::f32>)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(t5_mini_encoder<ln::storage::int8>)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(t5_mini_decode_step<ln::storage::f32>)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(t5_mini_decode_step<ln::storage::int8>)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
