// SPDX-License-Identifier: MIT
// The random generator: published known answers, moments, unbiased integers, independent streams.

#include <algorithm>
#include <array>

#include "support/test.hpp"

namespace test::random_test {

namespace {
using words = std::array<std::uint32_t, 4>;

// The vectors are those of Random123's kat_vectors. Word i of its counter and key is bits
// [32 i, 32 i + 32) of the number that linnet's pair of 64-bit halves (and its key) forms.
static_assert(ln::philox(0, 0, 0) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(ln::philox(~0ull, ~0ull, ~0ull) ==
              words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(ln::philox(0x299f31d0'a4093822, 0x03707344'13198a2e, 0x85a308d3'243f6a88) ==
              words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}  // namespace

BOOST_AUTO_TEST_SUITE(random)

// The same known answers at run time, in case the optimizer knows better than constant evaluation.
BOOST_AUTO_TEST_CASE(known_answers_at_run_time) {
  volatile std::uint64_t key = 0x299f31d0'a4093822, high = 0x03707344'13198a2e,
                         low = 0x85a308d3'243f6a88;
  const words want{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  BOOST_TEST(ln::philox(key, high, low) == want);
}

// A stream hands out the words of consecutive counters, in order, under its own stream number.
BOOST_AUTO_TEST_CASE(stream_is_the_sequence_of_counters) {
  ln::random_stream random(ln::seed{42}, 5);
  bool same = true;
  for (std::uint64_t counter = 0; counter < 10; ++counter)
    for (const std::uint32_t word : ln::philox(42, 5, counter)) same &= random.bits() == word;
  BOOST_TEST(same);
}

// Moments and range of n uniform values: each within five standard errors of its expectation.
BOOST_AUTO_TEST_CASE(uniform_moments) {
  constexpr int n = 200'000;
  ln::random_stream random(ln::seed{1});
  double sum = 0, squares = 0, least = 1, most = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform();
    sum += u;
    squares += u * u;
    least = (std::min)(least, u);
    most = (std::max)(most, u);
  }
  BOOST_TEST(std::abs(sum / n - 1.0 / 2) < 5 * std::sqrt(1.0 / 12 / n));
  BOOST_TEST(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
  BOOST_TEST(least >= 0);
  BOOST_TEST(most < 1);
  BOOST_TEST(least < 1e-4);
  BOOST_TEST(most > 1 - 1e-4);
}

// Mean, variance, skewness and kurtosis of n normal values within five standard errors, and the
// share beyond two deviations (Phi(-2) = 0.0227501).
BOOST_AUTO_TEST_CASE(normal_moments) {
  constexpr int n = 1'000'000;
  ln::random_stream random(ln::seed{2});
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, tail = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    m1 += x / n;
    m2 += x * x / n;
    m3 += x * x * x / n;
    m4 += x * x * x * x / n;
    tail += x > 2 ? 1.0 / n : 0;
  }
  BOOST_TEST(std::abs(m1) < 5 * std::sqrt(1.0 / n));
  BOOST_TEST(std::abs(m2 - 1) < 5 * std::sqrt(2.0 / n));
  BOOST_TEST(std::abs(m3) < 5 * std::sqrt(15.0 / n));
  BOOST_TEST(std::abs(m4 - 3) < 5 * std::sqrt(96.0 / n));
  BOOST_TEST(std::abs(tail - 0.0227501) < 5 * std::sqrt(0.0227501 / n));
}

// below(n) reaches every value equally often: chi-square with n - 1 degrees of freedom.
BOOST_AUTO_TEST_CASE(below_is_uniform) {
  for (const std::uint32_t n : {1u, 2u, 3u, 7u, 10u, 97u}) {
    constexpr int draws = 100'000;
    ln::random_stream random(ln::seed{3}, n);
    std::vector<int> counts(n);
    for (int i = 0; i < draws; ++i) ++counts.at(random.below(n));
    double chi = 0;
    for (const int c : counts)
      chi += (c - draws / double(n)) * (c - draws / double(n)) / (draws / double(n));
    BOOST_TEST(chi <= n - 1 + 5 * std::sqrt(2.0 * n));
  }
}

// Where 2^32 is not a multiple of n, x % n would favour small values; for n = 3 * 2^30 the favour
// is a third: half of all draws would fall into the lowest third. Rejection must remove it.
BOOST_AUTO_TEST_CASE(below_rejects_the_biased_rest) {
  constexpr std::uint32_t n = 3u << 30;
  constexpr int draws = 20'000;
  ln::random_stream random(ln::seed{4});
  int low = 0;
  for (int i = 0; i < draws; ++i) low += random.below(n) < n / 3;
  BOOST_TEST(std::abs(low / double(draws) - 1.0 / 3) < 5 * std::sqrt(2.0 / 9 / draws));
}

// Streams of one seed and seeds of one stream share no words; equal names mean equal streams.
BOOST_AUTO_TEST_CASE(streams_differ) {
  std::vector<std::uint32_t> words;
  for (std::uint64_t s = 0; s < 4; ++s)
    for (std::uint64_t stream = 0; stream < 4; ++stream) {
      ln::random_stream random(ln::seed{s}, stream);
      for (int i = 0; i < 8; ++i) words.push_back(random.bits());
    }
  std::sort(words.begin(), words.end());
  BOOST_TEST((std::adjacent_find(words.begin(), words.end()) == words.end()));
  // FNV-1a of "" and "a", from its specification.
  static_assert(ln::stream_of("") == 0xcbf29ce484222325ull);
  static_assert(ln::stream_of("a") == 0xaf63dc4c8601ec8cull);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::random_test
