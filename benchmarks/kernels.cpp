// The matrix product at the zoo's shapes, per storage type: GFLOP/s of one thread.

#include <benchmark/benchmark.h>

#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

namespace {

// y[M, N] = x[M, K] W^T with weights stored as S.
template <class S>
void product(benchmark::State& state) {
  const ln::index m = state.range(0), n = state.range(1), k = state.range(2);
  using matrix = ln::ops::packed_matrix<float, S>;
  std::vector<typename S::value> panels(static_cast<std::size_t>(matrix::size(n, k)), S::encode(1));
  std::vector<float> scales(static_cast<std::size_t>(n), 1.0f),
      x(static_cast<std::size_t>(m * k), 0.5f), y(static_cast<std::size_t>(m * n));
  const matrix w{panels.data(), scales.data(), nullptr};
  const ln::ops::machine on{ln::team{}, ln::simd::best()};
  for (auto _ : state) {
    ln::ops::matmul(on, m, n, k, x.data(), w, y.data());
    benchmark::ClobberMemory();
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(m * n * k),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({128, 384, 384})->Args({128, 1536, 384})->Args({128, 384, 1536})->Args({512, 1536, 512});
  b->Args({1, 384, 384})->Args({1, 1536, 384})->Args({1, 32128, 384});
}

}  // namespace

BENCHMARK(product<ln::storage::f32>)->Apply(shapes);
BENCHMARK(product<ln::storage::bf16>)->Apply(shapes);
BENCHMARK(product<ln::storage::int8>)->Apply(shapes);
