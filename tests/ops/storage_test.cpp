// SPDX-License-Identifier: MIT
// Storage types, exhaustively: every code is what the format says, encoding finds the nearest, and
// the vectors of every instruction-set level decode to the same numbers.

#include <bit>

#include "support/matrix.hpp"

namespace test::storage_test {

namespace {

namespace storage = ln::storage;
namespace simd = ln::simd;

std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
bool is_nan(double x) { return !ln::is_finite(x) && !(std::abs(x) > 1); }

/// A small float by the definition: sign, exponent, fraction, bias (Micikevicius et al. 2022).
double by_definition(unsigned code, int exponent_bits, int fraction_bits,
                     storage::specials specials) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const unsigned fraction = code & ((1u << fraction_bits) - 1);
  const int exponent = static_cast<int>(code >> fraction_bits) & top;
  const double sign = code >> (exponent_bits + fraction_bits) & 1u ? -1 : 1;
  const double part = fraction / std::pow(2.0, fraction_bits);
  if (exponent == top && specials == storage::specials::ieee)
    return fraction ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  if (exponent == top && fraction == (1u << fraction_bits) - 1 &&
      specials == storage::specials::nan)
    return std::numeric_limits<double>::quiet_NaN();
  return sign *
         (exponent ? std::pow(2.0, exponent - bias) * (1 + part) : std::pow(2.0, 1 - bias) * part);
}

/// All codes: the value, its encoding, and both roundings around the midpoint to the next code.
template <class S>
void check_small_float(int exponent_bits, int fraction_bits, storage::specials specials) {
  const unsigned codes = 1u << (1 + exponent_bits + fraction_bits);
  int wrong_value = 0, wrong_code = 0, wrong_middle = 0;
  for (unsigned c = 0; c < codes; ++c) {
    const double want = by_definition(c, exponent_bits, fraction_bits, specials);
    const double got = S::decode(static_cast<typename S::value>(c));
    if (is_nan(want)) {
      wrong_value += !is_nan(got);
      wrong_code += !is_nan(S::decode(S::encode(got)));
      continue;
    }
    wrong_value += got != want;
    wrong_code += static_cast<unsigned>(S::encode(got)) != c;
    const double next = by_definition(c + 1, exponent_bits, fraction_bits, specials);
    if ((c & (codes / 2 - 1)) + 1 >= codes / 2 || !ln::is_finite(next)) continue;
    const double middle = 0.5 * (want + next), beyond = std::nextafter(middle, next);
    const unsigned even = c % 2 ? c + 1 : c;
    wrong_middle += static_cast<unsigned>(S::encode(middle)) != even;
    wrong_middle += static_cast<unsigned>(S::encode(beyond)) != c + 1;
    wrong_middle += static_cast<unsigned>(S::encode(std::nextafter(middle, want))) != c;
  }
  BOOST_TEST(wrong_value == 0, S::name);
  BOOST_TEST(wrong_code == 0, S::name);
  BOOST_TEST(wrong_middle == 0, S::name);
}

/// Every code of storage S, decoded by the vectors of every level, in every place of a word.
template <class S>
void check_vectors() {
  constexpr unsigned bits = static_cast<unsigned>(simd::bits_of(S::code));
  constexpr unsigned codes = 1u << bits;
  // Words have 2 bits above their codes where codes have 3, 5 or 6; they hold codes 30 and 31.
  constexpr unsigned per_word = 32 / bits, spare = 32 % bits, of_block = spare ? bits : 1;
  constexpr unsigned block = of_block * 32 / bits;
  for_levels([&](auto kernels) {
    int wrong = 0;
    for (unsigned first = 0; first < codes; first += 32) {
      std::vector<simd::word> words(32 * of_block);
      std::vector<float> out(32 * block);
      for (unsigned i = 0; i < 32; ++i)
        for (unsigned place = 0; place < block; ++place)
          for (unsigned b = 0; b < bits; ++b) {
            unsigned to = place / per_word * 32 + place % per_word * bits + b;
            if (const unsigned last = of_block * per_word; place >= last) {
              const unsigned bit = (place - last) * bits + b;
              to = bit / (spare ? spare : 1) * 32 + 32 - spare + bit % (spare ? spare : 1);
            }
            words[to / 32 * 32 + i] |= ((first + i + place) % codes >> b & 1u) << to % 32;
          }
      decltype(kernels)::template decode_panel<S::code>(1, words.data(), nullptr, nullptr,
                                                        static_cast<float>(S::origin), out.data());
      for (unsigned i = 0; i < 32; ++i)
        for (unsigned place = 0; place < block; ++place) {
          const unsigned code = (first + i + place) % codes;
          const auto canonical = static_cast<typename S::value>(
              (code - static_cast<unsigned>(S::origin)) & (codes - 1));
          const double want = S::decode(canonical);
          const float got = out[place * 32 + i];
          wrong += is_nan(want) ? !is_nan(static_cast<double>(got))
                                : bits_of(got) != bits_of(static_cast<float>(want));
        }
    }
    BOOST_TEST(wrong == 0, S::name);
  });
}

/// Codes [2, 37] of storage S, all there are: in a row they follow each other bit by bit, and
/// panels give the same back.
template <class S>
void check_rows() {
  constexpr index n = 2, k = 37, bits = simd::bits_of(S::code);
  using value = typename S::value;
  matrix<float, S> w(n, k, 3);
  const auto code = [](index i, index j) {
    return static_cast<unsigned>(i * 29 + j * 7) % (1u << bits);
  };
  for (auto& byte : w.rows) byte = 0xff;  // what was there is overwritten
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) w.canonical.set_code(i, j, k, static_cast<value>(code(i, j)));
  ln::ops::pack(ln::ops::execution{}, n, k, w.canonical, w.packed);
  const index bytes = (k * bits + 7) / 8;
  BOOST_TEST(std::ssize(w.rows) == n * bytes, S::name);
  int wrong = 0;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      for (index b = 0; b < bits; ++b) {
        const index place = j * bits + b;
        wrong += (w.rows[at(i * bytes + place / 8)] >> place % 8 & 1) !=
                 static_cast<int>(code(i, j) >> b & 1u);
      }
      wrong += w.canonical.code(i, j, k) != code(i, j);
      wrong += w.packed.code(i, j, k) != code(i, j);
      const int signed_code = static_cast<int>(code(i, j) ^ (1u << (bits - 1))) - (1 << (bits - 1));
      wrong += S::decode(static_cast<value>(code(i, j))) != signed_code;
      if (signed_code >= -static_cast<int>(S::largest))
        wrong += S::encode(signed_code) != code(i, j);
    }
  BOOST_TEST(wrong == 0, S::name);
  auto again = w.rows;
  for (auto& byte : again) byte = 0;
  ln::ops::unpack(n, k, w.packed,
                  ln::matrix_ref<S>{again.data(), w.row_scales.data(), w.row_zeros.data()});
  BOOST_TEST(again == w.rows, S::name);
}

/// |x - decoded| is at most half a step (of the codes around x), nothing is clipped, and a second
/// rounding changes nothing.
template <class S>
void check_rounding(double largest_step) {
  constexpr index n = 37, k = 133;
  const matrix<float, S> w(n, k, 3);
  const auto x = normal<double>(n * k, 3);
  double worst = 0;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      const index g =
          i * ln::row_scales<S>(k) + (S::group ? j / (std::max)(S::group, index{1}) : 0);
      worst = (std::max)(worst, distance_of(x[at(i * k + j)], w.meaning[at(i * k + j)]) /
                                    std::abs(static_cast<double>(w.row_scales[at(g)])));
      BOOST_TEST_REQUIRE(distance_of(w.packed.at(i, j, k), w.meaning[at(i * k + j)]) <=
                         1e-6 * (1 + std::abs(w.meaning[at(i * k + j)])));
    }
  BOOST_TEST(worst <= 0.5 * largest_step * (1 + 1e-6), S::name);
  auto rows = w.rows;
  auto scales = w.row_scales, zeros = w.row_zeros;
  ln::detail::encode_matrix(n, k, w.meaning.data(),
                            ln::matrix_ref<S>{rows.data(), scales.data(), zeros.data()});
  double change = 0;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j)
      change = (std::max)(
          change,
          distance_of(ln::matrix_ref<S>{rows.data(), scales.data(), zeros.data()}.at(i, j, k),
                      w.meaning[at(i * k + j)]));
  BOOST_TEST(change <= 1e-5, S::name);
  const auto bytes = static_cast<index>(w.rows.size() * sizeof(typename S::value) +
                                        (w.row_scales.size() + w.row_zeros.size()) * sizeof(float));
  BOOST_TEST(bytes == ln::matrix_bytes<S>(n, k), S::name);
}

/// Blocks of any codes and of scales and minima of every size decode to d q + m, rounded once, in
/// rows, panels and the vectors of every level.
template <class S>
void check_blocks() {
  constexpr index n = 40, k = 96, groups = k / 32;
  using packed_type = ln::ops::packed_matrix<float, S>;
  auto random = [state = 12345u]() mutable { return (state = state * 1664525 + 1013904223) >> 8; };
  matrix<float, S> w(n, k, 3);
  for (auto& code : w.rows) code = static_cast<typename S::value>(random());
  const auto any_half = [&](float& x) {
    do x = static_cast<float>(storage::f16::decode(static_cast<std::uint16_t>(random())));
    while (!ln::is_finite(x));
  };
  for (float& scale : w.row_scales) any_half(scale);
  for (float& minimum : w.row_zeros) any_half(minimum);
  w.row_scales[1] = 0;
  w.row_scales[2] = -0x1p-24f;
  ln::ops::pack(ln::ops::execution{}, n, k, w.canonical, w.packed);
  const auto want = [&](index i, index j) {
    constexpr bool whole = std::is_same_v<S, storage::q8_0>;
    const unsigned byte = static_cast<std::uint8_t>(w.rows[at((i * k + j) / (whole ? 1 : 2))]);
    const int nibble = static_cast<int>(byte >> (j % 2 * 4) & 15);
    const int q = whole                              ? static_cast<std::int8_t>(byte)
                  : std::is_same_v<S, storage::q4_0> ? (nibble < 8 ? nibble : nibble - 16)
                                                     : nibble;
    const index g = i * groups + j / 32;
    const float product = w.row_scales[at(g)] * static_cast<float>(q);
    return w.row_zeros.empty() ? product : product + w.row_zeros[at(g)];
  };
  int wrong = 0, of_vectors = 0;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      wrong += bits_of(static_cast<float>(w.canonical.at(i, j, k))) != bits_of(want(i, j));
      wrong += bits_of(w.packed.at(i, j, k)) != bits_of(want(i, j));
    }
  BOOST_TEST(wrong == 0, S::name);
  for_levels([&](auto kernels) {
    for (index p = 0; p < 2; ++p)
      for (index g = 0; g < groups; ++g) {
        float out[32 * 32];
        const index scale = packed_type::scale_at(32 * p, 32 * g, k);
        using K = decltype(kernels);
        K::template decode_panel<S::code, ln::has_minima<S>, typename packed_type::scale>(
            packed_type::depth(32),
            w.panels.data() + (p * packed_type::depth(k) + g * packed_type::depth(32)) * 32,
            w.scales.data() + scale, S::centred ? w.zeros.data() + scale : nullptr,
            static_cast<float>(S::origin), out);
        for (index i = 32 * p; i < n && i < 32 * (p + 1); ++i)
          for (index j = 0; j < 32; ++j)
            of_vectors += bits_of(out[j * 32 + i % 32]) != bits_of(want(i, 32 * g + j));
      }
  });
  BOOST_TEST(of_vectors == 0, S::name);
}

/// Rows [rows, k] at the ends of what a float holds. The last ones are not finite.
constexpr index extreme_finite = 11, extreme_all = 14, extreme_k = 71;
std::vector<double> extreme_rows() {
  const auto at_bits = [](std::uint32_t bits) {
    return static_cast<double>(std::bit_cast<float>(bits));
  };
  const double most = at_bits(0x7f7fffff), least = at_bits(0x00800000);
  const double sizes[extreme_finite] = {
      0,    at_bits(1),         1e-44, 1e-40, 1.3e-39, least, 1e-36, most / 3, most * 0.9,
      most, at_bits(0x7f7ffffe)};
  auto x = normal<double>(extreme_all * extreme_k, 9, 0.3);
  for (index i = 0; i < extreme_all; ++i)
    for (index j = 0; j < extreme_k; ++j) {
      double& v = x[at(i * extreme_k + j)];
      v = (std::clamp)(v, -1.0, 1.0);
      if (j % 5 == 0) v = j % 2 ? -1 : 1;
      if (i % 2 && j % 5 == 0) v = 1;  // asymmetric
      v = static_cast<double>(static_cast<float>(v * (i < extreme_finite ? sizes[i] : 1)));
    }
  // A NaN, and infinities of both signs, in the second scale group or the last.
  x[at(extreme_finite * extreme_k + 9)] = at_bits(0xffc00000);
  x[at((extreme_finite + 1) * extreme_k + 70)] = at_bits(0x7f800000);
  x[at((extreme_finite + 2) * extreme_k + 17)] = at_bits(0xff800000);
  return x;
}

/// Extreme rows in storage S: what is finite decodes within half a step to finite numbers, of any
/// level's products, too; what is not gives a product that is not. `range` is the largest number of
/// storages without scales, `least` half their smallest one.
template <class S>
void check_extremes(double half_step, double range = 1e300, double least = 0) {
  constexpr index n = extreme_all, k = extreme_k;
  const auto x = extreme_rows();
  const matrix<float, S> w(n, k, x);
  const auto finite_row = [&](index i) {
    return i < extreme_finite && magnitude(std::span(x.data() + i * k, at(k))) <= range;
  };
  double worst = 0;
  for (index i = 0; i < n; ++i) {
    if (!finite_row(i)) continue;
    const double most = magnitude(std::span(x.data() + i * k, at(k)));
    for (index j = 0; j < k; ++j) {
      const double got = w.meaning[at(i * k + j)], want = x[at(i * k + j)];
      double size = std::abs(want), most_flushed = 0;
#if defined(__FAST_MATH__)  // scales that are denormal floats are written as zero
      if constexpr (S::scaled) most_flushed = S::largest * 1.2e-38;
#endif
      if constexpr (S::scaled) size = most + S::largest * 1.5e-45;  // a scale is a whole float
      // The next code may stand for more than a float holds.
      if (S::centred && std::abs(want) > 3.3e38) size *= 2;
      worst = (std::max)(
          worst, distance_of(got, want) / (half_step * size + least + most_flushed + 1e-300));
      BOOST_TEST_REQUIRE(ln::is_finite(static_cast<float>(w.packed.at(i, j, k))));
    }
  }
  BOOST_TEST(worst <= 1.001, S::name << ": " << worst << " half steps");
  for (const auto level : levels())
    for (const index m : {1, 3, 40}) {
      // One input at a time, so that nothing adds up beyond a float.
      std::vector<float> inputs(at(m * k)), y(at(m * n));
      for (index i = 0; i < m; ++i) inputs[at(i * k + i % k)] = 0.5f;
      std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 1, false)));
      ln::ops::matmul({{}, level, converted.data()}, m, n, k, inputs.data(), w.packed, y.data());
      int swallowed = 0, made = 0;
      double apart = 0;
      for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j) {
          const float got = y[at(i * n + j)];
          if (!finite_row(j)) {
            swallowed += ln::is_finite(got);
            continue;
          }
          made += !ln::is_finite(got);
          const double want = 0.5 * w.meaning[at(j * k + i % k)];
          apart = (std::max)(apart, distance_of(got, want) / (1e-2 * std::abs(want) + 1e-37));
        }
      BOOST_TEST(made == 0, S::name << ' ' << ln::simd::name(level) << " m " << m);
      BOOST_TEST(swallowed == 0, S::name << ' ' << ln::simd::name(level) << " m " << m);
      BOOST_TEST(apart <= 1, S::name << ' ' << ln::simd::name(level) << " m " << m);
    }
}

/// Inputs of a W8A8 product that are not finite, tiny or huge: their rows of outputs are not
/// finite, nearly zero or right, and the other rows are as they were.
template <class S>
void check_extreme_inputs() {
  constexpr index n = 33, k = 71;
  const matrix<float, S> w(n, k, 3);
  const std::uint32_t bits[] = {0x7fc00000, 0xffc00001, 0x7f800000, 0xff800000,
                                1,          0x00400000, 0x02000000, 0x7f7fffff};
  for (const auto level : levels())
    for (const index m : {1, 3, 40})
      for (const std::uint32_t special : bits)
        for (const index place : {0, 16, 70}) {
          auto x = normal<float>(m * k, 5, special < 0x7f000000 ? 1e-45 : 1);
          std::vector<float> before(at(m * n)), after(at(m * n));
          std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 1, false)));
          const ln::ops::execution on{{}, level, converted.data()};
          ln::ops::matmul(on, m, n, k, x.data(), w.packed, before.data());
          const index row = m / 2;
          std::memcpy(&x[at(row * k + place)], &special, sizeof special);
          ln::ops::matmul(on, m, n, k, x.data(), w.packed, after.data());
          const bool finite = ln::is_finite(x[at(row * k + place)]);
          int wrong = 0;
          for (index i = 0; i < m; ++i)
            for (index j = 0; j < n; ++j) {
              const float y = after[at(i * n + j)];
              if (i != row) {
                wrong += bits_of(y) != bits_of(before[at(i * n + j)]);
              } else if (!finite) {
                wrong += ln::is_finite(y);
              } else if (special == 0x7f7fffff) {
                // The others round to 0 beside it; the product may exceed what a float holds.
                wrong += std::abs(w.meaning[at(j * k + place)]) < 0.99 && !ln::is_finite(y);
              } else {
                wrong += distance_of(y, 0) > 1e-30;
              }
            }
          BOOST_TEST(wrong == 0, S::name << ' ' << ln::simd::name(level) << " m " << m << " bits "
                                         << special << " at " << place);
        }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(storage_types)

// Every storage over rows of zeros, of subnormal, tiny, huge and non-finite numbers, by the
// products of every level.
BOOST_AUTO_TEST_CASE(extreme_rows_in_every_storage) {
  constexpr auto by_row = storage::granularity::row, by_group = storage::granularity::group;
  constexpr auto asymmetric = storage::symmetry::asymmetric;
  check_extremes<storage::f32>(1e-7);
  check_extremes<storage::bf16>(1.0 / 256, 3.38e38, 0x1p-134);
  check_extremes<storage::f16>(1.0 / 2048, 65504, 0x1p-25);
  check_extremes<storage::fp8_e4m3>(16.0 / 448);
  check_extremes<storage::fp8_e5m2>(4096.0 / 57344);
  check_extremes<storage::int8>(0.5 / 127);
  check_extremes<storage::int8_per<by_group, storage::symmetry::symmetric, 8>>(0.5 / 127);
  check_extremes<storage::int8_per<by_row, asymmetric>>(1.0 / 255);
  check_extremes<storage::int8_per<by_group, asymmetric, 8>>(1.0 / 255);
  check_extremes<storage::int4<8>>(0.5 / 7);
  check_extremes<storage::int2<16>>(0.5);
  check_extremes<storage::int3<0>>(0.5 / 3);
  check_extremes<storage::int5<>>(0.5 / 15);
  check_extremes<storage::int6<>>(0.5 / 31);
  check_extremes<storage::nf4>(0.16);
  check_extremes<storage::fp4<8>>(1.0 / 6);
  check_extremes<storage::fp4<8, storage::fp4_scales::power_of_two>>(1.0 / 3);
  // Scales in half precision: what is tiny becomes 0.
  check_extremes<storage::q8_0>(0.5 / 127, 6e4, 1e-35);
  check_extremes<storage::q4_0>(0.5 / 7, 6e4, 1e-35);
  check_extremes<storage::q4_1>(0.5 / 7, 6e4, 1e-35);
}
BOOST_AUTO_TEST_CASE(rows_of_few_bits) {
  check_rows<storage::int2<>>();
  check_rows<storage::int3<>>();
  check_rows<storage::int4<>>();
  check_rows<storage::int5<>>();
  check_rows<storage::int6<>>();
}
BOOST_AUTO_TEST_CASE(blocks_of_ggml) {
  check_blocks<storage::q8_0>();
  check_blocks<storage::q4_0>();
  check_blocks<storage::q4_1>();
}
BOOST_AUTO_TEST_CASE(extreme_inputs_in_int8) {
  check_extreme_inputs<storage::with_compute<storage::int8, ln::compute::int8>>();
  check_extreme_inputs<storage::with_compute<
      storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>,
      ln::compute::int8>>();
  check_extreme_inputs<storage::with_compute<storage::q8_0, ln::compute::int8>>();
  check_extreme_inputs<storage::with_compute<storage::int4<8>, ln::compute::int8>>();
  check_extreme_inputs<storage::with_compute<storage::q4_1, ln::compute::int8>>();
}

// Codes have no NaN: it becomes 0, infinities the ends, without undefined behaviour.
BOOST_AUTO_TEST_CASE(codes_of_special_numbers) {
  const double nan = std::bit_cast<double>(std::uint64_t{0xfff8} << 48),
               infinity = std::bit_cast<double>(std::uint64_t{0x7ff} << 52);
  using int4 = storage::int4<8>;
  using uint8 = storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>;
  BOOST_TEST(storage::int8::encode(nan) == 0);
  BOOST_TEST(storage::int8::encode(infinity) == 127);
  BOOST_TEST(storage::int8::encode(-infinity) == -127);
  BOOST_TEST(uint8::encode(nan) == 0);
  BOOST_TEST(uint8::encode(infinity) == 255);
  BOOST_TEST(int4::encode(nan) == 0);
  BOOST_TEST(int4::encode(-infinity) == 9);
  BOOST_TEST(storage::int2<>::encode(nan) == 0);
  BOOST_TEST(storage::int3<>::encode(-infinity) == 5);
  BOOST_TEST(storage::int6<>::encode(infinity) == 31);
  BOOST_TEST(storage::nf4::encode(nan) == 7);
  BOOST_TEST(storage::nf4::encode(infinity) == 15);
  BOOST_TEST(storage::nf4::encode(-infinity) == 0);
  BOOST_TEST(storage::fp4<>::encode(nan) == 0);
  BOOST_TEST(storage::fp4<>::encode(infinity) == 7);
  BOOST_TEST(storage::fp4<>::encode(-infinity) == 15);
}

#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(small_floats) {
  using enum storage::specials;
  check_small_float<storage::bf16>(8, 7, ieee);
  check_small_float<storage::f16>(5, 10, ieee);
  check_small_float<storage::fp8_e4m3>(4, 3, nan);
  check_small_float<storage::fp8_e5m2>(5, 2, ieee);
  check_small_float<storage::fp4<>>(2, 1, none);
  const auto e4m3 = [](double x) {
    return storage::fp8_e4m3::decode(storage::fp8_e4m3::encode(x));
  };
  BOOST_TEST(e4m3(448) == 448);
  BOOST_TEST(e4m3(1e9) == 448);
  BOOST_TEST(e4m3(-1e9) == -448);
  BOOST_TEST(e4m3(std::ldexp(1.0, -9)) == std::ldexp(1.0, -9));
  BOOST_TEST(storage::fp8_e5m2::decode(0x7b) == 57344);
  BOOST_TEST(storage::f16::decode(storage::f16::encode(65520)) > 1e300);
}
BOOST_AUTO_TEST_CASE(vectors_decode_every_code) {
  check_vectors<storage::bf16>();
  check_vectors<storage::f16>();
  check_vectors<storage::fp8_e4m3>();
  check_vectors<storage::fp8_e5m2>();
  check_vectors<storage::int8>();
  check_vectors<storage::int2<>>();
  check_vectors<storage::int3<>>();
  check_vectors<storage::int4<32>>();
  check_vectors<storage::int5<>>();
  check_vectors<storage::int6<>>();
  check_vectors<storage::nf4>();
  check_vectors<storage::fp4<>>();
}
#endif

BOOST_AUTO_TEST_CASE(half_a_step_at_most) {
  check_rounding<storage::int8>(1);
  check_rounding<storage::int8_per<storage::granularity::tensor>>(1);
  check_rounding<storage::int8_per<storage::granularity::group>>(1);
  check_rounding<storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>>(1);
  check_rounding<storage::int4<32>>(1);
  check_rounding<storage::int4<128>>(1);
  check_rounding<storage::int4<0>>(1);
  check_rounding<storage::int2<16>>(1);
  check_rounding<storage::int3<64>>(1);
  check_rounding<storage::int5<>>(1);
  check_rounding<storage::int6<0>>(1);
  check_rounding<storage::q8_0>(1.07);  // codes are of scales that are rounded afterwards
  check_rounding<storage::q4_0>(2.01);  // 8 of the other sign becomes 7
  check_rounding<storage::q4_1>(1.02);
  check_rounding<storage::nf4_per<0>>(0.3039);
  check_rounding<storage::nf4>(0.3039);  // between the codes -1 and -0.69619
  check_rounding<storage::fp4<32>>(2);   // from 4 to 6
  check_rounding<storage::fp4<0>>(2);
  check_rounding<storage::fp8_e4m3>(32);  // from 416 to 448
  check_rounding<storage::fp8_e5m2>(8192);
}

// The 16 values are those of the paper, to the last of the digits in the specification.
BOOST_AUTO_TEST_CASE(nf4_table) {
  constexpr double want[] = {-1,     -.69619, -.52507, -.39492, -.28444, -.18477, -.09105, 0,
                             .07958, .16093,  .24611,  .33792,  .44071,  .56262,  .72296,  1};
  for (unsigned c = 0; c < 16; ++c)
    BOOST_TEST(distance_of(storage::nf4::decode(static_cast<std::uint8_t>(c)), want[c]) < 6e-6);
}

// All 16 values of fp4, and scales that are powers of two: the least by which no number is cut.
BOOST_AUTO_TEST_CASE(floats_of_four_bits) {
  constexpr double want[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (unsigned c = 0; c < 16; ++c)
    BOOST_TEST(storage::fp4<>::decode(static_cast<std::uint8_t>(c)) ==
               (c < 8 ? want[c] : -want[c - 8]));
  using powers = storage::fp4<8, storage::fp4_scales::power_of_two>;
  for (const auto& [most, scale] : {std::pair{6.0, 1.0},
                                    {6.0001, 2.0},
                                    {5.9, 1.0},
                                    {3.0, 0.5},
                                    {2.9, 0.5},
                                    {-0.0751, 0.015625},
                                    {-768.0, 128.0},
                                    {0.0, 1.0}}) {
    const matrix<float, powers> w(1, 8, {0, most, most / 3, 0, 0, 0, 0, 0});
    BOOST_TEST(static_cast<double>(w.row_scales[0]) == scale, most);
    BOOST_TEST(distance_of(w.meaning[1], most) <= scale);
  }
}

// Inputs as bf16 and int8: what the kernels of each level make is what the storage type makes.
BOOST_AUTO_TEST_CASE(inputs_round_like_weights) {
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {1, 2, 3, 15, 16, 17, 31, 64, 133}) {
      const auto x = normal<float>(n, 5), other = normal<float>(n, 6);
      const auto bf16 = [](float v) { return storage::bf16::encode(static_cast<double>(v)); };
      std::vector<simd::bf16_code> codes(at(n + n % 2));
      std::vector<simd::word> pairs(at(n));
      K::template to_16_bits<float>(n, x.data(), codes.data());
      K::template to_bf16_pairs<float>(n, x.data(), other.data(), pairs.data());
      std::vector<std::int8_t> bytes(at(ln::round_up(n, 4)));
      std::int32_t sum = 0, want_sum = 0;
      const auto scale =
          static_cast<double>(K::template to_int8<float>(n, x.data(), bytes.data(), sum));
      BOOST_TEST(distance_of(scale, magnitude(x) / 127) <= 1e-7 * scale);
      int wrong = 0;
      for (index i = 0; i < n; ++i) {
        wrong += codes[at(i)] != bf16(x[at(i)]);
        wrong += pairs[at(i)] != (static_cast<unsigned>(bf16(x[at(i)])) |
                                  static_cast<unsigned>(bf16(other[at(i)])) << 16);
        const double exact = static_cast<double>(x[at(i)]) / scale;
        wrong += distance_of(exact, bytes[at(i)]) > 0.5 + 1e-4;
        want_sum += bytes[at(i)];
      }
      BOOST_TEST(wrong == 0, "n " << n);
      BOOST_TEST(sum == want_sum);
    }
  });
}

// Every finite code of bf16, the midpoint to the next one and the floats around it: to the nearest,
// the even one of two. Weights' own rounding is tested in core/storage_test.cpp.
BOOST_AUTO_TEST_CASE(midpoints_in_bf16) {
  std::vector<float> x;
  for (std::uint32_t sign : {0u, 0x80000000u})
    for (std::uint32_t code = 0; code < 0x7f80; ++code)
      for (const std::uint32_t rest : {0u, 0x7fffu, 0x8000u, 0x8001u})
        x.push_back(std::bit_cast<float>(sign | code << 16 | rest));
  const index n = std::ssize(x);
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    std::vector<simd::bf16_code> codes(at(n));
    std::vector<simd::word> pairs(at(n));
    K::template to_16_bits<float>(n, x.data(), codes.data());
    K::template to_bf16_pairs<float>(n, x.data(), x.data(), pairs.data());
    int wrong = 0;
    for (index i = 0; i < n; ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(x[at(i)]), rest = bits & 0xffffu;
      const std::uint32_t code = bits >> 16,
                          want = code + (rest > 0x8000u || (rest == 0x8000u && code % 2 == 1));
      wrong += static_cast<std::uint16_t>(codes[at(i)]) != want;
      wrong += pairs[at(i)] != (want | want << 16);
    }
    BOOST_TEST(wrong == 0);
  });
}

// Half precision as caches keep it: like storage::f16, but finite numbers beyond 65504 are that.
// Every finite code, the midpoint to the next one and the floats around it; what is no number; and
// codes are read back as the numbers that they stand for.
BOOST_AUTO_TEST_CASE(rows_in_f16) {
  std::vector<float> x;
  for (std::uint32_t code = 0; code < 0x7c00; ++code) {
    const double a = storage::f16::decode(static_cast<std::uint16_t>(code)),
                 b = code == 0x7bff ? 65536
                                    : storage::f16::decode(static_cast<std::uint16_t>(code + 1));
    const auto middle = static_cast<float>(0.5 * (a + b));
    for (const float v :
         {static_cast<float>(a), std::nextafterf(middle, 0), middle, std::nextafterf(middle, 1e9f)})
      x.insert(x.end(), {v, -v});
  }
  for (const std::uint32_t bits : {0x7f800000u, 0x7fc00000u, 0x7f800001u, 0x7fffffffu, 0x7f7fffffu,
                                   0x47800000u, 0x00000001u, 0x007fffffu, 0x33000000u, 0x33000001u})
    for (const std::uint32_t sign : {0u, 0x80000000u})
      x.push_back(std::bit_cast<float>(bits | sign));
  const auto want = [](float v) {
    const auto code = static_cast<unsigned>(storage::f16::encode(static_cast<double>(v)));
    const bool beyond = (code & 0x7fffu) == 0x7c00u && ln::is_finite(v);
    return beyond ? code - 1 : code;
  };
  BOOST_TEST(want(1e9f) == 0x7bffu);
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {std::ssize(x), index{3}, std::ssize(x) - 5}) {
      std::vector<simd::f16_code> codes(at(n + n % 2));
      K::template to_16_bits<float>(n, x.data() + std::ssize(x) - n, codes.data());
      int wrong = 0;
      for (index i = 0; i < n; ++i) {
        const float from = x[at(std::ssize(x) - n + i)];
        const auto code = static_cast<unsigned>(codes[at(i)]);
        wrong += code != want(from);
        const double number = storage::f16::decode(static_cast<std::uint16_t>(code));
        const auto read = static_cast<double>(simd::number_of(codes[at(i)]));
        wrong += is_nan(number) ? !is_nan(read) : read != number;
      }
      BOOST_TEST(wrong == 0, "n " << n);
    }
  });
}

// Kernels read whole words of codes: what lies behind a row is zero, whatever was there before.
BOOST_AUTO_TEST_CASE(padding_of_inputs) {
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (index n = 1; n <= 70; ++n) {
      const auto x = normal<float>(n, 5);
      std::vector<simd::bf16_code> codes(80, static_cast<simd::bf16_code>(0x7fc0));
      std::vector<simd::f16_code> halves(80, static_cast<simd::f16_code>(0x7fc0));
      std::vector<std::int8_t> bytes(80, 99);
      std::int32_t sum = 0;
      K::template to_16_bits<float>(n, x.data(), codes.data());
      K::template to_16_bits<float>(n, x.data(), halves.data());
      K::template to_int8<float>(n, x.data(), bytes.data(), sum);
      int wrong = 0;
      for (index i = n; i < 80; ++i) {
        const int word = i < ln::round_up(n, 2) ? 0 : 0x7fc0;
        wrong += static_cast<std::uint16_t>(codes[at(i)]) != word;
        wrong += static_cast<std::uint16_t>(halves[at(i)]) != word;
        wrong += bytes[at(i)] != (i < ln::round_up(n, 4) ? 0 : 99);
      }
      BOOST_TEST(wrong == 0, "n " << n);
    }
  });
}

// Int8 codes of a row below 2^-119 are zeros with the scale 1, those of one that is not finite are
// zeros with the scale NaN.
BOOST_AUTO_TEST_CASE(special_inputs_in_int8) {
  const auto at_bits = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  for_levels([&](auto kernels) {
    for (const index n : {3, 48})  // less than a vector, and whole ones
      for (const index place : {index{0}, n - 1}) {
        const auto check = [&](float value, float scale, int code) {
          std::vector<float> x(at(n), 0.0f);
          x[at(place)] = value;
          std::vector<std::int8_t> codes(at(ln::round_up(n, 4)), 99);
          std::int32_t sum = 99;
          const float got =
              decltype(kernels)::template to_int8<float>(n, x.data(), codes.data(), sum);
          BOOST_TEST((bits_of(got) == bits_of(scale) ||
                      distance_of(got, scale) <= 1e-7 * static_cast<double>(scale)));
          for (index i = 0; i < std::ssize(codes); ++i)
            BOOST_TEST(int{codes[at(i)]} == (i == place ? code : 0));
          BOOST_TEST(sum == code);
        };
        check(0, 1, 0);
        check(0x1p-120f, 1, 0);
        check(-0x1.fffffep-120f, 1, 0);
        check(-0x1p-119f, 0x1p-119f / 127, -127);
        for (const std::uint32_t odd : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xff800001u})
          check(at_bits(odd), at_bits(0x7fc00000u), 0);
      }
  });
}

// Infinities stay, what rounds beyond the largest becomes one, and a NaN stays one.
BOOST_AUTO_TEST_CASE(special_inputs_in_bf16) {
  constexpr std::uint32_t bits[] = {0x7f800000u, 0xff800000u, 0x7f7fffffu,
                                    0x7f800001u, 0xffffffffu, 0x7f7f7fffu};
  constexpr std::uint16_t want[] = {0x7f80, 0xff80, 0x7f80, 0x7fc0, 0xffff, 0x7f7f};
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {6, 48}) {  // less than a vector, and whole ones
      std::vector<float> x(at(n));
      for (std::size_t i = 0; i < x.size(); ++i) std::memcpy(&x[i], &bits[i % 6], sizeof(float));
      std::vector<simd::bf16_code> codes(at(n));
      K::template to_16_bits<float>(n, x.data(), codes.data());
      int wrong = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        wrong += static_cast<std::uint16_t>(codes[i]) != want[i % 6];
      BOOST_TEST(wrong == 0);
    }
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::storage_test
