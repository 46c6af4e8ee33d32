// SPDX-License-Identifier: MIT
// Hadamard transforms: orthogonal, flat, the same at all levels, and their transpose the way back.

#include <linnet/compression.hpp>

#include "support/test.hpp"

namespace test::hadamard_test {

namespace {

/// The matrix that rows of n numbers are multiplied by.
template <class T>
std::vector<T> matrix_of(ln::simd::level level, index n, bool transposed) {
  std::vector<T> h(at(n * n), T(0));
  for (index i = 0; i < n; ++i) {
    h[at(i * n + i)] = 1;
    ln::ops::hadamard_row(level, n, h.data() + i * n, transposed);
  }
  return h;
}

BOOST_AUTO_TEST_SUITE(hadamard)

BOOST_AUTO_TEST_CASE(orders_of_models) {
  const auto order = [](index n) { return ln::ops::hadamard_order::of(n); };
  for (const index whole : {1, 2, 4, 12, 20, 24, 28, 36, 64, 192, 384, 576, 768, 1536, 2048, 5120})
    BOOST_TEST(order(whole).block == whole, whole);
  BOOST_TEST(order(172).block == 4);  // 43 blocks
  BOOST_TEST(order(7).block == 1);
  BOOST_TEST(order(60).block == 20);
  BOOST_TEST(order(576).base == 36);
  BOOST_TEST(order(1536).base == 12);
  BOOST_TEST(order(2048).base == 16);
}

BOOST_AUTO_TEST_CASE(matrices_are_hadamard) {
  for (const auto level : levels())
    for (const index n : {1, 2, 4, 8, 16, 32, 12, 20, 28, 36, 24, 40, 56, 72, 48}) {
      const auto h = matrix_of<double>(level, n, false), back = matrix_of<double>(level, n, true);
      double off = 0, uneven = 0, untransposed = 0;
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < n; ++j) {
          double sum = 0;
          for (index k = 0; k < n; ++k) sum += h[at(i * n + k)] * h[at(j * n + k)];
          off = (std::max)(off, std::abs(sum - (i == j ? 1 : 0)));
          uneven = (std::max)(
              uneven, std::abs(std::abs(h[at(i * n + j)]) * std::sqrt(static_cast<double>(n)) - 1));
          untransposed = (std::max)(untransposed, std::abs(h[at(i * n + j)] - back[at(j * n + i)]));
        }
      BOOST_TEST(off < 1e-14, n << ' ' << off);
      BOOST_TEST(uneven < 1e-14, n << ' ' << uneven);
      BOOST_TEST(untransposed < 1e-15, n << ' ' << untransposed);
    }
}

BOOST_AUTO_TEST_CASE(transposed_is_the_way_back) {
  for (const index n : {64, 172, 576, 1536}) {
    const auto x = normal<float>(3 * n, 9);
    for (const auto level : levels()) {
      auto y = x;
      ln::ops::execution on;
      on.level = level;
      ln::ops::hadamard(on, 3, n, y.data());
      double squares = 0, before = 0;
      for (index j = 0; j < n; ++j) {
        squares += static_cast<double>(y[at(j)]) * static_cast<double>(y[at(j)]);
        before += static_cast<double>(x[at(j)]) * static_cast<double>(x[at(j)]);
      }
      BOOST_TEST(std::abs(squares / before - 1) < 1e-5);
      BOOST_TEST(distance(x, y) > 0.5);
      ln::ops::hadamard(on, 3, n, y.data(), true);
      BOOST_TEST(distance(x, y) < 1e-5, n);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::hadamard_test
