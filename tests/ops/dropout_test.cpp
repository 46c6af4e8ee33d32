// Dropout masks: the documented key, the right rate, independence of threads and of splitting.

#include "support/test.hpp"

namespace test {

namespace {
std::vector<double> mask(const ln::dropout_key& key, int site, index batch, index length,
                         index width, int threads = 1) {
  std::vector<double> x(at(batch * length * width), 1.0);
  on_machine(threads, ln::simd::level::portable, [&](const ln::ops::machine& on) {
    ln::ops::dropout(on.threads, key, site, batch, length, width, x.data());
  });
  return x;
}
}  // namespace

BOOST_AUTO_TEST_SUITE(dropout)

// Each value's fate is one word of Philox: key seed ^ step * golden ratio, counter (sample, site),
// position. Kept values are scaled by 1 / (1 - rate).
BOOST_AUTO_TEST_CASE(mask_is_the_documented_one) {
  const ln::dropout_key key{123, 4, 7, 0.3};
  constexpr index batch = 3, length = 5, width = 7;
  constexpr int site = 9;
  const auto x = mask(key, site, batch, length, width);
  int wrong = 0;
  for (index b = 0; b < batch; ++b)
    for (index i = 0; i < length * width; ++i) {
      const auto words = ln::philox(123 ^ (4 * 0x9E3779B97F4A7C15ull),
                                    static_cast<std::uint64_t>(7 + b) << 24 ^ site,
                                    static_cast<std::uint64_t>(i / 4));
      const double want = words[at(i % 4)] / 4294967296.0 < 0.3 ? 0 : 1 / 0.7;
      wrong += distance_of(x[at(b * length * width + i)], want) > 1e-15;
    }
  BOOST_TEST(wrong == 0);
}

// The share of dropped values and the mean of the multipliers, within five standard errors.
BOOST_AUTO_TEST_CASE(rate_is_right) {
  for (const double rate : {0.1, 0.5, 0.9}) {
    const auto x = mask({1, 2, 0, rate}, 3, 10, 100, 50);
    const auto n = static_cast<double>(x.size());
    double dropped = 0, sum = 0;
    for (const double v : x) {
      dropped += v == 0;
      sum += v;
    }
    BOOST_TEST(std::abs(dropped / n - rate) < 5 * std::sqrt(rate * (1 - rate) / n));
    BOOST_TEST(std::abs(sum / n - 1) < 5 * std::sqrt(rate / (1 - rate) / n));
  }
}

// The mask depends on seed, step, sample and site, and on nothing else: not on threads, and not on
// how samples are grouped into calls.
BOOST_AUTO_TEST_CASE(mask_depends_on_its_key_alone) {
  const auto whole = mask({1, 2, 0, 0.5}, 3, 6, 5, 7);
  for (int threads = 2; threads <= 5; ++threads)
    BOOST_TEST(same_bits(mask({1, 2, 0, 0.5}, 3, 6, 5, 7, threads), whole));
  std::vector<double> parts;
  for (const index first : {0, 2, 4})
    for (const double v : mask({1, 2, first, 0.5}, 3, 2, 5, 7)) parts.push_back(v);
  BOOST_TEST(same_bits(parts, whole));
  BOOST_TEST(!same_bits(mask({9, 2, 0, 0.5}, 3, 6, 5, 7), whole));
  BOOST_TEST(!same_bits(mask({1, 3, 0, 0.5}, 3, 6, 5, 7), whole));
  BOOST_TEST(!same_bits(mask({1, 2, 1, 0.5}, 3, 6, 5, 7), whole));
  BOOST_TEST(!same_bits(mask({1, 2, 0, 0.5}, 4, 6, 5, 7), whole));
  const std::vector<double> first(whole.begin(), whole.begin() + 35),
      second(whole.begin() + 35, whole.begin() + 70);
  BOOST_TEST(!same_bits(first, second));
}

// Rate 0 is the identity.
BOOST_AUTO_TEST_CASE(no_dropout_changes_nothing) {
  BOOST_TEST(same_bits(mask({1, 2, 0, 0}, 3, 2, 5, 7), std::vector<double>(70, 1.0)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
