// SPDX-License-Identifier: MIT
// Products whose inputs are rounded in other ways than to int8 alone: with outliers as they are, to
// 4 bits, and to 8-bit floats. By their definition in double, and bit for bit where two are one.

#include <bit>

#include "support/matrix.hpp"

namespace test::compute_test {

namespace {

namespace storage = ln::storage;
namespace compute = ln::compute;
using asymmetric = storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>;
constexpr ln::real infinity = std::numeric_limits<double>::infinity();
constexpr index m = 14, n = 37;

/// y = x W^T in compute type A, rows `some` at a time on `threads` threads, written as `e` says
/// over what follows the normal numbers of stream 3.
template <class A, class Stored>
std::vector<float> product(const matrix<float, Stored>& w, const std::vector<float>& x,
                           ln::simd::level level, index some = m, int threads = 1,
                           const ln::simd::epilogue<float>& e = {}) {
  using S = storage::with_compute<Stored, A>;
  const index k = std::ssize(x) / m;
  matrix<float, S> same(n, k, w.meaning);
  same.rows = w.rows;
  same.row_scales = w.row_scales;
  same.row_zeros = w.row_zeros;
  same.canonical = {same.rows.data(), same.row_scales.data(), same.row_zeros.data()};
  same.pack(n, k);
  std::vector<std::byte> scratch(at(ln::ops::converted_bytes<S>(some, k, n, threads, false)),
                                 std::byte{0xff});
  auto y = normal<float>(m * n, 3);
  on_machine(threads, level, [&](ln::ops::execution on) {
    on.converted = scratch.data();
    for (index i = 0; i < m; i += some)
      ln::ops::matmul(on, (std::min)(some, m - i), n, k, x.data() + i * k, same.packed,
                      y.data() + i * n, e);
  });
  return y;
}

/// Inputs x[m, k]: normal, of which every tenth is `factor` times as large.
std::vector<float> planted(index k, float factor) {
  auto x = normal<float>(m * k, 2);
  for (std::size_t i = 0; i < x.size(); i += 10) x[i] *= factor;
  return x;
}

/// What compute type A makes of x[m, k] for weights in S.
template <class A, class S>
std::vector<double> rounded(index k, const std::vector<float>& x) {
  std::vector<double> y;
  const index group = S::group ? S::group : k;
  for (index i = 0; i < m; ++i)
    for (index first = 0; first < k; first += group) {
      const index last = (std::min)(k, first + group);
      const auto large = [](float v) {
        return std::abs(static_cast<double>(v)) >= static_cast<double>(A::threshold);
      };
      float most = 0;
      for (index j = first; j < last; ++j)
        if (const float v = x[at(i * k + j)]; !large(v)) most = (std::max)(most, std::abs(v));
      const double scale = most > 0 ? static_cast<double>(most) / A::largest : 1;
      for (index j = first; j < last; ++j) {
        const float v = x[at(i * k + j)];
        const float inverse = most > 0 ? static_cast<float>(A::largest) / most : 0;
        const double code = std::nearbyint(static_cast<double>(v) * static_cast<double>(inverse));
        y.push_back(large(v) ? static_cast<double>(v) : scale * code);
      }
    }
  return y;
}

/// In 8-bit floats: to the nearest of all that there are, one scale for a token.
template <class A, class S>
requires(std::is_same_v<A, compute::fp8>) std::vector<double> rounded(index k,
                                                                      const std::vector<float>& x) {
  std::vector<double> all, y;
  for (int exponent = -6; exponent <= 8; ++exponent)
    for (int eighths = exponent == -6 ? 0 : 8; eighths < 16; ++eighths)
      if (const double v = std::ldexp(eighths / 8.0, exponent); v <= 448) all.push_back(v);
  BOOST_TEST(all.size() == 127u);  // codes from 0 up to the one of NaN
  for (index i = 0; i < m; ++i) {
    const std::span<const float> row(x.data() + i * k, at(k));
    const double scale = static_cast<double>(static_cast<float>(magnitude(row) / 448));
    for (const float v : row) {
      const double size = std::abs(static_cast<double>(v)) / scale;
      double nearest = 0;
      for (const double one : all)
        if (std::abs(one - size) < std::abs(nearest - size)) nearest = one;
      y.push_back(std::copysign(nearest * scale, static_cast<double>(v)));
    }
  }
  return y;
}

/// The largest error of y, in units of what rounding a sum of k terms allows.
template <class S>
double excess(const std::vector<float>& y, const matrix<float, S>& w, const std::vector<double>& x,
              index k, const ln::simd::epilogue<float>& e) {
  const auto start = normal<float>(m * n, 3);
  double worst = 0;
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < n; ++j) {
      double sum = 0, terms = 0;
      const auto add = [&](double term) {
        sum += term;
        terms += std::abs(term);
      };
      for (index l = 0; l < k; ++l)
        add(static_cast<double>(e.alpha) * x[at(i * k + l)] * w.meaning[at(j * k + l)]);
      if (e.accumulate) add(static_cast<double>(start[at(i * n + j)]));
      if (e.bias) add(static_cast<double>(e.bias[j]));
      const double allowed = (static_cast<double>(k) + 4) * epsilon<float> * terms + 1e-300;
      worst = (std::max)(worst, distance_of(y[at(i * n + j)], sum) / allowed);
    }
  return worst;
}

/// Products of weights in S are what compute type A says, on any number of threads. A row has the
/// same bits among others; where numbers are multiplied, this holds of their rounding.
template <class A, class S>
void check() {
  const auto bias = normal<float>(n, 4);
  for (const index k : {8, 33, 300}) {
    const matrix<float, S> w(n, k, 1);
    const auto x = planted(k, 8);
    const auto seen = rounded<A, S>(k, x);
    for (const auto level : levels())
      for (const auto& e : {ln::simd::epilogue<float>{}, {bias.data(), -0.375f, true}}) {
        const auto y = product<A>(w, x, level, m, 1, e);
        BOOST_TEST(excess(y, w, seen, k, e) <= 1,
                   S::name << ' ' << ln::simd::name(level) << " k " << k);
        for (const index some : {1, 3, 5}) {
          const auto part = product<A>(w, x, level, some, 1, e);
          BOOST_TEST((std::is_same_v<A, compute::fp8> ? excess(part, w, seen, k, e) <= 1
                                                      : same_bits(part, y)));
        }
        for (const int threads : {2, 3})
          BOOST_TEST(same_bits(product<A>(w, x, level, m, threads, e), y));
      }
  }
}

/// With the threshold 0 it is the product of the numbers that codes stand for, with no threshold
/// that of compute::int8.
template <class S>
void check_ends() {
  for (const index k : {33, 300}) {
    const matrix<float, S> w(n, k, 1);
    const auto x = planted(k, 8);
    for (const auto level : levels()) {
      BOOST_TEST(same_bits(product<compute::mixed_int8<infinity>>(w, x, level),
                           product<compute::int8>(w, x, level)));
      BOOST_TEST(same_bits(product<compute::mixed_int8<0.0>>(w, x, level),
                           product<compute::f32>(w, x, level, 1)));
      BOOST_TEST(!same_bits(product<compute::mixed_int8<>>(w, x, level),
                            product<compute::int8>(w, x, level)));
    }
  }
}

/// The error of products in compute type A against those in f32.
template <class A, class S>
double error(const matrix<float, S>& w, const std::vector<float>& x) {
  const auto level = ln::simd::best();
  return distance(product<A>(w, x, level), product<compute::f32>(w, x, level));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(compute_types)

BOOST_AUTO_TEST_CASE(outliers_as_they_are, *boost::unit_test::label("tsan")) {
  using mixed = compute::mixed_int8<>;
  check<mixed, storage::int8>();
  check<mixed, asymmetric>();
  check<mixed, storage::int4<8>>();
  check<mixed, storage::int4<0>>();
  check<mixed, storage::q4_1>();
  check<compute::mixed_int8<1.5>, storage::int2<16>>();
}
BOOST_AUTO_TEST_CASE(ends_of_the_threshold) {
  check_ends<storage::int8>();
  check_ends<storage::int4<8>>();
  check_ends<storage::q8_0>();
}
BOOST_AUTO_TEST_CASE(four_bits) {
  check<compute::int4, storage::int8>();
  check<compute::int4, storage::int4<32>>();
}
BOOST_AUTO_TEST_CASE(floats_of_eight_bits) {
  check<compute::fp8, storage::int4<32>>();
  check<compute::fp8, storage::fp4<8, storage::fp4_scales::power_of_two>>();
}

// Outliers cost all inputs of a token their precision, unless they are kept.
BOOST_AUTO_TEST_CASE(planted_outliers) {
  constexpr index k = 300;
  const matrix<float, storage::int8> w(n, k, 1);
  const auto x = planted(k, 60), calm = planted(k, 1);
  const double mixed = error<compute::mixed_int8<>>(w, x), plain = error<compute::int8>(w, x);
  BOOST_TEST(mixed < plain / 20);
  BOOST_TEST(mixed < 2 * error<compute::int8>(w, calm));
  BOOST_TEST(error<compute::int4>(w, calm) > 10 * error<compute::int8>(w, calm));
}

// Infinities and NaN are no outliers: the results of their token, and of no other, are NaN.
BOOST_AUTO_TEST_CASE(special_inputs) {
  constexpr index k = 33;
  const matrix<float, storage::int8> w(n, k, 1);
  const auto check_in = [&]<class A>(A) {
    for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u}) {
      auto x = planted(k, 8);
      const auto before = product<A>(w, x, ln::simd::best());
      x[at(3 * k + 30)] = std::bit_cast<float>(bits);
      const auto after = product<A>(w, x, ln::simd::best());
      for (index i = 0; i < m * n; ++i)
        BOOST_TEST((i / n == 3 ? ln::is_nan(after[at(i)]) : after[at(i)] == before[at(i)]));
    }
  };
  check_in(compute::mixed_int8<>{});
  check_in(compute::fp8{});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::compute_test
