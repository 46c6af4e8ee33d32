// SPDX-License-Identifier: MIT
// Reproducible kernels at each instruction-set level against plain loops in the order that
// docs/reproducible.md states, bit for bit. Mathematics that C libraries differ in, against golden
// bits.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <array>
#include <cstring>

#include "support/test.hpp"

namespace test::order_test {

namespace {

/// A product that no compiler melts with a sum.
float times(float a, float b) {
  volatile float p = a * b;
  return p;
}
/// The sum of 16 lanes, halves first.
float halves(std::array<float, 16> lane) {
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
  return lane[0];
}
float dot(std::span<const float> x, std::span<const float> y) {
  std::array<float, 16> lane{};
  for (std::size_t i = 0; i < x.size(); ++i) lane[i % 16] += times(x[i], y[i]);
  return halves(lane);
}
/// simd/vector.inl's exponential of numbers in its range.
float exponential(float x) {
  const float shifted = times(x, 1.44269504088896341f) + 12582912.0f, fn = shifted - 12582912.0f;
  const float r = (x - times(fn, 0.693359375f)) + times(fn, 2.12194440e-4f);
  float p = times(r, 1.9875691500e-4f) + 1.3981999507e-3f;
  for (const float c : {8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = times(p, r) + c;
  p = times(p, times(r, r)) + r + 1.0f;
  return times(p, std::ldexp(1.0f, static_cast<int>(fn)));
}
/// The logarithm of a sum of exponentials, as they follow each other.
double log_sum(std::span<const double> all) {
  const double largest = *std::max_element(all.begin(), all.end());
  double sum = 0;
  for (const double x : all) sum += ln::detail::portable_exp(x - largest);
  return largest + ln::detail::portable_log(sum);
}
bool equal(std::span<const float> a, std::span<const float> b) {
  return std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Calls f(kernels) for all reproducible kernels that this machine runs.
template <class F>
void each_level(F&& f) {
  for (const ln::simd::level l : ln::simd::levels) {
    const ln::simd::level same = ln::simd::reproducible(l);
    if (ln::simd::resolve(same) == same) ln::simd::dispatch(same, f);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(reproducible_sums_follow_their_order) {
  each_level([](auto k) {
    using K = decltype(k);
    for (const index n : {1, 5, 15, 16, 17, 31, 33, 64, 100}) {
      const auto x = normal<float>(n, 1), y = normal<float>(n, 2);
      std::vector<float> got(at(n)), expected(at(n));
      const float product = K::template dot<float>(n, x.data(), y.data());
      BOOST_TEST(product == dot(x, y));

      // RMSNorm
      const float r = 1.0f / std::sqrt(dot(x, x) / static_cast<float>(n) + 0.01f);
      for (std::size_t i = 0; i < x.size(); ++i) expected[i] = times(y[i], times(r, x[i]));
      (void)K::template rms_norm<float>(n, 0.01f, x.data(), y.data(), got.data());
      BOOST_TEST(equal(got, expected));

      // LayerNorm: numbers behind whole groups of 16 follow one by one.
      const std::vector<float> ones(x.size(), 1.0f);
      const float mean = dot(x, ones) / static_cast<float>(n);
      std::vector<float> off = x;
      for (float& d : off) d -= mean;
      const std::size_t whole = off.size() / 16 * 16;
      float spread = dot(std::span(off).first(whole), std::span(off).first(whole));
      for (std::size_t i = whole; i < off.size(); ++i) spread += times(off[i], off[i]);
      const float scale = 1.0f / std::sqrt(spread / static_cast<float>(n) + 0.01f);
      for (std::size_t i = 0; i < off.size(); ++i)
        expected[i] = times(y[i], times(off[i], scale)) + y[i];
      std::array<float, 2> statistics{};
      K::template layer_norm<float>(n, 0.01f, x.data(), y.data(), y.data(), got.data(),
                                    statistics.data());
      BOOST_TEST(equal(got, expected));

      // Softmax: where there are 16 or more, the last 16 lanes begin so that they end with the row.
      const float most = *std::max_element(x.begin(), x.end());
      std::array<float, 16> lane{};
      const std::size_t size = x.size(), last = size < 16 ? 0 : (size - 1) / 16 * 16;
      for (std::size_t i = 0; i < size; ++i) {
        expected[i] = exponential(x[i] - most);
        const std::size_t l = size >= 16 && i >= last ? i - (size - 16) : i % 16;
        lane[l] += expected[i];
      }
      const float share = 1.0f / halves(lane);
      for (float& e : expected) e = times(share, e);
      got = x;
      K::template softmax<float>(n, got.data());
      BOOST_TEST(equal(got, expected));
    }
  });
}

BOOST_AUTO_TEST_CASE(reproducible_products_ascend) {
  constexpr index inputs = 37, columns = 45;  // two panels of 32 columns
  each_level([](auto k) {
    for (const index rows : {1, 2, 7, 13}) {
      const auto a = normal<float>(rows * inputs, 3), b = normal<float>(2 * 32 * inputs, 4);
      std::vector<float> got(at(rows * columns)), expected(at(rows * columns));
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < columns; ++j) {
          float sum = 0;
          for (index l = 0; l < inputs; ++l)
            sum += times(a[at(i * inputs + l)], b[at((j / 32 * inputs + l) * 32 + j % 32)]);
          expected[at(i * columns + j)] = times(0.5f, sum);
        }
      decltype(k)::template multiply<float>(rows, columns, inputs, {a.data(), inputs, 1},
                                            {b.data(), 32, 32 * inputs}, got.data(), columns,
                                            {nullptr, 0.5f, false}, 19);
      // Adding no bias makes zero of a negative one.
      for (float& x : expected) x += 0.0f;
      BOOST_TEST(equal(got, expected));
    }
  });
}

BOOST_AUTO_TEST_CASE(scores_follow_their_order) {
  each_level([](auto k) {
    for (const index n : {4, 8, 12, 16, 20, 64})
      for (const index tokens : {1, 7, 16, 37}) {
        const auto x = normal<float>(n, 1), keys = normal<float>(n * tokens, 2);
        std::vector<float> got(at(tokens)), expected;
        for (index j = 0; j < tokens; ++j) {
          const std::span key = std::span(keys).subspan(at(j * n), at(n));
          float score = dot(x, key);
          if (tokens >= 16) {  // lanes by fours
            std::array<float, 16> lane{};
            for (std::size_t i = 0; i < x.size(); ++i) lane[i % 16] += times(x[i], key[i]);
            std::array<float, 4> four{};
            for (std::size_t q = 0; q < 4; ++q)
              four[q] = (lane[4 * q] + lane[4 * q + 2]) + (lane[4 * q + 1] + lane[4 * q + 3]);
            score = (four[0] + four[1]) + (four[2] + four[3]);
          }
          expected.push_back(times(0.3f, score));
        }
        decltype(k)::template dots<float>(tokens, n, 0.3f, x.data(), keys.data(), n, got.data());
        BOOST_TEST(equal(got, expected), n << " numbers, " << tokens << " tokens");
      }
  });
}

BOOST_AUTO_TEST_CASE(sums_of_values_follow_their_order) {
  each_level([](auto k) {
    for (const index n : {4, 8, 12, 16, 20, 24, 40, 64})
      for (const index tokens : {3, 32, 39}) {
        const auto p = normal<float>(tokens, 1), values = normal<float>(n * tokens, 2);
        std::vector<float> got(at(n)), expected(at(n));
        for (index i = 0; i < n; ++i)
          for (index first = 0; first < tokens; first += 32) {
            const index last = std::min<index>(tokens, first + 32);
            std::array<float, 4> sum{expected[at(i)]};
            for (index j = first; j < last; ++j) {
              const bool by_fours = i < n - n % 8 && j / 4 * 4 + 4 <= last;
              sum[by_fours ? at(j % 4) : 0] += times(p[at(j)], values[at(j * n + i)]);
            }
            expected[at(i)] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
          }
        decltype(k)::template mix<float>(tokens, n, p.data(), values.data(), n, got.data());
        BOOST_TEST(equal(got, expected), n << " numbers, " << tokens << " tokens");
      }
  });
}

// Codes of caches in bf16 and f16: the nearest even, read back exactly and summed in 16 lanes.
BOOST_AUTO_TEST_CASE(reproducible_codes_of_16_bits) {
  const auto check = []<class Storage, class Code>(Storage, Code) {
    constexpr index n = 77;
    const auto x = normal<float>(n, 6), numbers = normal<float>(n, 7, 2e4);
    each_level([&](auto k) {
      using K = decltype(k);
      std::vector<Code> codes(at(n + 1));
      K::template to_16_bits<float>(n, numbers.data(), codes.data());
      std::vector<float> read(at(n));
      for (std::size_t i = 0; i < read.size(); ++i) {
        const auto near = std::clamp(static_cast<double>(numbers[i]), -65504.0, 65504.0);
        BOOST_TEST((codes[i] == static_cast<Code>(Storage::encode(near))));
        read[i] = ln::simd::number_of(codes[i]);
      }
      float got = 0;
      K::template dots<float, Code>(0, 1, n, 1.0f, x.data(), {codes.data(), n + 1}, &got, {});
      BOOST_TEST(got == dot(x, read));
    });
  };
  check(ln::storage::bf16{}, ln::simd::bf16_code{});
  check(ln::storage::f16{}, ln::simd::f16_code{});
}

BOOST_AUTO_TEST_CASE(losses_of_pairs_ascend) {
  constexpr std::size_t n = 19, m = 38, d = 37;  // anchors; positives, then negatives
  const auto x = normal<float>(index((n + m) * d), 5, 0.3);
  const auto candidate = [&](std::size_t j, std::size_t k) { return x[(n + j) * d + k]; };
  std::array<std::array<float, m>, n> s{}, slopes{};
  std::vector<float> cosines(n + m), expected(x.size()), got(x.size()), got_cosines(n + m);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j) {
      float cosine = 0;
      for (std::size_t k = 0; k < d; ++k) cosine += times(x[i * d + k], candidate(j, k));
      s[i][j] = times(cosine, static_cast<float>(1 / 0.3));
      if (i == j) cosines[i] = cosine;
    }
  std::array<double, n> rows{}, columns{};
  double nats = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::array<double, n> column{};
    for (std::size_t j = 0; j < n; ++j) column[j] = s[j][i];
    rows[i] = log_sum(std::vector<double>(s[i].begin(), s[i].end()));
    columns[i] = log_sum(column);
    nats += 0.5 * (rows[i] - s[i][i]) + 0.5 * (columns[i] - s[i][i]);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j) {
      const auto half = [&](double sum) {
        return 0.5 * (ln::detail::portable_exp(s[i][j] - sum) - (i == j ? 1 : 0));
      };
      const double slope = half(rows[i]) + (j < n ? half(columns[j]) : 0);
      slopes[i][j] = static_cast<float>(slope * (1 / 0.3));
    }
  for (std::size_t k = 0; k < d; ++k)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < m; ++j) {
        expected[i * d + k] += times(slopes[i][j], candidate(j, k));
        expected[(n + j) * d + k] += times(slopes[i][j], x[i * d + k]);
      }
  std::vector<float> scores(at(ln::ops::contrastive_scores(n + m)));
  std::array<double, n + m> sums{}, losses{};
  const ln::loss_sum loss =
      ln::ops::contrastive<float>({},
                                  {.batch = n + m,
                                   .d = d,
                                   .x = x.data(),
                                   .scores = scores.data(),
                                   .sums = sums.data(),
                                   .losses = losses.data(),
                                   .dx = got.data(),
                                   .cosines = got_cosines.data()},
                                  {.temperature = 0.3, .symmetric = true, .negatives = 1});
  BOOST_TEST(loss.nats == nats);
  BOOST_TEST(equal(got_cosines, cosines));
  BOOST_TEST(equal(got, expected));
}

BOOST_AUTO_TEST_CASE(random_numbers_and_angles_have_golden_bits) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto add = [&](double x) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    hash = (hash ^ bits) * 0x100000001b3ull;
  };
  ln::random_stream random(ln::seed{1}, 2);
  std::array<float, 32> angles{};
  for (index i = 0; i < 2000; ++i) {
    add(random.normal());
    ln::ops::rope_angles(i * i * 97, 32, 10000, angles.data());
    for (const float x : angles) add(static_cast<double>(x));
    add(ln::detail::portable_exp(random.uniform() * 100 - 50));
    add(ln::detail::portable_log(random.uniform() + 0x1p-30));
    add(ln::detail::portable_pow(0.999, static_cast<double>(i)));
  }
  BOOST_TEST(hash == 0x93565dd7b22824b0ull);
}

}  // namespace test::order_test
