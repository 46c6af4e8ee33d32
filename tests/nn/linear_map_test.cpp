// SPDX-License-Identifier: MIT
// Linear maps of two factors and of a matrix with a delta: alone, in feed-forwards and in
// attention.

#include "support/gradients.hpp"
#include "support/matrix.hpp"

namespace test::linear_map_test {

namespace {
constexpr ln::projection_kind factored{.rank = 2}, with_delta{.rank = 2, .delta = true, .alpha = 3};
constexpr ln::attention_shape decoder_shape{.d_model = 6,
                                            .heads = 2,
                                            .kv_heads = 1,
                                            .d_kv = 4,
                                            .causal = true,
                                            .bias = true,
                                            .rope = ln::rope_pairing::half};
constexpr ln::attention_shape cross_shape{
    .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .cross = true, .scaled = false};
constexpr ln::attention_shape with(ln::attention_shape a, ln::projection_kind projections) {
  a.projections = projections;
  return a;
}
template <ln::attention_shape A>
using full = ln::attention::full::layer<A>;

static_assert(ln::count_parameters<ln::low_rank_linear<7, 5, 2, true>>() == 2 * (7 + 5) + 5);
static_assert(ln::count_parameters<ln::lora_linear<7, 5, 2, 3, true>>() == 7 * 5 + 5 + 2 * 12);
static_assert(ln::low_rank_linear<7, 5, 2>::flops({.batch = 3, .length = 2}) == 2 * 6 * 2 * 12);
static_assert(ln::lora_linear<7, 5, 2>::flops({.batch = 3, .length = 2}) == 2 * 6 * (35 + 2 * 12));
static_assert(ln::count_parameters<ln::ffn::low_rank<3>::layer<8, 20, false>>() == 3 * 3 * 28);
static_assert(std::is_same_v<ln::projection<4, 5, true>, ln::linear<4, 5, true>>);

/// y[m, k] = x[m, n] W, by the numbers that the panels stand for, on some threads.
template <class T, class S>
void check_transposed(index m, index n, index k) {
  const matrix<T, S> w(n, k, 3);
  const auto x = normal<T>(m * n, 5);
  std::vector<T> alone;
  for (const int threads : {1, 3}) {
    std::vector<T> y(at(m * k), T(7));
    ln::parallel(threads, std_threads(), [&](const ln::team& team) {
      ln::ops::matmul_transposed(ln::ops::execution{team, ln::simd::best()}, m, n, k, x.data(),
                                 w.packed, y.data());
    });
    std::vector<double> want(y.size());
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < k; ++j)
        for (index r = 0; r < n; ++r)
          want[at(i * k + j)] += static_cast<double>(x[at(i * n + r)]) * w.meaning[at(r * k + j)];
    BOOST_TEST(magnitude(want) > 1);
    BOOST_TEST(distance(y, want) <= (sizeof(T) == 8 ? 1e-12 : 1e-4), S::name);
    if (threads == 1) alone = y;
    BOOST_TEST(same_bits(y, alone));
  }
}
}  // namespace

BOOST_AUTO_TEST_SUITE(linear_maps)

BOOST_AUTO_TEST_CASE(transposed_products) {
  check_transposed<double, ln::storage::f64>(3, 67, 5);
  check_transposed<float, ln::storage::f32>(2, 32, 33);
  check_transposed<float, ln::storage::bf16>(1, 31, 7);
  check_transposed<float, ln::storage::int8>(4, 65, 3);
  check_transposed<float, ln::storage::nf4>(1, 40, 70);
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<ln::low_rank_linear<7, 5, 2, true>>();
  check_layer<ln::lora_linear<7, 5, 2, 3, true>>();
}
BOOST_AUTO_TEST_CASE(gradients_in_feed_forwards) {
  check_layer<ln::ffn::low_rank<3, ln::ffn::gated_gelu>::layer<6, 5, true>>({.dropout = 0.25});
  check_layer<ln::ffn::standard<ln::activation_kind::gelu>::layer<6, 5, true, with_delta>>(
      {.dropout = 0.25});
  check_layer<ln::ffn::linear_relu::layer<6, 5, false, factored>>();
}
BOOST_AUTO_TEST_CASE(gradients_in_attention) {
  check_layer<full<with(decoder_shape, factored)>>({.d_kv = 4});
  check_layer<full<with(decoder_shape, with_delta)>>({.d_kv = 4});
  check_layer<full<with(cross_shape, factored)>>({.memory = 3});
  check_layer<full<with(cross_shape, with_delta)>>({.memory = 3});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::linear_map_test
