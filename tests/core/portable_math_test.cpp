// SPDX-License-Identifier: MIT
// Mathematics of core/portable_math.hpp against the C library in long double.

#include "support/test.hpp"

namespace test::portable_math_test {

namespace {

/// |a - b| in units of b's last place.
double ulps(double a, long double b) {
  const double size = std::abs(static_cast<double>(b));
  const double unit = std::nextafter(size, HUGE_VAL) - size;
  return static_cast<double>(std::abs(static_cast<long double>(a) - b)) / unit;
}

}  // namespace

BOOST_AUTO_TEST_CASE(portable_math_is_within_two_units) {
  ln::random_stream random(ln::seed{5});
  const auto between = [&](double low, double high) {
    return low + (high - low) * (random.uniform() + random.uniform() * 0x1p-24);
  };
#if defined(__FAST_MATH__)  // the cosine of some processors knows 66 bits of pi
  constexpr double largest = 7;
#else
  constexpr double largest = 0x1p31;
#endif
  double exp = 0, log = 0, angle = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = i % 2 ? between(-700, 700) : between(-1, 1);
    exp = std::max(exp, ulps(ln::detail::portable_exp(x), std::exp(static_cast<long double>(x))));
    const double y = i % 2 ? between(0.4, 1.6) : std::ldexp(between(0.5, 1), i % 2000 - 1000);
    log = std::max(log, ulps(ln::detail::portable_log(y), std::log(static_cast<long double>(y))));
    const double z = between(-largest, largest) * (i % 2 ? 1 : 1e-8);
    const ln::detail::portable_angle a(z);
    angle = std::max(
        {angle, static_cast<double>(std::abs(a.cosine - std::cos(static_cast<long double>(z)))),
         static_cast<double>(std::abs(a.sine - std::sin(static_cast<long double>(z))))});
  }
  BOOST_TEST(exp < 2);
  BOOST_TEST(log < 2);
  BOOST_TEST(angle < 4e-16);
  for (int t = 1; t < 200000; t += t / 3 + 1)
    BOOST_TEST(std::abs(ln::detail::portable_pow(0.999, t) / std::pow(0.999, t) - 1) < 1e-13);
  double power = 0;
  for (const double theta : {100., 10000., 500000., 1e6})
    for (int i = 0; i < 64; ++i)
      power = std::max(power, ulps(ln::detail::portable_pow(theta, -i / 64.),
                                   std::pow(static_cast<long double>(theta), -i / 64.L)));
  BOOST_TEST(power < 16);
#if !defined(__FAST_MATH__)  // which takes subnormal numbers for 0
  for (double x = -745; x < -708; x += 0.37)
    BOOST_TEST(ulps(ln::detail::portable_exp(x), std::exp(static_cast<long double>(x))) < 2);
#endif
}

BOOST_AUTO_TEST_CASE(portable_math_at_its_ends) {
  BOOST_TEST(ln::detail::portable_exp(0) == 1);
  BOOST_TEST(ln::detail::portable_exp(-800) == 0);
  BOOST_TEST(!ln::is_finite(ln::detail::portable_exp(800)));
  BOOST_TEST(ln::detail::portable_log(1) == 0);
#if !defined(__FAST_MATH__)  // which takes a subnormal number for 0
  BOOST_TEST(ln::detail::portable_log(0x1p-1074) == -1074 * 0.69314718055994531);
#endif
  BOOST_TEST(!ln::is_finite(ln::detail::portable_log(0)));
  BOOST_TEST(ln::is_nan(ln::detail::portable_log(-1)));
  BOOST_TEST(ln::detail::portable_pow(10000, 0) == 1);
  BOOST_TEST(ln::detail::portable_pow(2, -3) == 0.125);
  BOOST_TEST(ln::detail::portable_pow(0, 0.5) == 0);
  BOOST_TEST(!ln::is_finite(ln::detail::portable_pow(0, -0.5)));
  const ln::detail::portable_angle none(0);
  BOOST_TEST(none.cosine == 1);
  BOOST_TEST(none.sine == 0);
}

}  // namespace test::portable_math_test
