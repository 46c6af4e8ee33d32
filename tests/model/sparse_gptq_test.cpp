// SPDX-License-Identifier: MIT
// GPTQ of storages that leave inputs out: what each step leaves is the best that later inputs can
// do, and what was pruned stays so.

#include "support/compression.hpp"

namespace test::sparse_gptq_test {

namespace {

namespace storage = ln::storage;
constexpr index rows = 5, columns = 22, texts = 60;

/// Moments of inputs that go with each other, and weights of which 2 of each 4 are 0.
struct problem {
  std::vector<double> moments;
  std::vector<float> weights;

  problem() : moments(columns * columns), weights(rows * columns) {
    std::vector<double> x(texts * columns);
    std::uint32_t state = 9;
    const auto next = [&] {
      state = state * 1664525 + 1013904223;
      return static_cast<double>(state >> 8) / (1 << 23) - 1;
    };
    for (index t = 0; t < texts; ++t) {
      const double shared = next();
      for (index j = 0; j < columns; ++j)
        x[at(t * columns + j)] =
            next() + shared * static_cast<double>(j % 3) + (j == 7 ? 6 * next() : 0);
    }
    for (index a = 0; a < columns; ++a)
      for (index b = 0; b < columns; ++b)
        for (index t = 0; t < texts; ++t)
          moments[at(a * columns + b)] += x[at(t * columns + a)] * x[at(t * columns + b)];
    for (index i = 0; i < rows * columns; ++i) {
      const index r = i / columns, j = i % columns, pair = (r + j / 4) % 3;
      const double w = next();
      const bool kept = j % 4 == pair || j % 4 == pair + 1;
      weights[at(i)] = kept ? static_cast<float>(w) : 0;
    }
  }
  ln::input_statistics statistics() const {
    ln::input_statistics x;
    x.rows = texts;
    x.width = columns;
    x.moments = moments.data();
    return x;
  }
  /// tr(D X^T X D^T) of numbers minus weights.
  template <class F>
  double error(const F& number) const {
    double sum = 0;
    for (index r = 0; r < rows; ++r)
      for (index a = 0; a < columns; ++a)
        for (index b = 0; b < columns; ++b)
          sum += (number(r, a) - static_cast<double>(weights[at(r * columns + a)])) *
                 moments[at(a * columns + b)] *
                 (number(r, b) - static_cast<double>(weights[at(r * columns + b)]));
    return sum;
  }
};

/// Codes of one matrix, with the memory that they are in.
template <class S>
struct matrix {
  ln::memory_block memory;
  ln::matrix_ref<S> codes{};

  matrix() : memory(1 << 14) {
    ln::arena bytes(memory.data(), 1 << 14);
    ln::detail::place(bytes, ln::tensor_info{rows, columns}, codes);
  }
};

/// The change of inputs after the first of `n` that makes up best for its error: the solution of
/// H x = h, H and h being those inputs' products among each other and with the first.
std::vector<double> best_change(std::vector<double> h, index n) {
  std::vector<double> x;
  for (index i = 1; i < n; ++i) x.push_back(h[at(i * n)]);
  for (index k = 1; k < n; ++k)  // elimination
    for (index i = k + 1; i < n; ++i) {
      const double by = h[at(i * n + k)] / h[at(k * n + k)];
      for (index j = k; j < n; ++j) h[at(i * n + j)] -= by * h[at(k * n + j)];
      x[at(i - 1)] -= by * x[at(k - 1)];
    }
  for (index k = n - 1; k > 0; --k) {
    for (index j = k + 1; j < n; ++j) x[at(k - 1)] -= h[at(k * n + j)] * x[at(j - 1)];
    x[at(k - 1)] /= h[at(k * n + k)];
  }
  return x;
}

/// Input by input: what is kept takes the nearest code, what is not becomes 0, and all later
/// inputs move to where the error is least.
template <class Base>
void check_steps(index group) {
  using S = storage::n_of_m<Base, 2, 4>;
  const problem p;
  matrix<S> m;
  ln::gptq::rounder rounder(ln::gptq{.block = 5});
  const auto done = rounder.round(rows, columns, p.weights.data(), m.codes, p.statistics());
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(done), (done ? "" : done.error().message()));
  double mean = 0;
  for (index j = 0; j < columns; ++j) mean += p.moments[at(j * columns + j)] / columns;
  for (index r = 0; r < rows; ++r) {
    std::vector<double> w(columns);
    for (index j = 0; j < columns; ++j)
      w[at(j)] = static_cast<double>(p.weights[at(r * columns + j)]);
    const auto pruned = w;
    ln::detail::code_grid<Base> grid;
    for (index j = 0; j < columns; ++j) {
      if (group > 0 ? j % group == 0 : j == 0) {
        std::vector<double> some;
        for (index i = j; i < (std::min)(columns, group > 0 ? j + group : columns); ++i)
          if (pruned[at(i)] != 0) some.push_back(w[at(i)]);
        grid = ln::detail::code_grid<Base>::fit(std::ssize(some), some.data());
      }
      const double number = pruned[at(j)] == 0 ? 0 : grid.at(grid.nearest(w[at(j)]));
      BOOST_TEST(std::abs(m.codes.at(r, j, columns) - number) < 1e-6,
                 r << ", " << j << ": " << m.codes.at(r, j, columns) << " for " << number);
      const index n = columns - j;
      std::vector<double> h;
      for (index a = j; a < columns; ++a)
        for (index b = j; b < columns; ++b)
          h.push_back(p.moments[at(a * columns + b)] + (a == b ? 0.01 * mean : 0));
      const auto change = best_change(h, n);
      for (index i = 1; i < n; ++i) w[at(j + i)] += (w[at(j)] - number) * change[at(i - 1)];
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sparse_gptq)

BOOST_AUTO_TEST_CASE(later_inputs_make_up_for_what_is_left_out) {
  check_steps<storage::int4<0>>(0);
  check_steps<storage::int4<8>>(16);  // of 16 inputs 8 are kept
  check_steps<storage::int8_per<ln::storage::granularity::group, storage::symmetry::asymmetric, 8>>(
      16);
}

/// In any order, and of weights that were not pruned, it loses less than rounding to nearest.
BOOST_AUTO_TEST_CASE(loses_less_than_rounding_to_nearest) {
  using S = storage::n_of_m<storage::int4<8>, 2, 4>;
  problem p;
  for (const bool whole : {false, true}) {
    if (whole)
      for (index i = 0; i < rows * columns; ++i)
        if (p.weights[at(i)] == 0) p.weights[at(i)] = static_cast<float>(i % 7 - 3) / 8;
    matrix<S> nearest;
    ln::detail::encode_matrix(rows, columns, p.weights.data(), nearest.codes);
    const auto error = [&](const matrix<S>& m) {
      return p.error([&](index r, index j) { return m.codes.at(r, j, columns); });
    };
    for (const bool act_order : {false, true}) {
      matrix<S> m;
      ln::gptq::rounder rounder(ln::gptq{.act_order = act_order});
      BOOST_REQUIRE(static_cast<bool>(
          rounder.round(rows, columns, p.weights.data(), m.codes, p.statistics())));
      BOOST_TEST(error(m) < 0.8 * error(nearest), error(m) << " for " << error(nearest));
      for (index r = 0; r < rows; ++r)
        for (index j = 0; j < columns; ++j)
          if (!whole && p.weights[at(r * columns + j)] == 0)
            BOOST_TEST(m.codes.at(r, j, columns) == 0.0);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sparse_gptq_test
