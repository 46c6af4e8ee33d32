// SPDX-License-Identifier: MIT
// The matrix product at the zoo's shapes, per storage type, on one thread; and its derivatives.

#include "counters.hpp"

namespace bench::kernels {
namespace ln = linnet;

namespace {

std::vector<float> numbers(ln::index count) {
  return std::vector<float>(static_cast<std::size_t>(count), 0.5f);
}

/// y[M, N] = x[M, K] W^T with weights stored as S.
template <class S>
void product(benchmark::State& state) {
  const ln::index m = state.range(0), n = state.range(1), k = state.range(2);
  using matrix = ln::ops::packed_matrix<float, S>;
  const std::vector<typename S::word> panels(static_cast<std::size_t>(matrix::size(n, k)), 1);
  const std::vector<float> scales = numbers(matrix::scales_size(n, k)), x = numbers(m * k);
  std::vector<float> y = numbers(m * n);
  matrix w;
  w.panels = panels.data();
  w.scales = w.zeros = scales.data();
  ln::memory_block places;  // zeros: any place costs the same
  if constexpr (ln::is_sparse<S>) {
    ln::arena count;
    w.kept.place(count, n, k);
    places = ln::memory_block(count.peak());
    ln::arena memory(places.data(), places.size());
    w.kept.place(memory, n, k);
  }
  std::vector<std::byte> converted(
      static_cast<std::size_t>(ln::ops::converted_bytes<S>(m, k, n, 1, false)));
  const ln::ops::execution on{{}, ln::simd::best(), converted.data()};
  const counters::clock clock(state);
  for (auto _ : state) {
    ln::ops::matmul(on, m, n, k, x.data(), w, y.data());
    benchmark::ClobberMemory();
  }
  const double seconds = clock.seconds();
  const auto bytes = static_cast<double>(ln::matrix_bytes<S>(n, k));
  counters::products(state, 2.0 * static_cast<double>(m * n * k), seconds);
  if (m <= 8) counters::reads(state, bytes, seconds);
}

/// dx += dy W and dw += dy^T x: what a backward pass adds.
void derivatives(benchmark::State& state) {
  const ln::index m = state.range(0), n = state.range(1), k = state.range(2);
  using matrix = ln::ops::packed_matrix<float, ln::storage::f32>;
  const std::vector<float> rows = numbers(n * k), x = numbers(m * k), dy = numbers(m * n);
  std::vector<float> dx = numbers(m * k), dw = numbers(n * k);
  const matrix w{nullptr, nullptr, nullptr, rows.data()};
  const ln::ops::execution on{{}, ln::simd::best()};
  const counters::clock clock(state);
  for (auto _ : state) {
    ln::ops::matmul_dx(on, m, n, k, dy.data(), w, dx.data());
    ln::ops::matmul_dw(on, m, n, k, dy.data(), x.data(), dw.data());
    benchmark::ClobberMemory();
  }
  const double seconds = clock.seconds();
  counters::products(state, 4.0 * static_cast<double>(m * n * k), seconds);
}

/// [M, N, K]: T5-Mini's and T5-Small's maps for 1 to 512 tokens, STLM's gate, and T5-Mini's head.
void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime();
  for (const long m : {1, 8, 32, 128, 512}) {
    b->Args({m, 256, 384})->Args({m, 384, 256})->Args({m, 1536, 384})->Args({m, 384, 1536});
    b->Args({m, 512, 512})->Args({m, 2048, 512})->Args({m, 512, 2048});
  }
  b->Args({512, 1536, 512})->Args({1, 32128, 384});
}
/// Matrices beyond the last cache, for one token and a few.
void large_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime();
  for (const long m : {1, 8, 96}) b->Args({m, 2048, 8192})->Args({m, 8192, 8192});
}
void trained_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime();
  b->Args({1024, 256, 384})->Args({1024, 1536, 384})->Args({1024, 384, 1536});
  b->Args({512, 1536, 512})->Args({512, 512, 1536})->Args({64, 32128, 384});
}

using bf16_bf16 = ln::storage::with_compute<ln::storage::bf16, ln::compute::bf16>;
template <class S>
using two_of_four = ln::storage::n_of_m<S, 2, 4>;
using int8_int8 = ln::storage::with_compute<ln::storage::int8, ln::compute::int8>;

}  // namespace

BENCHMARK(product<ln::storage::f32>)->Apply(shapes);
BENCHMARK(product<bf16_bf16>)->Apply(shapes);
BENCHMARK(product<int8_int8>)->Apply(shapes);
BENCHMARK(product<ln::storage::bf16>)->Apply(shapes);
BENCHMARK(product<ln::storage::int8>)->Apply(shapes);
BENCHMARK(product<ln::storage::f16>)->Apply(shapes);
BENCHMARK(product<ln::storage::fp8_e4m3>)->Apply(shapes);
BENCHMARK(product<ln::storage::int4<32>>)->Apply(shapes);
BENCHMARK(product<ln::storage::nf4>)->Apply(shapes);
// Side by side: dense and 2:4.
BENCHMARK(product<ln::storage::f32>)->Apply(large_shapes);
BENCHMARK(product<two_of_four<ln::storage::f32>>)->Apply(large_shapes);
BENCHMARK(product<ln::storage::bf16>)->Apply(large_shapes);
BENCHMARK(product<two_of_four<ln::storage::bf16>>)->Apply(large_shapes);
BENCHMARK(product<ln::storage::int8>)->Apply(large_shapes);
BENCHMARK(product<two_of_four<ln::storage::int8>>)->Apply(large_shapes);
BENCHMARK(product<ln::storage::int4<32>>)->Apply(large_shapes);
BENCHMARK(product<two_of_four<ln::storage::int4<32>>>)->Apply(large_shapes);
BENCHMARK(derivatives)->Apply(trained_shapes);

}  // namespace bench::kernels
