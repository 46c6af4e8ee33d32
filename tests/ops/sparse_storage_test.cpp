// SPDX-License-Identifier: MIT
// Sparse storages: what rounding keeps, and products with it at every level.

#include "support/matrix.hpp"

namespace test::sparse_storage_test {

namespace {

namespace storage = ln::storage;
using storage::bit_mask;
using storage::n_of_m;
using four = storage::int4<8>;

/// y = alpha x W^T + bias, or added to what is there, for one row and many, one thread and many:
/// equal to the product with the matrix that the numbers and zeros stand for.
template <class S>
void check_products() {
  for (const auto& size_of : std::initializer_list<std::array<index, 3>>{
           {1, 33, 200}, {1, 5, 3}, {7, 31, 131}, {101, 40, 261}, {1, 2, 2600}}) {
    const index m = size_of[0], n = size_of[1], k = size_of[2];
    const matrix<float, S> w(n, k, 1);
    std::vector<double> forward, backward;
    for (const double v : w.meaning) {
      forward.push_back(std::abs(v) + 1);
      backward.push_back(std::abs(v));
    }
    check_sums(w, m, n, k, forward, backward, {1, 3});
    matrix<float, S> back_to(n, k, 9);
    ln::ops::unpack(n, k, w.packed, back_to.canonical);
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < k; ++j)
        BOOST_TEST(back_to.canonical.at(i, j, k) == w.meaning[at(i * k + j)]);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sparse_storage)

BOOST_AUTO_TEST_CASE(products) {
  check_products<n_of_m<storage::f32, 2, 4>>();
  check_products<n_of_m<storage::f32, 4, 8>>();
  check_products<n_of_m<storage::bf16, 2, 4>>();
  check_products<n_of_m<storage::int8, 4, 8>>();
  check_products<n_of_m<four, 2, 4>>();
  check_products<n_of_m<storage::int4<64>, 1, 4>>();
  check_products<n_of_m<storage::int3<>, 3, 16>>();
  check_products<n_of_m<storage::q4_1, 2, 3>>();
  check_products<n_of_m<storage::nf4_double_per<8>, 5, 7>>();
  check_products<n_of_m<storage::spqr<3>, 1, 2>>();
}
BOOST_AUTO_TEST_CASE(masked_products) {
  check_products<bit_mask<storage::f32, 50>>();
  check_products<bit_mask<storage::bf16, 10>>();
  check_products<bit_mask<storage::int8, 30>>();
  check_products<bit_mask<four, 50>>();
  check_products<bit_mask<storage::q4_1, 97>>();
  check_products<bit_mask<
      storage::int8_per<storage::granularity::group, storage::symmetry::asymmetric>, 50>>();
}

BOOST_AUTO_TEST_CASE(products_of_blocks) {
  using storage::block_sparse;
  check_products<block_sparse<storage::f32, 32, 16>>();
  check_products<block_sparse<storage::f32, 64, 1, 20>>();
  check_products<block_sparse<storage::bf16, 32, 200, 70>>();
  check_products<block_sparse<four, 32, 8, 30>>();
  check_products<block_sparse<storage::int4<32>, 32, 24>>();
  check_products<block_sparse<storage::q4_1, 32, 32>>();
}

/// Blocks with the largest norms stay, the same ones in rows that share them.
BOOST_AUTO_TEST_CASE(blocks_with_the_largest_norms_stay) {
  constexpr index n = 40, k = 22;
  auto values = normal<double>(n * k, 7);
  for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  for (index j = 0; j < k; ++j) values[at(39 * k + j)] = j < 4 || j >= 20 ? 100 : 1;
  using half = storage::block_sparse<storage::f32, 32, 4>;
  const matrix<float, half> some(n, k, values);
  BOOST_TEST(half::pattern::kept(k) == 12);  // 3 of 6 blocks
  index dropped = 0;
  for (const index r : {index{0}, index{32}}) {
    const index rows = (std::min)(index{32}, n - r);
    std::vector<double> sizes(6);
    for (index i = r; i < r + rows; ++i)
      for (index j = 0; j < k; ++j)
        sizes[at(j / 4)] += values[at(i * k + j)] * values[at(i * k + j)];
    for (index i = r; i < r + rows; ++i)
      for (index j = 0; j < k; ++j) {
        index larger = 0;
        for (index b = 0; b < 6; ++b) larger += sizes[at(b)] > sizes[at(j / 4)];
        BOOST_TEST(some.meaning[at(i * k + j)] == (larger < 3 ? values[at(i * k + j)] : 0.0));
        dropped += larger >= 3;
      }
    if (r > 0)
      BOOST_TEST((some.meaning[at(39 * k)] == 100 && some.meaning[at(39 * k + 21)] == 100));
  }
  BOOST_TEST(half::pattern::dropped(k, values.data(), 32) +
                 half::pattern::dropped(k, values.data() + 32 * k, 8) ==
             dropped);
  BOOST_TEST(half::pattern::dropped(k, some.meaning.data(), 32) == 0);
  const matrix<float, half> again(n, k, some.meaning);
  BOOST_TEST(again.meaning == some.meaning, boost::test_tools::per_element());
}

/// A matrix that is n:m already keeps every number; of others the largest of each group stay.
BOOST_AUTO_TEST_CASE(rounding_keeps_the_largest) {
  constexpr index n = 6, k = 22;
  auto values = normal<double>(n * k, 7);
  for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  using two = n_of_m<storage::f32, 2, 4>;
  const matrix<float, two> some(n, k, values);
  index dropped = 0;
  for (index i = 0; i < n; ++i)
    for (index first = 0; first < k; first += 4) {
      const index size = (std::min)(index{4}, k - first);
      for (index j = first; j < first + size; ++j) {
        index larger = 0;
        for (index l = first; l < first + size; ++l)
          larger += std::abs(values[at(i * k + l)]) > std::abs(values[at(i * k + j)]);
        BOOST_TEST(some.meaning[at(i * k + j)] == (larger < 2 ? values[at(i * k + j)] : 0.0));
      }
      dropped += size - 2;
    }
  index counted = 0;
  for (index i = 0; i < n; ++i) {
    counted += two::pattern::dropped(k, values.data() + i * k);
    BOOST_TEST(two::pattern::dropped(k, some.meaning.data() + i * k) == 0);
  }
  BOOST_TEST(counted == dropped);
  const matrix<float, two> again(n, k, some.meaning);
  BOOST_TEST(again.meaning == some.meaning, boost::test_tools::per_element());
  BOOST_TEST(same_bits(again.rows, some.rows));
  // Scales are those of what is kept.
  const matrix<float, n_of_m<four, 2, 4>> rounded(n, k, values);
  std::vector<double> kept;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j)
      if (some.canonical.kept.find(i, j, k) >= 0) kept.push_back(values[at(i * k + j)]);
  const matrix<float, four> dense(n, 12, kept);
  BOOST_TEST(same_bits(rounded.rows, dense.rows));
  BOOST_TEST(same_bits(rounded.row_scales, dense.row_scales));
}

/// A mask keeps the largest magnitudes of each row, wherever they are; of equal ones the first.
BOOST_AUTO_TEST_CASE(masks_keep_the_largest_of_a_row) {
  constexpr index n = 5, k = 41;
  auto values = normal<double>(n * k, 7);
  for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  for (index j = 0; j < k; ++j) values[at(k + j)] = j % 3 ? -2 : 0;  // 27 of one size
  for (index j = 0; j < k; ++j) values[at(2 * k + j)] = j == 40 || j == 7;
  using third = bit_mask<storage::f32, 30>;
  const matrix<float, third> some(n, k, values);
  const index kept = 13;
  BOOST_TEST(third::pattern::kept(k) == kept);
  for (index i = 0; i < n; ++i) {
    index there = 0;
    for (index j = 0; j < k; ++j) {
      const double v = values[at(i * k + j)], got = some.meaning[at(i * k + j)];
      index before = 0;
      for (index l = 0; l < k; ++l) {
        const double other = std::abs(values[at(i * k + l)]);
        before += other > std::abs(v) || (other >= std::abs(v) && l < j);
      }
      BOOST_TEST(got == (before < kept ? v : 0.0));
      there += got != 0;
    }
    const index nonzero = i == 1 ? 27 : i == 2 ? 2 : k;
    BOOST_TEST(there == (std::min)(nonzero, kept));
    BOOST_TEST(third::pattern::dropped(k, values.data() + i * k) == nonzero - there);
  }
  const matrix<float, third> again(n, k, some.meaning);
  BOOST_TEST(again.meaning == some.meaning, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(bytes_and_names) {
  static_assert(ln::matrix_bytes<bit_mask<storage::f32, 50>>(5, 17) == 5 * (9 * 4 + 3));
  static_assert(ln::matrix_bytes<bit_mask<four, 10>>(5, 160) == 5 * (8 + 2 * 4 + 20));
  BOOST_TEST(std::string(bit_mask<four, 50>::name) == "int4_mask_50");
  static_assert(ln::matrix_bytes<n_of_m<storage::f32, 2, 4>>(5, 16) == 5 * (8 * 4 + 2));
  static_assert(ln::matrix_bytes<n_of_m<storage::bf16, 4, 8>>(5, 18) == 5 * (10 * 2 + 4));
  static_assert(ln::matrix_bytes<n_of_m<storage::int8, 2, 4>>(5, 17) == 5 * (9 + 4 + 3));
  static_assert(ln::matrix_bytes<n_of_m<storage::int4<32>, 2, 4>>(5, 128) == 5 * (32 + 2 * 4 + 16));
  BOOST_TEST((ln::bits_per_weight<n_of_m<storage::int4<32>, 2, 4>>(1536)) == 3.5);
  BOOST_TEST(std::string(n_of_m<four, 2, 4>::name) == "int4_2_of_4");
  BOOST_TEST(std::string(n_of_m<storage::bf16, 10, 16>::name) == "bf16_10_of_16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sparse_storage_test
