// SPDX-License-Identifier: MIT
// Linformer: gradients, the dense reference, the identity projection, padding, threads, counts.

#include "support/attention.hpp"

namespace test::linformer_test {

namespace {
using ln::attention::linformer, ln::attention::shared;
using shape = ln::attention_shape;
constexpr shape plain{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3};
constexpr shape t5{
    .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true};
constexpr shape rotary{.d_model = 6,
                       .heads = 2,
                       .kv_heads = 1,
                       .d_kv = 4,
                       .bias = true,
                       .rope = ln::rope_pairing::half};
template <shape A, index K, index Most, shared Shared = shared::heads>
using layer = typename linformer<K, Most, Shared>::template layer<A>;

constexpr shape wide{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
static_assert(ln::count_parameters<layer<wide, 32, 512>>() == 4 * 64 * 64 + 2 * 32 * 512);
static_assert(ln::count_parameters<layer<wide, 32, 512, shared::nothing>>() ==
              4 * 64 * 64 + 4 * 2 * 32 * 512);
static_assert(ln::count_parameters<layer<wide, 32, 512, shared::keys_and_values>>() ==
              4 * 64 * 64 + 32 * 512);
static_assert(grows_slowly<layer<wide, 32, 16384>>());
static_assert(!linformer<2, 3>::causal && !linformer<2, 3>::supports_cache);
}  // namespace

BOOST_AUTO_TEST_SUITE(linformer_layer)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain, 3, 5>>({.lengths = {3, 5}});
  check_layer<layer<t5, 2, 6, shared::nothing>>({.lengths = {5, 4}, .dropout = 0.2});
  check_layer<layer<rotary, 4, 5, shared::keys_and_values>>({.d_kv = 4});
  // More than one block of columns of E.
  check_layer<layer<shape{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2}, 2, 40>>(
      {.length = 37, .lengths = {37, 33}});
}

// softmax(q (E k)^T / sqrt(h)) (F v) in plain loops.
BOOST_AUTO_TEST_CASE(reference) {
  constexpr index k = 3, most = 9, length = 7, h = 3, heads = 2;
  attention_run<layer<plain, k, most>> run(2, length, {7, 4});
  run.run();
  for (index b = 0; b < 2; ++b) {
    const std::span<const double> x(run.input(b, 0), at(run.valid(b) * 6));
    const auto q = mapped(x, 6, run.weight("q.weight"));
    const auto shorter = [&](const std::vector<double>& rows, std::span<const double> e) {
      std::vector<double> y(at(k * heads * h));
      for (index i = 0; i < k; ++i)
        for (index t = 0; t < run.valid(b); ++t)
          for (index c = 0; c < heads * h; ++c)
            y[at(i * heads * h + c)] += e[at(i * most + t)] * rows[at(t * heads * h + c)];
      return y;
    };
    const auto keys = shorter(mapped(x, 6, run.weight("k.weight")), run.weight("e.weight"));
    const auto values = shorter(mapped(x, 6, run.weight("v.weight")), run.weight("f.weight"));
    const auto mixed = dense_attention(
        run.valid(b), k, heads, h, values, [](index, index, index) { return true; },
        [&](index head, index i, index j) {
          return dot(q, i, keys, j, heads, head, h) / std::sqrt(3.0);
        });
    const auto expected = mapped(mixed, heads * h, run.weight("o.weight"));
    BOOST_TEST(distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <=
               1e-12);
  }
}

// With K = T and the identity for E and F: full attention.
template <shape A, shared Shared>
void check_identity() {
  constexpr index length = 8;
  attention_run<layer<A, length, length, Shared>> low(2, length, {}, 0, A.d_kv);
  attention_run<ln::attention::full::layer<A>> full(2, length, {}, 0, A.d_kv);
  for (const char* name : {"e.weight", "f.weight"}) {
    if (name[0] == 'f' && Shared == shared::keys_and_values) continue;
    const auto e = low.weight(name);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = i / at(length) % at(length) == i % at(length) ? 1 : 0;
  }
  low.run(true);
  full.run(true);
  BOOST_TEST(distance(low.y, full.y) <= 1e-13);
  BOOST_TEST(distance(low.dx, full.dx) <= 1e-13);
}
BOOST_AUTO_TEST_CASE(identity_is_full_attention) {
  check_identity<plain, shared::heads>();
  check_identity<rotary, shared::keys_and_values>();
  check_identity<rotary, shared::nothing>();
}

BOOST_AUTO_TEST_CASE(padding) { check_padding<layer<t5, 3, 12>>(9, {9, 1, 6}); }
BOOST_AUTO_TEST_CASE(threads) {
  check_threads<layer<plain, 3, 50>, float>(40, {40, 1, 35});
  check_threads<layer<rotary, 3, 50, shared::nothing>, double>(40, {40, 1, 35}, 4);
}

BOOST_AUTO_TEST_CASE(in_float) { check_float<layer<plain, 3, 50>>(40, {40, 1, 35}); }
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST((linformer<64, 512>::name()) == "linformer<64, 512>");
  BOOST_TEST((linformer<64, 512, shared::nothing>::name()) == "linformer<64, 512, nothing>");
  BOOST_TEST((linformer<64, 512, shared::keys_and_values>::name()) ==
             "linformer<64, 512, keys_and_values>");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::linformer_test
