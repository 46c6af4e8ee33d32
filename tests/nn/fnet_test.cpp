// SPDX-License-Identifier: MIT
// Fourier transforms of every length, and the layer that mixes tokens with them.

#include "support/mixing.hpp"

namespace test::fnet_test {

namespace {

template <index D>
using layer =
    ln::mixer::fnet::layer<ln::attention_shape{.d_model = D, .heads = 1, .kv_heads = 1, .d_kv = 1}>;
constexpr double turn = 6.283185307179586476925;

/// Y_tc = sum_sj X_sj cos(2 pi (t s / L + c j / d)): the real part of the transform in both
/// directions, with phases reduced as whole numbers.
template <class T>
std::vector<double> naive(const std::vector<T>& x, index d, index length,
                          const std::vector<index>& lengths) {
  std::vector<double> y(x.size());
  for (index b = 0; b < std::ssize(lengths); ++b) {
    const index n = lengths[at(b)];
    for (index t = 0; t < n; ++t)
      for (index c = 0; c < d; ++c)
        for (index s = 0; s < n; ++s)
          for (index j = 0; j < d; ++j)
            y[at((b * length + t) * d + c)] +=
                static_cast<double>(x[at((b * length + s) * d + j)]) *
                std::cos(turn * (static_cast<double>(t * s % n) / static_cast<double>(n) +
                                 static_cast<double>(c * j % d) / static_cast<double>(d)));
  }
  return y;
}

template <index D, class T>
void check_naive(index length, const std::vector<index>& lengths, double tolerance) {
  const index batch = std::ssize(lengths);
  mixing<layer<D>, T> m({.batch = batch, .length = length});
  const auto x = normal<T>(batch * length * D, 1);
  const auto want = naive(x, D, length, lengths);
  BOOST_TEST(distance(m.forward(x, length, lengths), want) <= tolerance * magnitude(want),
             D << " columns, length " << length);
}

/// The largest error of a transform of length n, relative to the root of n.
template <class T>
double transform_error(index n, index width) {
  namespace ops = ln::ops;
  std::vector<T> table(at(ops::fourier_table_values(n))),
      memory(at(ops::fourier_buffers<T>::values(n, width)));
  const auto t =
      ops::make_fourier_table<T>(n, table.data(), {memory.data(), ops::fourier_points(n), 1});
  const auto x = normal<T>(2 * n * width, 1);
  ops::fourier_buffers<T> z(memory.data(), ops::fourier_points(n), width);
  std::copy_n(x.data(), n * width, z.real);
  std::copy_n(x.data() + n * width, n * width, z.imaginary);
  ops::fourier(t, width, z);
  double worst = 0;
  for (index k = 0; k < n; ++k)
    for (index c = 0; c < width; ++c) {
      double re = 0, im = 0;
      for (index j = 0; j < n; ++j) {
        const double angle = -turn * static_cast<double>(j * k % n) / static_cast<double>(n);
        const auto a = static_cast<double>(x[at(j * width + c)]),
                   b = static_cast<double>(x[at((n + j) * width + c)]);
        re += a * std::cos(angle) - b * std::sin(angle);
        im += a * std::sin(angle) + b * std::cos(angle);
      }
      worst = (std::max)({worst, distance_of(z.real[k * width + c], re),
                          distance_of(z.imaginary[k * width + c], im)});
    }
  return worst / std::sqrt(static_cast<double>(n));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(fnet)

// Every length up to 140: powers, composites, small primes, and primes that need the chirp.
BOOST_AUTO_TEST_CASE(transforms_of_any_length) {
  for (index n = 1; n <= 140; ++n) {
    const double error = transform_error<double>(n, n % 3 + 1);
    BOOST_TEST(error <= 40 * epsilon<double>, n);
  }
  BOOST_TEST(!ln::ops::fourier_direct(37));
  BOOST_TEST(!ln::ops::fourier_direct(2 * 127));
  BOOST_TEST(ln::ops::fourier_direct(31 * 4));
  for (const index n : {256, 384, 509, 512, 601})
    BOOST_TEST(transform_error<float>(n, 2) <= 40 * epsilon<float>, n);
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<6>>({.lengths = {3, 5}});
  check_layer<layer<7>>({.batch = 1, .length = 37});
  check_layer<layer<37>>({.batch = 1, .length = 4});
}

BOOST_AUTO_TEST_CASE(equals_the_naive_transform) {
  check_naive<6, double>(40, {40, 37, 1}, 1e-14);
  check_naive<7, double>(41, {41, 2, 31}, 1e-14);
  check_naive<37, double>(12, {12, 3}, 1e-14);
  check_naive<64, double>(17, {17, 16}, 1e-14);
  check_naive<1, double>(5, {5, 4}, 1e-14);
  check_naive<7, float>(101, {101, 64}, 3e-6);
}

BOOST_AUTO_TEST_CASE(symmetry) {
  constexpr index length = 43, d = 6;
  mixing<layer<d>> m({.length = length});
  const auto x = normal<double>(length * d, 1), y = normal<double>(length * d, 2);
  const auto fx = m.forward(x, length), fy = m.forward(y, length);
  const double left = std::inner_product(fx.begin(), fx.end(), y.begin(), 0.0);
  const double right = std::inner_product(fy.begin(), fy.end(), x.begin(), 0.0);
  BOOST_TEST(std::abs(left) > 1);
  BOOST_TEST(std::abs(left - right) <= 1e-12 * std::abs(left));
}

BOOST_AUTO_TEST_CASE(padding) {
  check_padding<layer<6>>(45, {41, 45, 1});
  check_padding<layer<7>>(40, {40, 32});
}
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  check_threads<layer<6>>(40, {37, 40, 3});
  check_threads<layer<37>>(33, {33, 32});
}

// Twice the tokens are at most twice the memory, and work grows like T log T.
static_assert(bytes_of<layer<512>>({.length = 8192, .training = true}) <=
              2 * bytes_of<layer<512>>({.length = 4096, .training = true}));
static_assert(layer<512>::flops({.length = 8192}) == 5 * 8192 * 512 * (9 + 13) / 2);
static_assert(ln::count_parameters<layer<512>>() == 0);

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::fnet_test
