// SPDX-License-Identifier: MIT
// Storage types: every bfloat16 code, every int8 rounding rule.

#include <bit>

#include "support/test.hpp"

namespace test::storage_test {
namespace storage = ln::storage;

/// The scale of int8 numbers up to `largest`.
float scale_of(double largest) {
  float scale = 0;
  ln::detail::fit_range<storage::int8>(-largest, 0, scale, nullptr);
  return scale;
}

namespace {
bool is_nan_code(std::uint32_t code) { return (code & 0x7fff) > 0x7f80; }
// Programs linked with -ffast-math read and write denormal floats as zero.
#if defined(__FAST_MATH__)
constexpr bool has_denormals = false;
#else
constexpr bool has_denormals = true;
#endif
bool is_denormal_code(std::uint32_t code) { return (code & 0x7f80) == 0 && (code & 0x7f) != 0; }
}  // namespace

BOOST_AUTO_TEST_SUITE(codecs)

// All 65,536 bfloat16 codes: decoding gives the float with these upper bits, encoding it again the
// same code. A NaN stays a NaN of its sign, made quiet.
BOOST_AUTO_TEST_CASE(bf16_every_code) {
  int wrong_value = 0, wrong_code = 0;
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    if (!has_denormals && is_denormal_code(code)) continue;
    const double x = storage::bf16::decode(static_cast<storage::bf16::value>(code));
    const auto again = static_cast<std::uint32_t>(storage::bf16::encode(x));
    if (is_nan_code(code)) {
      wrong_code += again != (code | 0x40);
    } else {
      wrong_value += std::bit_cast<std::uint32_t>(static_cast<float>(x)) != code << 16;
      wrong_code += again != code;
    }
  }
  BOOST_TEST(wrong_value == 0);
  BOOST_TEST(wrong_code == 0);
}

// Between each two neighbouring codes: the exact midpoint goes to the even code, one float below it
// down, one float above it up. Beyond the largest code that means infinity.
BOOST_AUTO_TEST_CASE(bf16_rounds_to_nearest_even) {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 0x7f80; ++code) {
    if (!has_denormals && (is_denormal_code(code) || code == 0)) continue;
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const std::uint32_t middle = (code | sign) << 16 | 0x8000;
      const auto encode = [](std::uint32_t bits) {
        return static_cast<std::uint32_t>(
            storage::bf16::encode(static_cast<double>(std::bit_cast<float>(bits))));
      };
      wrong += encode(middle) != ((code + (code & 1)) | sign);
      wrong += encode(middle - 1) != (code | sign);
      wrong += encode(middle + 1) != ((code + 1) | sign);
    }
  }
  BOOST_TEST(wrong == 0);
}

// int8: |x - x^| <= scale / 2 for every value of a row, codes within +-127, the largest is exact,
// and quantizing the decoded row again changes nothing.
BOOST_AUTO_TEST_CASE(int8_error_and_idempotence) {
  for (const double deviation : {1e-6, 0.02, 1.0, 300.0}) {
    const auto row = normal<float>(1000, 1, deviation);
    const double largest = magnitude(row);
    const auto scale = static_cast<double>(scale_of(largest));
    double worst = 0, changed = 0;
    int extreme = 0;
    std::vector<double> decoded;
    for (const float x : row) {
      const auto code = storage::int8::encode(static_cast<double>(x) / scale);
      extreme = (std::max)(extreme, std::abs(int{code}));
      decoded.push_back(scale * storage::int8::decode(code));
      worst = (std::max)(worst, distance_of(x, decoded.back()) / scale);
    }
    const auto again = static_cast<double>(scale_of(magnitude(decoded)));
    for (const double x : decoded)
      changed = (std::max)(changed, std::abs(again * storage::int8::encode(x / again) - x) / scale);
    BOOST_TEST(worst <= 0.5 * (1 + 1e-6));
    BOOST_TEST(worst > 0.45);  // the bound is reached: nothing is stored more finely than it says
    BOOST_TEST(extreme == 127);
    BOOST_TEST(changed < 1e-6);
  }
}

// Halves go to the even code, values outside are cut, a row of zeros has scale 1.
BOOST_AUTO_TEST_CASE(int8_rounding) {
  using int8 = storage::int8;
  BOOST_TEST(int8::encode(0.5) == 0);
  BOOST_TEST(int8::encode(1.5) == 2);
  BOOST_TEST(int8::encode(-2.5) == -2);
  BOOST_TEST(int8::encode(2.51) == 3);
  BOOST_TEST(int8::encode(127.6) == 127);
  BOOST_TEST(int8::encode(-1000) == -127);
  BOOST_TEST(scale_of(0) == 1.0f);
  BOOST_TEST(scale_of(254) == 2.0f);
}

// The scale of a group is of its own numbers, whatever stands beside it; the last may be shorter.
BOOST_AUTO_TEST_CASE(scales_of_groups) {
  using S = storage::int4<8>;
  float x[2 * 20];
  for (int i = 0; i < 40; ++i) x[i] = static_cast<float>((i % 8 - 3) * (1 << i / 4));
  S::value codes[2 * 10] = {};
  float scales[2 * 3] = {};
  ln::detail::encode_matrix<S>(2, 20, x, ln::matrix_ref<S>{codes, scales});
  const int first[] = {0, 8, 16, 20, 28, 36}, end[] = {8, 16, 20, 28, 36, 40};
  for (int g = 0; g < 6; ++g) {
    float most = 0;
    for (int i = first[g]; i < end[g]; ++i) most = (std::max)(most, std::abs(x[i]));
    BOOST_TEST(scales[g] == most / 7);
  }
}

// Bytes of a matrix: codes, and a float per row where the storage is scaled.
BOOST_AUTO_TEST_CASE(bytes_of_matrices) {
  static_assert(ln::matrix_bytes<storage::f32>(3, 5) == 60);
  static_assert(ln::matrix_bytes<storage::bf16>(3, 5) == 30);
  static_assert(ln::matrix_bytes<storage::int8>(3, 5) == 15 + 12);
  static_assert(ln::matrix_bytes<storage::f64>(3, 5) == 120);
  static_assert(ln::matrix_bytes<storage::int4<8>>(3, 9) == 3 * (5 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::q8_0>(3, 65) == 3 * (65 + 3 * 4));
  static_assert(ln::matrix_bytes<storage::q4_0>(3, 64) == 3 * (32 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::q4_1>(3, 64) == 3 * (32 + 2 * 8));
  static_assert(ln::matrix_bytes<storage::int2<>>(3, 64) == 3 * (16 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::ternary>(3, 64) == 3 * (16 + 4));
  static_assert(ln::matrix_bytes<storage::int3<64>>(3, 128) == 3 * (48 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::int3<0>>(3, 65) == 3 * (25 + 4));
  static_assert(ln::matrix_bytes<storage::int4<0>>(3, 65) == 3 * (33 + 4));
  static_assert(ln::matrix_bytes<storage::int5<>>(3, 64) == 3 * (40 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::int6<>>(3, 33) == 3 * (25 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::nf4>(3, 65) == 3 * (33 + 2 * 4));
  static_assert(ln::matrix_bytes<storage::nf4_per<0>>(3, 65) == 3 * (33 + 4));
  static_assert(ln::matrix_bytes<storage::fp4<>>(3, 65) == 3 * (33 + 3 * 4));
  static_assert(ln::bits_per_weight<storage::int3<64>>(640) == 3.5);
  static_assert(ln::bits_per_weight<storage::int4<0>>(64) == 4.5);
  static_assert(ln::bits_per_weight<storage::q4_1>(64) == 6);
  static_assert(ln::matrix_bytes<storage::fp8_e4m3>(3, 5) == 15 + 12);
  BOOST_TEST(storage::f32::decode(storage::f32::encode(0.1)) == static_cast<double>(0.1f));
  BOOST_TEST(storage::f64::decode(storage::f64::encode(0.1)) == 0.1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::storage_test
