// SPDX-License-Identifier: MIT
// Instruction-set levels: which there are, and that products of low-precision inputs are the same
// integer sums at all of them, in tiles of any height.

#include <array>
#include <string_view>

#include "support/test.hpp"

namespace test::levels_test {

namespace {

namespace simd = ln::simd;
using simd::level;
using simd::panel_width;
using simd::word;

/// Words of four bytes from `bytes(number of the byte)`.
template <class F>
std::vector<word> words_of(index n, F&& bytes) {
  std::vector<word> words(at(n));
  for (index i = 0; i < 4 * n; ++i)
    words[at(i / 4)] |= static_cast<word>(bytes(i) & 255u) << i % 4 * 8;
  return words;
}
int byte_of(const std::vector<word>& words, index i) {
  return static_cast<int>(words[at(i / 4)] >> i % 4 * 8 & 255u);
}
/// words[rows, k] with k and rows exchanged.
std::vector<word> transposed(const std::vector<word>& words, index rows, index k) {
  std::vector<word> other(words.size());
  for (index i = 0; i < rows; ++i)
    for (index l = 0; l < k; ++l) other[at(l * rows + i)] = words[at(i * k + l)];
  return other;
}

constexpr index columns = 2 * panel_width, most_rows = 13;
constexpr index depths[] = {1, 2, 3, 4, 5, 8, 11, 64};

/// c[m, n] of `rows` of A at a time, A as it is or transposed.
template <class Multiply>
std::vector<float> product(index n, index k, index rows, bool turned, const std::vector<word>& a,
                           Multiply&& multiply) {
  std::vector<float> c(at(most_rows * n));
  const auto other = transposed(a, most_rows, k);
  for (index i = 0; i < most_rows; i += rows) {
    const simd::rows_operand<word> left =
        turned ? simd::rows_operand<word>{other.data() + i, 1, most_rows}
               : simd::rows_operand<word>{a.data() + i * k, k, 1};
    multiply(i, (std::min)(rows, most_rows - i), left, c.data() + i * n);
  }
  return c;
}

/// Products of signed and unsigned bytes: integers of up to 22 bits, which floats hold exactly.
void check_int8(index n, index k) {
  ln::random_stream random(ln::seed{1}, static_cast<std::uint64_t>(n * 100 + k));
  // Row 0 and column 0 hold the largest numbers, row 1 the smallest.
  const auto a = words_of(most_rows * k, [&](index i) {
    const int x = i < 4 * k ? 127 : i < 8 * k ? -127 : static_cast<int>(random.below(255)) - 127;
    return static_cast<unsigned>(x);
  });
  const auto b = words_of(
      columns * k, [&](index i) { return i / 4 % panel_width == 0 ? 255u : random.below(256); });
  std::vector<float> zeros(at(columns)), ones(at(columns), 1.0f);
  for (float& zero : zeros) zero = static_cast<float>(random.below(256));
  std::array<std::int32_t, most_rows> sums{};
  for (index i = 0; i < most_rows; ++i)
    for (index l = 0; l < 4 * k; ++l)
      sums[at(i)] += static_cast<std::int8_t>(byte_of(a, i * 4 * k + l));
  for (const bool has_zeros : {false, true}) {
    std::vector<float> want(at(most_rows * n));
    for (index i = 0; i < most_rows; ++i)
      for (index j = 0; j < n; ++j) {
        const int zero = has_zeros ? static_cast<int>(zeros[at(j)]) : 128;
        int sum = 0;
        for (index l = 0; l < 4 * k; ++l) {
          const index row = (j / panel_width * k + l / 4) * panel_width + j % panel_width;
          sum += static_cast<std::int8_t>(byte_of(a, i * 4 * k + l)) *
                 (byte_of(b, row * 4 + l % 4) - zero);
        }
        want[at(i * n + j)] = static_cast<float>(sum);
      }
    for (const level l : levels())
      for (const bool turned : {false, true})
        for (const index rows : {1, 2, 3, 7, 13})
          simd::dispatch_dot(l, [&](auto kernels) {
            const auto y =
                product(n, k, rows, turned, a, [&](index i, index count, auto left, float* c) {
                  const simd::integer_epilogue e{nullptr,
                                                 1,
                                                 false,
                                                 ones.data(),
                                                 has_zeros ? zeros.data() : nullptr,
                                                 ones.data(),
                                                 sums.data() + i};
                  decltype(kernels)::template multiply_int8<float>(
                      count, n, k, left, {b.data(), panel_width, panel_width * k}, c, n, e);
                });
            BOOST_TEST(same_bits(y, want), simd::name(l) << " n " << n << " k " << k << " rows "
                                                         << rows << " turned " << turned);
          });
  }
}

/// A number that no compiler melts with what is made of it.
float rounded(float x) {
  volatile float y = x;
  return y;
}
/// What becomes of a sum: each product and each sum on the way is rounded, at all levels.
void check_last_step(index n, bool accumulate) {
  constexpr index k = 5;
  constexpr float alpha = 0.7f;
  ln::random_stream random(ln::seed{2}, static_cast<std::uint64_t>(n));
  const auto a = words_of(most_rows * k, [&](index) { return random.below(256); });
  const auto b = words_of(columns * k, [&](index) { return random.below(256); });
  const auto scales = normal<float>(columns, 1), bias = normal<float>(columns, 2, 1e3),
             row_scales = normal<float>(most_rows, 3),
             before = normal<float>(most_rows * n, 4, accumulate ? 1e3 : 0);
  std::array<std::int32_t, most_rows> sums{};
  for (index i = 0; i < most_rows; ++i)
    for (index l = 0; l < 4 * k; ++l)
      sums[at(i)] += static_cast<std::int8_t>(byte_of(a, i * 4 * k + l));
  std::vector<float> want;
  for (index i = 0; i < most_rows; ++i)
    for (index j = 0; j < n; ++j) {
      int sum = 0;
      for (index l = 0; l < 4 * k; ++l) {
        const index row = (j / panel_width * k + l / 4) * panel_width + j % panel_width;
        sum += static_cast<std::int8_t>(byte_of(a, i * 4 * k + l)) *
               (byte_of(b, row * 4 + l % 4) - 128);
      }
      const float scale = rounded(scales[at(j)] * rounded(alpha * row_scales[at(i)]));
      const float with_bias = rounded(rounded(static_cast<float>(sum) * scale) + bias[at(j)]);
      want.push_back(accumulate ? rounded(with_bias + before[at(i * n + j)]) : with_bias);
    }
  for (const level l : levels())
    for (const index rows : {1, 2, 3, 7, 13})
      simd::dispatch_dot(l, [&](auto kernels) {
        const auto y =
            product(n, k, rows, false, a, [&](index i, index count, auto left, float* c) {
              std::copy_n(before.data() + i * n, count * n, c);
              const simd::integer_epilogue e{bias.data(),    alpha,   accumulate,
                                             scales.data(),  nullptr, row_scales.data() + i,
                                             sums.data() + i};
              decltype(kernels)::template multiply_int8<float>(
                  count, n, k, left, {b.data(), panel_width, panel_width * k}, c, n, e);
            });
        BOOST_TEST(same_bits(y, want), simd::name(l) << " n " << n << " rows " << rows);
      });
}

/// Products of pairs of bf16: within what rounding allows, and the same bits in any tile.
void check_bf16(index n, index k) {
  using ln::storage::bf16;
  const auto numbers = normal<double>(2 * (most_rows + columns) * k, 5);
  const auto pair = [&](index i) {
    return static_cast<word>(bf16::encode(numbers[at(2 * i)])) |
           static_cast<word>(bf16::encode(numbers[at(2 * i + 1)])) << 16;
  };
  const auto half = [](word w, int i) {
    return bf16::decode(static_cast<bf16::value>(w >> 16 * i & 0xffffu));
  };
  std::vector<word> a, b;
  for (index i = 0; i < most_rows * k; ++i) a.push_back(pair(i));
  for (index i = 0; i < columns * k; ++i) b.push_back(pair(most_rows * k + i));
  for (const level l : levels()) {
    std::vector<float> first;
    for (const bool turned : {false, true})
      for (const index rows : {13, 1, 2, 3, 7})
        simd::dispatch_dot(l, [&](auto kernels) {
          const auto y =
              product(n, k, rows, turned, a, [&](index, index count, auto left, float* c) {
                decltype(kernels)::template multiply_bf16<float>(
                    count, n, k, left, {b.data(), panel_width, panel_width * k}, c, n, {});
              });
          if (first.empty()) first = y;
          BOOST_TEST(same_bits(y, first), simd::name(l) << " n " << n << " k " << k << " rows "
                                                        << rows << " turned " << turned);
        });
    double worst = 0;
    for (index i = 0; i < most_rows; ++i)
      for (index j = 0; j < n; ++j) {
        double sum = 0, terms = 0;
        for (index d = 0; d < k; ++d)
          for (const int h : {0, 1}) {
            const word w = b[at((j / panel_width * k + d) * panel_width + j % panel_width)];
            const double term = half(a[at(i * k + d)], h) * half(w, h);
            sum += term;
            terms += std::abs(term);
          }
        worst = (std::max)(worst, distance_of(first[at(i * n + j)], sum) /
                                      (2.0 * static_cast<double>(k) * epsilon<float> * terms));
      }
    BOOST_TEST(worst <= 1, simd::name(l) << " n " << n << " k " << k);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(instruction_set_levels)

BOOST_AUTO_TEST_CASE(levels_of_this_machine) {
  const level best = simd::resolve(level::automatic);
  BOOST_TEST((simd::resolve(best) == best));
  BOOST_TEST((simd::resolve(level::portable) == level::portable));
#if !defined(LINNET_ONLY_LEVEL)
  // A level of another architecture, or one that this machine lacks, is its best one.
  const level machine = simd::detail::detect();
  for (const level l : simd::levels) {
    const bool is_here = simd::resolve(l) == l;
    BOOST_TEST((is_here || simd::resolve(l) == machine), simd::name(l));
#if defined(__x86_64__)
    BOOST_TEST(!(is_here && std::string_view(simd::name(l)).starts_with("neon")), simd::name(l));
#else
    BOOST_TEST(!(is_here && std::string_view(simd::name(l)).starts_with("avx")), simd::name(l));
#endif
  }
#endif
  // Options name them as LINNET_SIMD does.
  const ln::limits limits;
  ln::limits::visit_options(limits, [&](std::string_view field, const auto&, const auto& range) {
    if (field != "level") return;
    for (const level l : simd::levels)
      BOOST_TEST(std::string_view(range.names[static_cast<int>(l)]) == simd::name(l));
    BOOST_TEST(range.most == static_cast<double>(std::size(simd::levels)));
  });
}
BOOST_AUTO_TEST_CASE(integer_sums_are_equal) {
  for (const index k : depths)
    for (const index n : {64, 33, 5}) check_int8(n, k);
}
BOOST_AUTO_TEST_CASE(last_steps_of_integer_sums_are_equal) {
  for (const index n : {64, 33, 5})
    for (const bool accumulate : {false, true}) check_last_step(n, accumulate);
}
BOOST_AUTO_TEST_CASE(sums_of_bf16_in_any_tile) {
  for (const index k : depths)
    for (const index n : {64, 5}) check_bf16(n, k);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::levels_test
