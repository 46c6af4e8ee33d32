// Storage types, exhaustively: every code is what the format says, encoding finds the nearest, and
// the vectors of every instruction-set level decode to the same numbers.

#include "support/matrix.hpp"

namespace test {

namespace {

namespace storage = ln::storage;
namespace simd = ln::simd;

std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
bool is_nan(double x) { return !ln::is_finite(x) && !(std::abs(x) > 1); }

/// A small float by the definition: sign, exponent, fraction, bias (zoo E2).
double by_definition(unsigned code, int exponent_bits, int fraction_bits, bool finite) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const unsigned fraction = code & ((1u << fraction_bits) - 1);
  const int exponent = static_cast<int>(code >> fraction_bits) & top;
  const double sign = code >> (exponent_bits + fraction_bits) & 1u ? -1 : 1;
  const double part = fraction / std::pow(2.0, fraction_bits);
  if (exponent == top && !finite)
    return fraction ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  if (exponent == top && fraction == (1u << fraction_bits) - 1)
    return std::numeric_limits<double>::quiet_NaN();
  return sign *
         (exponent ? std::pow(2.0, exponent - bias) * (1 + part) : std::pow(2.0, 1 - bias) * part);
}

/// All codes: the value, its encoding, and both roundings around the midpoint to the next code.
template <class S>
void check_small_float(int exponent_bits, int fraction_bits, bool finite) {
  const unsigned codes = 1u << (1 + exponent_bits + fraction_bits);
  int wrong_value = 0, wrong_code = 0, wrong_middle = 0;
  for (unsigned c = 0; c < codes; ++c) {
    const double want = by_definition(c, exponent_bits, fraction_bits, finite);
    const double got = S::decode(static_cast<typename S::value>(c));
    if (is_nan(want)) {
      wrong_value += !is_nan(got);
      wrong_code += !is_nan(S::decode(S::encode(got)));
      continue;
    }
    wrong_value += got != want;
    wrong_code += static_cast<unsigned>(S::encode(got)) != c;
    const double next = by_definition(c + 1, exponent_bits, fraction_bits, finite);
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
  for_levels([&](auto kernels) {
    int wrong = 0;
    for (unsigned first = 0; first < codes; first += 32) {
      std::vector<simd::word> words(32);
      std::vector<float> out(at(S::per_word * 32));
      for (unsigned i = 0; i < 32; ++i)
        for (unsigned place = 0; place < S::per_word; ++place)
          words[i] |= ((first + i + place) % codes) << (place * bits);
      decltype(kernels)::template decode_panel<S::code>(1, words.data(), nullptr, nullptr,
                                                        static_cast<float>(S::origin), out.data());
      for (unsigned i = 0; i < 32; ++i)
        for (unsigned place = 0; place < S::per_word; ++place) {
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
      const index g = i * ln::row_scales<S>(k) + (S::group ? j / S::group : 0);
      worst = (std::max)(worst, distance_of(x[at(i * k + j)], w.meaning[at(i * k + j)]) /
                                    static_cast<double>(w.row_scales[at(g)]));
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

}  // namespace

BOOST_AUTO_TEST_SUITE(storage_types)

#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(small_floats) {
  check_small_float<storage::bf16>(8, 7, false);
  check_small_float<storage::f16>(5, 10, false);
  check_small_float<storage::fp8_e4m3>(4, 3, true);
  check_small_float<storage::fp8_e5m2>(5, 2, false);
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
  check_vectors<storage::int4<32>>();
  check_vectors<storage::nf4>();
}
#endif

BOOST_AUTO_TEST_CASE(half_a_step_at_most) {
  check_rounding<storage::int8>(1);
  check_rounding<storage::int8_per<storage::granularity::tensor>>(1);
  check_rounding<storage::int8_per<storage::granularity::group>>(1);
  check_rounding<storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>>(1);
  check_rounding<storage::int4<32>>(1);
  check_rounding<storage::int4<128>>(1);
  check_rounding<storage::nf4>(0.3039);   // between the codes -1 and -0.69619
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

// Inputs as bf16 and int8: what the kernels of each level make is what the storage type makes.
BOOST_AUTO_TEST_CASE(inputs_round_like_weights) {
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {1, 2, 3, 15, 16, 17, 31, 64, 133}) {
      const auto x = normal<float>(n, 5), other = normal<float>(n, 6);
      const auto bf16 = [](float v) { return storage::bf16::encode(static_cast<double>(v)); };
      std::vector<simd::bf16_code> codes(at(n + n % 2));
      std::vector<simd::word> pairs(at(n));
      K::template to_bf16<float>(n, x.data(), codes.data());
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
    K::template to_bf16<float>(n, x.data(), codes.data());
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

// Kernels read whole words of codes: what lies behind a row is zero, whatever was there before.
BOOST_AUTO_TEST_CASE(padding_of_inputs) {
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (index n = 1; n <= 70; ++n) {
      const auto x = normal<float>(n, 5);
      std::vector<simd::bf16_code> codes(80, static_cast<simd::bf16_code>(0x7fc0));
      std::vector<std::int8_t> bytes(80, 99);
      std::int32_t sum = 0;
      K::template to_bf16<float>(n, x.data(), codes.data());
      K::template to_int8<float>(n, x.data(), bytes.data(), sum);
      int wrong = 0;
      for (index i = n; i < 80; ++i) {
        wrong += static_cast<std::uint16_t>(codes[at(i)]) != (i < ln::round_up(n, 2) ? 0 : 0x7fc0);
        wrong += bytes[at(i)] != (i < ln::round_up(n, 4) ? 0 : 99);
      }
      BOOST_TEST(wrong == 0, "n " << n);
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
      K::template to_bf16<float>(n, x.data(), codes.data());
      int wrong = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        wrong += static_cast<std::uint16_t>(codes[i]) != want[i % 6];
      BOOST_TEST(wrong == 0);
    }
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
