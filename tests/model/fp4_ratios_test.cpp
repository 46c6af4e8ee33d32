// SPDX-License-Identifier: MIT
// 4-bit floats whose scales of 32 rows differ by powers of two (Wu et al. 2023, ZeroQuant-FP).

#include <random>

#include "support/compression.hpp"

namespace test::fp4_ratios_test {

namespace {

namespace storage = ln::storage;
constexpr index rows = 70, columns = 52, group = 16, groups = 4;
using ratios = storage::fp4<group, storage::fp4_scales::power_of_two_ratios>;

/// Codes of one matrix, with the memory that they are in.
template <class S>
struct matrix {
  ln::memory_block memory;
  ln::matrix_ref<S> codes{};

  matrix() : memory(1 << 16) {
    ln::arena bytes(memory.data(), 1 << 16);
    ln::detail::place(bytes, ln::tensor_info{rows, columns}, codes);
  }
  explicit matrix(const std::vector<float>& w) : matrix() {
    ln::detail::encode_matrix(rows, columns, w.data(), codes);
  }
  double error(const std::vector<float>& w) const {
    double sum = 0;
    for (index r = 0; r < rows; ++r)
      for (index j = 0; j < columns; ++j)
        sum += std::pow(codes.at(r, j, columns) - static_cast<double>(w[at(r * columns + j)]), 2);
    return sum;
  }
};

/// Weights of rows of unlike sizes; one row is 0.
std::vector<float> weights(unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> w(rows * columns);
  for (index i = 0; i < rows * columns; ++i) {
    const double size = std::exp2(static_cast<double>(i / columns * 7 % 11) / 3);
    w[at(i)] = static_cast<float>(size * (static_cast<double>(random() % 20001) / 10000 - 1) *
                                  (i / columns != 40));
  }
  return w;
}

/// In groups of 32 rows from the first: every scale is the largest times a power of two, the least
/// that is no smaller than `own`, that of the row alone.
template <class F>
void check_ratios(const matrix<ratios>& m, const F& own) {
  bool unlike = false;
  for (index g = 0; g < groups; ++g)
    for (index first = 0; first < rows; first += 32) {
      const index last = (std::min)(rows, first + 32);
      const auto scale = [&](index r) { return m.codes.grid(r, g, columns).scale; };
      float most = 0;
      for (index r = first; r < last; ++r) most = (std::max)(most, scale(r));
      for (index r = first; r < last; ++r) {
        int power = 0;
        BOOST_TEST(std::frexp(most / scale(r), &power) == 0.5f);
        unlike = unlike || power > 1;
        const double off = own(r, g) / static_cast<double>(scale(r));
        BOOST_TEST((off > 0.5 && off <= 1), off);
      }
    }
  BOOST_TEST(unlike);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(fp4_ratios)

BOOST_AUTO_TEST_CASE(scales_differ_by_powers_of_two) {
  for (const unsigned seed : {1u, 2u, 3u, 4u}) {
    const auto w = weights(seed);
    const matrix<ratios> m(w);
    const matrix<storage::fp4<group>> plain(w);
    check_ratios(m, [&](index r, index g) {
      return static_cast<double>(plain.codes.grid(r, g, columns).scale);
    });
    // Codes are the nearest by these scales.
    for (index r = 0; r < rows; ++r)
      for (index j = 0; j < columns; ++j)
        BOOST_REQUIRE(m.codes.code(r, j, columns) ==
                      m.codes.grid(r, j / group, columns)
                          .nearest(static_cast<double>(w[at(r * columns + j)])));
    // Nothing changes what is related.
    matrix<ratios> again(w);
    again.codes.seal(rows, columns);
    BOOST_TEST(std::equal(again.codes.scales, again.codes.scales + rows * groups, m.codes.scales));
  }
}

/// In the paper's groups of 256 normal numbers, errors are smaller than with powers of two.
BOOST_AUTO_TEST_CASE(ratios_lose_less_than_powers) {
  const auto error = [](auto storage) {
    using S = decltype(storage);
    double sum = 0;
    for (const unsigned seed : {1u, 2u}) {
      auto w = normal<float>(64 * 256, seed);
      for (index i = 0; i < 64 * 256; ++i)
        w[at(i)] *= static_cast<float>(std::exp2(static_cast<double>(i / 256 * 7 % 11) / 3));
      std::vector<std::uint8_t> codes(64 * 128);
      std::vector<float> scales(64);
      const ln::matrix_ref<S> to{codes.data(), scales.data()};
      ln::detail::encode_matrix(64, 256, w.data(), to);
      for (index r = 0; r < 64; ++r)
        for (index j = 0; j < 256; ++j)
          sum += std::pow(to.at(r, j, 256) - static_cast<double>(w[at(r * 256 + j)]), 2);
    }
    return sum;
  };
  const double free = error(storage::fp4<256>{}),
               powers = error(storage::fp4<256, storage::fp4_scales::power_of_two>{}),
               ratios = error(storage::fp4<256, storage::fp4_scales::power_of_two_ratios>{});
  BOOST_TEST_MESSAGE(free << ", " << ratios << ", " << powers);
  BOOST_TEST(free < ratios);
  BOOST_TEST(ratios < 0.95 * powers);
}

namespace {
/// Methods that find scales on their way relate them before they round.
template <class Method>
void check_method(const Method& how, const ln::input_statistics& x) {
  const auto w = weights(5);
  matrix<ratios> m;
  typename Method::rounder rounder(how);
  const auto done = rounder.round(rows, columns, w.data(), m.codes, x);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(done), (done ? "" : done.error().message()));
  check_ratios(m, [&](index r, index g) {  // scales follow weights that moved
    return static_cast<double>(m.codes.grid(r, g, columns).scale);
  });
  BOOST_TEST(m.error(w) < 2 * matrix<ratios>(w).error(w));
}
}  // namespace
BOOST_AUTO_TEST_CASE(methods_relate_scales_before_they_round) {
  inputs x{200, columns};
  x.gather();
  check_method(ln::gptq{}, x.statistics());
  check_method(ln::gptq{.act_order = true}, x.statistics());
  check_method(ln::clip_search{}, x.statistics());
}

BOOST_AUTO_TEST_CASE(extreme_scales) {
  std::vector<float> w(rows * columns);
  for (index r = 0; r < rows; ++r)
    for (index j = 0; j < columns; ++j)
      w[at(r * columns + j)] = std::ldexp(1.0f, static_cast<int>(r % 8) * 33 - 120);
  w[at(3 * columns + 2)] = std::numeric_limits<float>::infinity();
  const matrix<ratios> m(w);
  for (index r = 0; r < rows; ++r) {
    const float scale = m.codes.grid(r, 0, columns).scale;
    BOOST_TEST((r == 3 ? ln::is_nan(scale) : scale >= (std::numeric_limits<float>::min)()), r);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::fp4_ratios_test
