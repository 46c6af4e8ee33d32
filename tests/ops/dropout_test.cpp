// SPDX-License-Identifier: MIT
// Dropout masks: the documented key, the right rate, independence of threads and of splitting.

#include <algorithm>

#include "support/test.hpp"

namespace test::dropout_test {

namespace {
std::vector<double> mask(const ln::dropout_key& key, int dropout_id, index batch, index length,
                         index width, int threads = 1) {
  std::vector<double> x(at(batch * length * width), 1.0);
  on_machine(threads, ln::simd::level::portable, [&](const ln::ops::execution& on) {
    ln::ops::dropout(on, key, dropout_id, batch, length, width, x.data());
  });
  return x;
}
}  // namespace

BOOST_AUTO_TEST_SUITE(dropout)

// Each value's fate is one word of Philox: key seed ^ step * golden ratio, counter (sample, dropout
// id), position. Kept values are scaled by 1 / (1 - rate). At every level, wherever a row begins.
template <class T>
void check_mask(ln::simd::level level, index first, index n) {
  const ln::dropout_key key{123, 4, 7, 0.3};
  constexpr int dropout_id = 9;
  std::vector<T> x(at(n + 1), 2), other(at(n + 1), 3);
  ln::simd::dispatch(level, [&](auto kernels) {
    ln::ops::drop(kernels, key, 5, dropout_id, first, n, x.data(), other.data());
    ln::ops::drop(kernels, {1, 2, 3, 0}, 5, dropout_id, first, n, x.data());
  });
  int wrong = 0;
  for (index i = 0; i < n; ++i) {
    const auto words =
        ln::philox(123 ^ (4 * 0x9E3779B97F4A7C15ull), std::uint64_t{12} << 24 ^ dropout_id,
                   static_cast<std::uint64_t>((first + i) / 4));
    const T want = words[at((first + i) % 4)] / 4294967296.0 < 0.3 ? T(0) : static_cast<T>(1 / 0.7);
    wrong += x[at(i)] != 2 * want || other[at(i)] != 3 * want;
  }
  BOOST_TEST(wrong == 0);
  BOOST_TEST(x.back() == 2);
  BOOST_TEST(other.back() == 3);
}

BOOST_AUTO_TEST_CASE(mask_is_the_documented_one) {
  for (const ln::simd::level level : ln::simd::levels)
    for (const index first : {index{0}, index{1}, index{6}, (index{1} << 34) - 5})
      for (const index n : {0, 1, 3, 15, 16, 17, 31, 100}) {
        check_mask<float>(ln::simd::resolve(level), first, n);
        check_mask<double>(ln::simd::resolve(level), first, n);
      }
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

// The mask depends on seed, step, sample and dropout id, and on nothing else: not on threads, and
// not on how samples are grouped into calls.
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

// Layer dropout: D(l) = 2^(l / (L - 1)) - 1; the share of samples that skip a layer is D(l) rate
// within five standard errors, and the fates of samples, layers, steps and stacks are independent.
BOOST_AUTO_TEST_CASE(layers_skipped) {
  BOOST_TEST(ln::ops::layer_depth(0, 3) == 0);
  BOOST_TEST(distance_of(ln::ops::layer_depth(1, 3), std::sqrt(2.0) - 1) < 1e-15);
  BOOST_TEST(ln::ops::layer_depth(2, 3) == 1);
  BOOST_TEST(ln::ops::layer_depth(0, 1) == 0);
  constexpr index n = 40'000, layers = 5;
  const auto skipped = [](index layer, std::uint64_t step, int dropout_id, double rate = 0.5) {
    const ln::ops::layer_mask mask({1, step, 3, 0.9, rate}, dropout_id, layer, layers);
    std::vector<double> all(at(n));
    for (index b = 0; b < n; ++b) all[at(b)] = mask.drops(b);
    return all;
  };
  const auto share = [](const std::vector<double>& x) {
    double sum = 0;
    for (const double v : x) sum += v;
    return sum / static_cast<double>(n);
  };
  for (index l = 0; l < layers; ++l) {
    const double p = 0.5 * (std::exp(static_cast<double>(l) * std::log(2.0) / 4) - 1);
    BOOST_TEST(std::abs(share(skipped(l, 2, 3)) - p) <= 5 * std::sqrt(p * (1 - p) / n));
  }
  BOOST_TEST(share(skipped(4, 2, 3, 0)) == 0);
  // The correlation with another fate, or with the next sample's, is within five of its errors.
  const auto one = skipped(4, 2, 3);
  const auto correlation = [&](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    const double p = share(a), q = share(b);
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - p) * (b[i] - q);
    return sum / static_cast<double>(n) / std::sqrt(p * (1 - p) * q * (1 - q));
  };
  auto next = one;
  std::rotate(next.begin(), next.begin() + 1, next.end());
  BOOST_TEST(correlation(one, one) > 0.99);
  for (const auto& other : {skipped(3, 2, 3), skipped(4, 3, 3), skipped(4, 2, 4), next})
    BOOST_TEST(std::abs(correlation(one, other)) < 5 / std::sqrt(n));
  // The key's sample counts from the whole batch.
  const ln::ops::layer_mask later({1, 2, 10, 0.9, 0.5}, 3, 4, layers);
  for (index b = 0; b < 100; ++b) BOOST_TEST(later.drops(b) == (one[at(b + 7)] == 1));
}

// What a skipped layer does to values and gradients, on any number of threads.
BOOST_AUTO_TEST_CASE(skipped_layers_pass_values) {
  constexpr index batch = 7, length = 3, width = 5, sample = length * width;
  const ln::ops::layer_mask mask({1, 2, 0, 0, 0.5}, 3, 1, 2);
  index dropped = 0;
  for (index b = 0; b < batch; ++b) dropped += mask.drops(b);
  BOOST_TEST(dropped > 0);
  BOOST_TEST(dropped < batch - 1);
  BOOST_TEST(!mask.drops_all(batch));
  const auto x = normal<double>(batch * sample, 1), dy = normal<double>(batch * sample, 2);
  for (int threads = 1; threads <= 3; ++threads)
    for (const bool in_place : {false, true}) {
      std::vector<double> y(x.size(), 7), dx(x.size(), 1), rest(x.size(), 7);
      if (in_place) rest = dy;
      on_machine(threads, ln::simd::level::portable, [&](const ln::ops::execution& on) {
        mask.pass(on.threads, batch, length, width, x.data(), y.data());
        mask.pass_backward(on.threads, batch, length, width, in_place ? rest.data() : dy.data(),
                           dx.data(), rest.data());
      });
      int wrong = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const bool drops = mask.drops(static_cast<index>(i) / sample);
        wrong += y[i] != (drops ? x[i] : 7) || dx[i] != 1 + (drops ? dy[i] : 0) ||
                 rest[i] != (drops ? 0 : dy[i]);
      }
      BOOST_TEST(wrong == 0);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::dropout_test
