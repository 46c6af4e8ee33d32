// SPDX-License-Identifier: MIT
// How times grow with the batch, the sequence and the width: a Llama of four layers and a
// vocabulary of 512, in f32 on one thread.

#include <linnet/model/decoder.hpp>

#include "counters.hpp"

namespace bench::scaling {
namespace ln = linnet;

namespace {

template <ln::index Width>
inline constexpr ln::decoder_shape shape{.d_model = Width,
                                         .d_ff = 3 * Width,
                                         .heads = Width / 32,
                                         .kv_heads = Width / 32,
                                         .layers = 4,
                                         .vocabulary = 512,
                                         .context = 2048};

template <ln::index Width>
void prefill(benchmark::State& state) {
  using M = ln::decoder<shape<Width>>;
  const works::sizes s{.batch = state.range(0), .source = state.range(1)};
  const auto weights = works::deploy<M>(works::random_weights<M>());
  works::prefill<M> work(weights, s);
  counters::time(state, work, work.of(s), 1);
}

template <ln::index Width>
void decode(benchmark::State& state) {
  using M = ln::decoder<shape<Width>>;
  const works::sizes s{.batch = state.range(0), .source = state.range(1), .target = 32};
  const auto weights = works::deploy<M>(works::random_weights<M>());
  works::decode<M> work(weights, s);
  counters::time(state, work, work.of(s), 1, static_cast<double>(s.target));
}

void by_the_clock(benchmark::internal::Benchmark* b) {
  b->ArgNames({"batch", "length"})->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace

BENCHMARK(prefill<256>)->ArgsProduct({{1, 4, 16}, {128}})->Apply(by_the_clock);
BENCHMARK(decode<256>)->ArgsProduct({{1, 4, 16}, {128}})->Apply(by_the_clock);
BENCHMARK(prefill<256>)->ArgsProduct({{1}, {32, 512, 2048}})->Apply(by_the_clock);
BENCHMARK(decode<256>)->ArgsProduct({{1}, {32, 512, 2000}})->Apply(by_the_clock);
BENCHMARK(prefill<64>)->Args({1, 128})->Apply(by_the_clock);
BENCHMARK(decode<64>)->Args({1, 128})->Apply(by_the_clock);
BENCHMARK(prefill<1024>)->Args({1, 128})->Apply(by_the_clock);
BENCHMARK(decode<1024>)->Args({1, 128})->Apply(by_the_clock);

}  // namespace bench::scaling
