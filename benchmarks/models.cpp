// SPDX-License-Identifier: MIT
// Whole models, per storage type and number of threads: encoding, prefill, decoding (the time of
// one token), and a training step in f32.

#include <linnet/model/presets.hpp>

#include "counters.hpp"

namespace bench::models {
namespace ln = linnet;

namespace {

using t5_mini = ln::zoo::t5_mini_kv32;
using stlm = ln::zoo::stlm_50m;
using stories = ln::zoo::stories260k;

template <class M, class S>
void encode(benchmark::State& state) {
  using Deployed = ln::quantized<M, S>;
  const works::sizes s{.threads = static_cast<int>(state.range(0))};
  const auto weights = works::deploy<Deployed>(works::random_weights<M>());
  works::encode<Deployed> work(weights, s);
  counters::time(state, work, work.of(s), s.threads);
}

template <class M, class S>
void prefill(benchmark::State& state) {
  using Deployed = ln::quantized<M, S>;
  const works::sizes s{.threads = static_cast<int>(state.range(0))};
  const auto weights = works::deploy<Deployed>(works::random_weights<M>());
  works::prefill<Deployed> work(weights, s);
  counters::time(state, work, work.of(s), s.threads);
}

template <class M, class S>
void decode(benchmark::State& state) {
  using Deployed = ln::quantized<M, S>;
  const works::sizes s{.threads = static_cast<int>(state.range(0))};
  const auto weights = works::deploy<Deployed>(works::random_weights<M>());
  works::decode<Deployed> work(weights, s);
  counters::time(state, work, work.of(s), s.threads, static_cast<double>(s.target));
}

template <class M>
void train(benchmark::State& state) {
  const bool t5 = works::encodes<M>;
  const works::sizes s{.batch = t5 ? 8 : 2,
                       .source = t5 ? 128 : 256,
                       .target = 32,
                       .threads = static_cast<int>(state.range(0))};
  auto weights = works::random_weights<M>();
  works::train<M> work(weights, s);
  counters::time(state, work, work.of(s), s.threads);
}

}  // namespace

#define EACH_STORAGE(work, model)                                    \
  BENCHMARK(work<model, ln::storage::f32>)->Apply(counters::usual);  \
  BENCHMARK(work<model, ln::storage::bf16>)->Apply(counters::usual); \
  BENCHMARK(work<model, ln::storage::int8>)->Apply(counters::usual)

EACH_STORAGE(encode, t5_mini);
EACH_STORAGE(decode, t5_mini);
EACH_STORAGE(prefill, stlm);
EACH_STORAGE(decode, stlm);
EACH_STORAGE(decode, stories);
BENCHMARK(train<t5_mini>)->Apply(counters::usual);
BENCHMARK(train<stlm>)->Apply(counters::usual);

}  // namespace bench::models
