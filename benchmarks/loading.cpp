// SPDX-License-Identifier: MIT
// From a file to the first token: weights that are loaded and packed, and packed weights that are
// mapped. The files are made where they are missing, beside other temporary files; run one
// benchmark at a time (--benchmark_filter) to see its peak of memory.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

namespace bench::loading {

namespace {

namespace ln = linnet;
using model = ln::zoo::stlm_100m;
using small = ln::quantized<model, ln::storage::int8>;

std::string file(const char* name) {
  return (std::filesystem::temp_directory_path() / name).string();
}
const std::string loaded = file("linnet_loading.safetensors"),
                  mapped = file("linnet_loading.packed");

template <class Result>
void require(const Result& r) {
  if (!r) std::abort();
}
void make_files() {
  if (std::filesystem::exists(loaded) && std::filesystem::exists(mapped)) return;
  ln::weights<model> w;
  ln::initialize(w, ln::seed{1});
  const auto q = ln::quantize<ln::storage::int8>(w);
  require(ln::save_safetensors(q, loaded));
  require(ln::save_packed(ln::pack(q), mapped));
}
/// The first token after a prompt of one.
void first_token(const ln::packed<small>& p) {
  auto s = ln::session<small>::open(p, {.target = 64});
  require(s);
  const ln::token begin = 1;
  benchmark::DoNotOptimize(s->reset_and_prefill({&begin, 1}).data());
}

void load_and_pack(benchmark::State& state) {
  make_files();
  for (auto _ : state) {
    ln::packed<small> p;
    {
      ln::weights<small> w;
      require(ln::load_safetensors(w, loaded));
      p = ln::pack(w);
    }
    first_token(p);
  }
}
BENCHMARK(load_and_pack)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

void map(benchmark::State& state) {
  make_files();
  for (auto _ : state) {
    const auto p = ln::map_packed<small>(mapped);
    require(p);
    first_token(*p);
  }
}
BENCHMARK(map)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

void map_without_a_token(benchmark::State& state) {
  make_files();
  for (auto _ : state) require(ln::map_packed<small>(mapped));
}
BENCHMARK(map_without_a_token)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

}  // namespace

}  // namespace bench::loading
