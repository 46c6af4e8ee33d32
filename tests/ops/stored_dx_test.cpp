// SPDX-License-Identifier: MIT
// The derivative of products by their inputs, from panels of any storage.

#include "support/matrix.hpp"

namespace test::stored_dx_test {

namespace {

namespace storage = ln::storage;

/// dx += 3/4 dy W against sums in double, with the bits of one thread on three.
template <class T, class S>
void check() {
  constexpr index shapes[][3] = {{1, 5, 3}, {7, 31, 129}, {13, 165, 40}, {230, 70, 65}};
  for (const auto& shape : shapes) {
    const index m = shape[0], n = shape[1], k = shape[2];
    const matrix<T, S> w(n, k, 1);
    const auto frozen = ln::ops::frozen_matrix(w.packed);
    const auto dy = normal<T>(m * n, 2), start = normal<T>(m * k, 3);
    for (const auto level : levels()) {
      std::vector<T> first;
      for (const int threads : {1, 3}) {
        auto dx = start;
        on_machine(threads, level, [&](const ln::ops::execution& on) {
          ln::ops::matmul_dx(on, m, n, k, dy.data(), frozen, dx.data(), T(0.75));
        });
        if (threads == 1) first = dx;
        BOOST_TEST(same_bits(dx, first), S::name);
      }
      double worst = 0;
      for (index i = 0; i < m; ++i)
        for (index j = 0; j < k; ++j) {
          double sum = static_cast<double>(start[at(i * k + j)]), terms = std::abs(sum);
          for (index r = 0; r < n; ++r) {
            const double term =
                0.75 * static_cast<double>(dy[at(i * n + r)]) * w.meaning[at(r * k + j)];
            sum += term;
            terms += std::abs(term);
          }
          const double allowed = (static_cast<double>(n) + 8) * epsilon<T> * terms;
          worst = (std::max)(worst, distance_of(first[at(i * k + j)], sum) / allowed);
        }
      BOOST_TEST(worst <= 1, S::name << " m " << m << " n " << n << " k " << k << ": " << worst);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stored_dx)

BOOST_AUTO_TEST_CASE(numbers) {
  check<double, storage::f64>();
  check<float, storage::f32>();
  check<float, storage::bf16>();
  check<float, storage::f16>();
}
BOOST_AUTO_TEST_CASE(codes) {
  check<float, storage::int8>();
  check<float, storage::with_compute<storage::int8, ln::compute::int8>>();
  check<float, storage::int4<8>>();
  check<float, storage::int3<32, storage::symmetry::asymmetric>>();
  check<float, storage::nf4_double_per<8>>();
  check<float, storage::q4_1>();
  check<float, storage::ternary>();
}
BOOST_AUTO_TEST_CASE(beside_codes) {
  check<float, storage::outlier_columns<storage::int4<8>, 3>>();
  check<float, storage::low_rank_correction<storage::int8, 4>>();
  check<float, storage::n_of_m<storage::int4<8>, 2, 4>>();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::stored_dx_test
