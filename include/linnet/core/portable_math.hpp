// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Exponentials, logarithms and angles in double precision that have the same bits on every machine
/// and compiler. C libraries differ in their last bits; of them only the square root is used.
/// Errors stay below two units in the last place, those of angles below 4e-16. Fractional powers
/// have that error times their logarithm: 16 units for rotary embeddings. Series are Taylor's.

#include <cmath>
#include <limits>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The number `x` itself. A compiler that would melt a product with the sum around it, and so round
/// once instead of twice, sees where the product ends. With -ffast-math it also sees that a rounded
/// sum is not the sum of its parts.
template <class T>
LINNET_INLINE constexpr T unfused(T x) {
  if (__builtin_is_constant_evaluated()) return x;
#if defined(__x86_64__) && \
    (defined(__FMA__) || defined(__FMA4__) || defined(__AVX512F__) || defined(__FAST_MATH__))
  __asm__("" : "+x"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#elif defined(__riscv_flen) && __riscv_flen == 64
  __asm__("" : "+f"(x));
#elif !defined(__x86_64__)  // which has no such instruction without these
  __asm__("" : "+m"(x));
#endif
  return x;
}

/// 2^k for a `k` whose power is a normal number.
inline double power_of_two(int k) {
  const std::uint64_t bits = static_cast<std::uint64_t>(k + 1023) << 52;
  double x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
/// c[0] + x (c[1] + x (...)).
template <std::size_t N>
double polynomial(const double (&c)[N], double x) {
  double y = c[N - 1];
  for (std::size_t i = N - 1; i > 0; --i) y = unfused(y * x) + c[i - 1];
  return y;
}

// ln 2 in two parts: products of the first one with exponents are exact.
inline constexpr double ln2_high = 0x1.62e42fefp-1, ln2_low = 0x1.473de6af278edp-34;

/// e^x.
inline double portable_exp(double x) {
  if (is_nan(x)) return x;
  if (x > 709.8) return std::numeric_limits<double>::infinity();
  if (x < -745.2) return 0;
  x = unfused(x);  // which may be a product
  const double k = std::nearbyint(x * 0x1.71547652b82fep+0);
  const double high = x - unfused(k * ln2_high), low = unfused(-k * ln2_low),
               r = unfused(high + low);
  constexpr double c[] = {1. / 2,          1. / 6,        1. / 24,        1. / 120,
                          1. / 720,        1. / 5040,     1. / 40320,     1. / 362880,
                          1. / 3628800,    1. / 39916800, 1. / 479001600, 1. / 6227020800,
                          1. / 87178291200};
  // high + low is r and what its rounding lost.
  const double rest = unfused(low - (r - high)) + unfused(unfused(r * r) * polynomial(c, r));
  const double y = 1 + (r + rest);
  const int whole = static_cast<int>(k), half = whole / 2;
  return unfused(y * power_of_two(half)) * power_of_two(whole - half);
}

/// The natural logarithm of `x`.
inline double portable_log(double x) {
  if (is_nan(x) || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x == 0) return -std::numeric_limits<double>::infinity();
  if (!is_finite(x)) return x;
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact
  if (m < 0.70710678118654752) m *= 2, --exponent;
  const double k = exponent, f = m - 1, s = f / (2 + f), z = s * s;
  // log(1 + f) = 2 atanh(s), in which 2 s = f - s f.
  constexpr double c[] = {2. / 3,  2. / 5,  2. / 7,  2. / 9,  2. / 11, 2. / 13,
                          2. / 15, 2. / 17, 2. / 19, 2. / 21, 2. / 23};
  const double half = unfused(0.5 * f * f), more = unfused(z * polynomial(c, z));
  const double lesser = unfused(s * (half + more)) + unfused(k * ln2_low);
  return unfused(k * ln2_high) - ((half - lesser) - f);
}

/// x^y of an `x` that is not negative, or with a whole `y` of any. Small whole powers are products.
inline double portable_pow(double x, double y) {
  if (y == std::nearbyint(y) && std::abs(y) <= 1024) {
    double power = 1, square = x;
    for (auto n = static_cast<unsigned>(std::abs(y)); n > 0; n /= 2, square *= square)
      if (n % 2 != 0) power *= square;
    return unfused(y < 0 ? 1 / power : power);
  }
  if (x == 0) return y < 0 ? std::numeric_limits<double>::infinity() : 0;
  return portable_exp(y * portable_log(x));
}

/// The cosine and the sine of an angle up to 2^31.
struct portable_angle {
  double cosine, sine;

  explicit portable_angle(double x) {
    const double k = std::nearbyint(x * 0x1.45f306dc9c883p-1);
    // Quarters of a turn, in parts of 22 bits, so that their products with k are exact.
    constexpr double quarter[] = {0x1.921fbp0, 0x1.5110bp-22, 0x1.1846980p-44, 0x1.3198ap-69,
                                  0x1.701b8p-92};
    double high = unfused(x), low = 0;
    for (const double part : quarter) {
      const double by = unfused(-k * part), sum = unfused(high + by), theirs = unfused(sum - high);
      low += (high - (sum - theirs)) + (by - theirs);
      high = sum;
    }
    const double r = unfused(high + low);
    low = low - (r - high);
    const double z = unfused(r * r);
    constexpr double s[] = {
        -1. / 6,         1. / 120,         -1. / 5040,           1. / 362880,
        -1. / 39916800., 1. / 6227020800., -1. / 1307674368000., 1. / 355687428096000.};
    constexpr double c[] = {
        1. / 24,         -1. / 720,          1. / 40320,           -1. / 3628800,
        1. / 479001600., -1. / 87178291200., 1. / 20922789888000., -1. / 6402373705728000.};
    const double half = 0.5 * z, about = 1 - half;
    const double of_sine = r + (unfused(unfused(r * z) * polynomial(s, z)) + unfused(low * about));
    const double of_cosine =
        about +
        (((1 - about) - half) + (unfused(unfused(z * z) * polynomial(c, z)) - unfused(r * low)));
    const auto turn = static_cast<std::int64_t>(k) & 3;
    sine = turn % 2 == 0 ? of_sine : of_cosine;
    cosine = turn % 2 == 0 ? of_cosine : of_sine;
    if (turn >= 2) sine = -sine;
    if (turn == 1 || turn == 2) cosine = -cosine;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
