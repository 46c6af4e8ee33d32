// SPDX-License-Identifier: MIT
// Positions: T5's buckets against the published table and formula, rotary embeddings by their
// defining property, sinusoids.

#include <array>

#include "support/test.hpp"

namespace test::position_test {

namespace {

/// First distance of each bucket, as T5 with 32 buckets and maximal distance 128 has them.
constexpr std::array<int, 16> bidirectional{0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
constexpr std::array<int, 32> causal{0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                     11, 12, 13, 14, 15, 16, 19, 21, 24, 27, 31,
                                     35, 40, 46, 52, 59, 67, 77, 87, 99, 113};

/// The last entry of the table that does not exceed the distance.
template <std::size_t N>
index by_table(const std::array<int, N>& table, index distance) {
  index bucket = 0;
  for (std::size_t i = 0; i < N; ++i)
    if (table[i] <= distance) bucket = static_cast<index>(i);
  return bucket;
}

/// The formula of Mesh TensorFlow and Hugging Face, with logarithms, for any numbers.
index by_formula(index relative, bool both, index buckets, index max_distance) {
  const index base = both && relative > 0 ? buckets / 2 : 0;
  const index n = both ? buckets / 2 : buckets, exact = n / 2;
  const index distance = both ? std::abs(relative) : (std::max)(-relative, index{0});
  if (distance < exact) return base + distance;
  const auto ratio = static_cast<double>(distance) / static_cast<double>(exact);
  const auto range = static_cast<double>(max_distance) / static_cast<double>(exact);
  const double step = std::log(ratio) / std::log(range) * static_cast<double>(n - exact);
  return base + (std::min)(n - 1, exact + static_cast<index>(
                                              step + 1e-9));  // exact powers do not round down
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(position)

// Both directions, all distances up to 200, against the table.
BOOST_AUTO_TEST_CASE(t5_buckets_are_the_table) {
  int wrong = 0;
  for (index relative = -200; relative <= 200; ++relative) {
    const index both = by_table(bidirectional, std::abs(relative)) + (relative > 0 ? 16 : 0);
    const index past = by_table(causal, (std::max)(-relative, index{0}));
    wrong += ln::ops::relative_bucket(relative, true, 32, 128) != both;
    wrong += ln::ops::relative_bucket(relative, false, 32, 128) != past;
  }
  BOOST_TEST(wrong == 0);
  // Bucket 16 is never used: positive distances start at 17.
  static_assert(ln::ops::relative_bucket(0, true, 32, 128) == 0 &&
                ln::ops::relative_bucket(1, true, 32, 128) == 17);
  static_assert(ln::ops::relative_bucket(1'000'000, true, 32, 128) == 31);
  static_assert(ln::ops::relative_bucket(-1'000'000, false, 32, 128) == 31);
}

// Other numbers of buckets and maximal distances, against the formula with logarithms.
BOOST_AUTO_TEST_CASE(t5_buckets_are_the_formula) {
  int wrong = 0;
  for (const index buckets : {4, 8, 16, 32, 64})
    for (const index max_distance : {20, 40, 100, 128, 512})
      for (const bool both : {false, true}) {
        if (max_distance <= buckets / 2) continue;
        for (index relative = -600; relative <= 600; ++relative)
          wrong += ln::ops::relative_bucket(relative, both, buckets, max_distance) !=
                   by_formula(relative, both, buckets, max_distance);
      }
  BOOST_TEST(wrong == 0);
}

// Rotating the query to m and the key to n, their product depends on m - n alone; so does it with
// several heads, each with its own values. The rotation keeps lengths and its inverse undoes it.
BOOST_AUTO_TEST_CASE(rope_depends_on_distance) {
  constexpr index positions = 40, h = 10, heads = 3;
  std::vector<double> table(positions * h);
  ln::ops::rope_table(positions, h, 10000.0, table.data());
  const auto q = normal<double>(heads * h, 1), k = normal<double>(heads * h, 2);
  for (const auto pairing : {ln::rope_pairing::interleaved, ln::rope_pairing::half}) {
    const auto rotated = [&](std::vector<double> x, index position, bool inverse = false) {
      ln::ops::rope_row(pairing, heads, h, table.data() + position * h, x.data(), inverse);
      return x;
    };
    double worst = 0, change = 0;
    for (index m = 0; m < 20; ++m)
      for (index n = 0; n < 20; ++n) {
        const double product = dot(rotated(q, m), rotated(k, n));
        worst = (std::max)(worst, std::abs(dot(rotated(q, m + 20), rotated(k, n + 20)) - product));
        change = (std::max)(change, std::abs(dot(rotated(q, m + 1), rotated(k, n)) - product));
      }
    BOOST_TEST(worst < 1e-12);
    BOOST_TEST(change > 0.1);
    BOOST_TEST(distance(rotated(q, 0), q) == 0);
    BOOST_TEST(distance(rotated(rotated(q, 7), 7, true), q) < 1e-14);
    BOOST_TEST(std::abs(dot(rotated(q, 33), rotated(q, 33)) - dot(q, q)) < 1e-12);
  }
}

// The angle of pair i at position t is t * theta^(-2i/h), turning the first value towards the
// second.
BOOST_AUTO_TEST_CASE(rope_angles) {
  std::vector<double> table(3 * 4);
  ln::ops::rope_table(3, 4, 100.0, table.data());
  std::vector<double> x{1, 0, 1, 0};
  ln::ops::rope_row(ln::rope_pairing::interleaved, 1, 4, table.data() + 2 * 4, x.data(), false);
  BOOST_TEST(distance(x, std::vector{std::cos(2.0), std::sin(2.0), std::cos(0.2), std::sin(0.2)}) <
             1e-15);
  x = {1, 1, 0, 0};
  ln::ops::rope_row(ln::rope_pairing::half, 1, 4, table.data() + 2 * 4, x.data(), false);
  BOOST_TEST(distance(x, std::vector{std::cos(2.0), std::cos(0.2), std::sin(2.0), std::sin(0.2)}) <
             1e-15);
}

// The two pairings are one rotation of differently ordered values: (2i, 2i + 1) against (i, i +
// h/2).
BOOST_AUTO_TEST_CASE(rope_pairings_agree) {
  constexpr index h = 6, heads = 2;
  std::vector<double> table(9 * h);
  ln::ops::rope_table(9, h, 10000.0, table.data());
  const auto x = normal<double>(heads * h, 1);
  const auto reordered = [&](const std::vector<double>& from) {
    std::vector<double> to(from.size());
    for (index head = 0; head < heads; ++head)
      for (index i = 0; i < h / 2; ++i) {
        to[at(head * h + i)] = from[at(head * h + 2 * i)];
        to[at(head * h + h / 2 + i)] = from[at(head * h + 2 * i + 1)];
      }
    return to;
  };
  auto pairs = x, halves = reordered(x);
  ln::ops::rope_row(ln::rope_pairing::interleaved, heads, h, table.data() + 8 * h, pairs.data(),
                    false);
  ln::ops::rope_row(ln::rope_pairing::half, heads, h, table.data() + 8 * h, halves.data(), false);
  BOOST_TEST(same_bits(reordered(pairs), halves));
}

// Sines in even columns, cosines in odd ones, wavelengths from 2 pi to 10000 * 2 pi.
BOOST_AUTO_TEST_CASE(sinusoids) {
  using ln::ops::sinusoid;
  BOOST_TEST(sinusoid(0, 0, 4) == 0);
  BOOST_TEST(sinusoid(0, 1, 4) == 1);
  BOOST_TEST(std::abs(sinusoid(3, 0, 4) - std::sin(3.0)) < 1e-15);
  BOOST_TEST(std::abs(sinusoid(3, 1, 4) - std::cos(3.0)) < 1e-15);
  BOOST_TEST(std::abs(sinusoid(3, 2, 4) - std::sin(0.03)) < 1e-15);
  BOOST_TEST(std::abs(sinusoid(3, 3, 4) - std::cos(0.03)) < 1e-15);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::position_test
