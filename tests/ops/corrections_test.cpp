// SPDX-License-Identifier: MIT
// Codes with corrections: rounding keeps what it says, products add them at every level.

#include "support/matrix.hpp"

namespace test::corrections_test {

namespace {

namespace storage = ln::storage;
using four = storage::int4<8>;

/// Numbers of rank up to `rank` in the factors, which rounding to nearest leaves 0.
template <class S>
void fill(matrix<float, S>& w, index n, index k) {
  if constexpr (requires { w.canonical.correction.left; }) {
    using V = typename S::correction::value;
    const index rank = S::correction::width(k);
    const auto left = normal<double>(n * rank, 11), right = normal<double>(rank * k, 12);
    for (index i = 0; i < n * rank; ++i)
      w.canonical.correction.left.data[i] = V::encode(left[at(i)]);
    for (index i = 0; i < rank * k; ++i)
      w.canonical.correction.right.data[i] = V::encode(right[at(i)]);
    w.pack(n, k);
  }
}

/// The sizes of what codes and corrections add to W.
struct matrix_of_magnitudes {
  std::vector<double> of;

  template <class S>
  matrix_of_magnitudes(const matrix<float, S>& w, index n, index k) {
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < k; ++j) {
        double more = 0;
        if constexpr (ln::is_corrected<S>) more = w.canonical.correction.at(i, j, k);
        of.push_back(std::abs(w.canonical.at(i, j, k) - more) + std::abs(more));
        if constexpr (requires { w.canonical.correction.left; })
          for (index c = 0; c < S::correction::width(k); ++c)
            of.back() += std::abs(w.canonical.correction.left.at(i, c, S::correction::width(k)) *
                                  w.canonical.correction.right.at(c, j, k));
      }
  }
};

/// y = alpha x W^T + bias, or added to what is there, for one row and many, one thread and many.
template <class S>
void check_products() {
  for (const auto& size_of : std::initializer_list<std::array<index, 3>>{
           {1, 33, 40}, {1, 5, 3}, {7, 31, 129}, {13, 65, 40}, {230, 70, 65}}) {
    const index m = size_of[0], n = size_of[1], k = size_of[2];
    matrix<float, S> w(n, k, 1);
    fill(w, n, k);
    const matrix_of_magnitudes size(w, n, k);
    check_sums(w, m, n, k, size.of, size.of, {1, 2, 3});
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(corrections)

BOOST_AUTO_TEST_CASE(products) {
  check_products<storage::outlier_columns<four, 3>>();
  check_products<storage::outlier_columns<storage::q4_1, 40, storage::bf16>>();
  check_products<storage::outlier_columns<storage::nf4, 5, storage::f32>>();
  check_products<storage::sparse_outliers<storage::int3<>, 3>>();
  check_products<storage::sparse_outliers<four, 35, storage::f32>>();
  check_products<storage::low_rank_correction<four, 4>>();
  check_products<storage::low_rank_correction<storage::int8, 37, storage::bf16>>();
  check_products<storage::int4<8, storage::symmetry::asymmetric>>();
  check_products<storage::int3<0, storage::symmetry::asymmetric>>();
  check_products<storage::nf4_double_per<8>>();
  check_products<storage::spqr<2>>();
  check_products<storage::sparse_outliers<storage::spqr<3>, 3>>();
  check_products<storage::outlier_columns<storage::nf4_double, 2>>();
}

/// With inputs in int8 a token alone has the bits that it has among others.
template <class Stored>
void check_alone() {
  using S = storage::with_compute<Stored, ln::compute::int8>;
  constexpr index m = 13, n = 40, k = 65;
  matrix<float, S> w(n, k, 1);
  fill(w, n, k);
  const auto x = normal<float>(m * k, 2);
  std::vector<std::byte> scratch(at(ln::ops::converted_bytes<S>(m, k, n, 1, false)));
  for (const auto level : levels()) {
    const ln::ops::execution on{{}, level, scratch.data()};
    std::vector<float> all(at(m * n)), one(at(m * n));
    ln::ops::matmul(on, m, n, k, x.data(), w.packed, all.data());
    for (index i = 0; i < m; ++i)
      ln::ops::matmul(on, 1, n, k, x.data() + i * k, w.packed, one.data() + i * n);
    BOOST_TEST(same_bits(all, one), S::name << ' ' << ln::simd::name(level));
  }
}
BOOST_AUTO_TEST_CASE(a_token_alone) {
  check_alone<storage::outlier_columns<four, 3>>();
  check_alone<storage::sparse_outliers<four, 3>>();
  check_alone<storage::outlier_columns<storage::int4<8, storage::symmetry::asymmetric>, 3>>();
  check_alone<storage::low_rank_correction<storage::int8, 5>>();
}

/// What is kept is exact in f32; the scales of the rest do not see it.
BOOST_AUTO_TEST_CASE(rounding_keeps_the_largest) {
  constexpr index n = 6, k = 24;
  auto values = normal<double>(n * k, 7);
  for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  for (index i = 0; i < n; ++i) {
    values[at(i * k + 5)] = 100 + static_cast<double>(i);
    values[at(i * k + 19)] = i % 2 ? -50 : 0;
  }
  const matrix<float, storage::outlier_columns<four, 2, storage::f32>> columns(n, k, values);
  BOOST_TEST(static_cast<int>(columns.canonical.correction.inputs[0]) == 5);
  BOOST_TEST(static_cast<int>(columns.canonical.correction.inputs[1]) == 19);
  const matrix<float, storage::sparse_outliers<four, 2, storage::f32>> sparse(n, k, values);
  auto rest = values;
  for (index i = 0; i < n; ++i) rest[at(i * k + 5)] = rest[at(i * k + 19)] = 0;
  const matrix<float, four> plain(n, k, rest);
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      const auto v = at(i * k + j);
      const bool kept = j == 5 || j == 19;
      BOOST_TEST(columns.meaning[v] == (kept ? values[v] : plain.meaning[v]));
      if (i % 2 || j == 5) BOOST_TEST(sparse.meaning[v] == (kept ? values[v] : plain.meaning[v]));
    }
  const std::vector<double> zeros(at(n * k));
  const matrix<float, storage::sparse_outliers<four, 2>> nothing(n, k, zeros);
  BOOST_TEST(nothing.meaning == zeros, boost::test_tools::per_element());
  const matrix<float, storage::outlier_columns<four, 100, storage::f32>> all(n, k, values);
  BOOST_TEST(all.meaning == values, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(bytes_and_names) {
  static_assert(ln::matrix_bytes<storage::outlier_columns<four, 3>>(5, 16) ==
                5 * (8 + 2 * 4 + 3 * 2) + 3 * 2);
  static_assert(ln::matrix_bytes<storage::outlier_columns<four, 3, storage::f32>>(5, 2) ==
                5 * (1 + 4 + 2 * 4) + 2 * 2);
  static_assert(ln::matrix_bytes<storage::sparse_outliers<four, 3>>(5, 16) ==
                5 * (8 + 2 * 4 + 3 * (2 + 2)));
  static_assert(ln::matrix_bytes<storage::low_rank_correction<four, 3>>(5, 16) ==
                5 * (8 + 2 * 4) + 3 * (5 + 16) * 2);
  // 3 bits of a code, (3 + 3) / 16 of scale and zero point, 64 / 256 of their scales, 32 of an
  // outlier.
  static_assert(8 * ln::matrix_bytes<storage::sparse_outliers<storage::spqr<3>, 8>>(64, 1024) ==
                64 * (1024 * 3 + 1024 * 6 / 16 + 1024 * 64 / 256 + 8 * 32));
  static_assert(ln::matrix_bytes<storage::nf4_double>(512, 2048) ==
                512 * 1024 + 512 * 32 + 4 * 64 + 4);
  BOOST_TEST(std::string((storage::outlier_columns<four, 12>::name)) ==
             "int4_outlier_columns_12_f16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::corrections_test
