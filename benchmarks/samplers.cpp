// SPDX-License-Identifier: MIT
// What choosing a token costs: every sampler at the vocabularies of small models, of Llama and of
// GPT-2, on laws from flat to steep (the deviation of the logits).

#include <benchmark/benchmark.h>
#include <linnet/generate/samplers.hpp>

#include <vector>

namespace bench::samplers {

namespace ln = linnet;

namespace {

void choose(benchmark::State& state, auto sampler) {
  std::vector<float> logits(static_cast<std::size_t>(state.range(0))), row;
  std::vector<ln::token> scratch(logits.size()), so_far(256);
  ln::random_stream random(ln::seed{1});
  for (float& l : logits)
    l = static_cast<float>(static_cast<double>(state.range(1)) * random.normal());
  for (ln::token& t : so_far)
    t = static_cast<ln::token>(random.below(static_cast<std::uint32_t>(logits.size())));
  for (auto _ : state) {
    row = logits;  // samplers may overwrite them; a copy is a fiftieth of the time
    benchmark::DoNotOptimize(ln::detail::choose_token(sampler, std::span(row), std::span(scratch),
                                                      std::span<const ln::token>(so_far)));
  }
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgsProduct({{512, 32'000, 50'257}, {1, 3}})->Unit(benchmark::kMicrosecond);
}

}  // namespace

#define SAMPLER(name, ...) BENCHMARK_CAPTURE(choose, name, __VA_ARGS__)->Apply(sizes)

SAMPLER(greedy, ln::greedy{});
SAMPLER(temperature, ln::sampler({.temperature = 0.8}));
SAMPLER(top_k_40, ln::sampler({.temperature = 0.8, .top_k = 40}));
SAMPLER(top_p_90, ln::sampler({.temperature = 0.8, .top_p = 0.9}));
SAMPLER(min_p_5, ln::sampler({.temperature = 0.8, .min_p = 0.05}));
SAMPLER(penalty, ln::sampler({.temperature = 0.8, .repetition_penalty = 1.1}));
SAMPLER(all, ln::sampler({.temperature = 0.8,
                          .top_k = 40,
                          .top_p = 0.95,
                          .min_p = 0.05,
                          .repetition_penalty = 1.1}));

}  // namespace bench::samplers
