// SPDX-License-Identifier: MIT
// Attention whose queries and keys are normalised head by head: plain loops, gradients, caches, and
// queries of any size.

#include "support/attention.hpp"
#include "support/gradients.hpp"

namespace test::qk_norm_test {

namespace {

constexpr index h = 4, heads = 2, d = 6;
inline constexpr ln::attention_shape plain{
    .d_model = d, .heads = heads, .kv_heads = 1, .d_kv = h, .causal = true};
inline constexpr ln::attention_shape rotated = [] {
  ln::attention_shape a = plain;
  a.rope = ln::rope_pairing::interleaved;
  return a;
}();
using layer = ln::attention::qk_norm<>::layer<plain>;
using rotating = ln::attention::qk_norm<ln::attention::sliding_window<2>>::layer<rotated>;
/// A scale and a bias for queries, and for keys.
static_assert(ln::count_parameters<layer>() ==
              ln::count_parameters<ln::attention::full::layer<plain>>() + 4 * h);
static_assert(layer::flops({.batch = 2, .length = 3}) ==
              ln::attention::full::layer<plain>::flops({.batch = 2, .length = 3}));

/// LayerNorm of each head of rows [.., h].
std::vector<double> normed(std::vector<double> x, std::span<const double> scale,
                           std::span<const double> bias) {
  for (std::size_t i = 0; i < x.size(); i += at(h)) {
    double mean = 0, square = 0;
    for (std::size_t j = 0; j < at(h); ++j) mean += x[i + j] / h;
    for (std::size_t j = 0; j < at(h); ++j) square += (x[i + j] - mean) * (x[i + j] - mean) / h;
    for (std::size_t j = 0; j < at(h); ++j)
      x[i + j] = (x[i + j] - mean) / std::sqrt(square + 1e-5) * scale[j] + bias[j];
  }
  return x;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(qk_norm)

BOOST_AUTO_TEST_CASE(plain_loops) {
  constexpr index n = 5;
  attention_run<layer> run(1, n);
  run.run();
  const auto q = normed(mapped(run.x, d, run.weight("q.weight")), run.weight("q.norm.weight"),
                        run.weight("q.norm.bias"));
  const auto k = normed(mapped(run.x, d, run.weight("k.weight")), run.weight("k.norm.weight"),
                        run.weight("k.norm.bias"));
  const auto one = mapped(run.x, d, run.weight("v.weight"));
  std::vector<double> v;
  for (index j = 0; j < n; ++j)  // both heads read the one of keys and values
    for (index twice = 0; twice < heads; ++twice)
      v.insert(v.end(), one.begin() + j * h, one.begin() + (j + 1) * h);
  const auto mixed = dense_attention(
      n, n, heads, h, v, [](index, index i, index j) { return j <= i; },
      [&](index head, index i, index j) {
        double sum = 0;
        for (index c = 0; c < h; ++c) sum += q[at((i * heads + head) * h + c)] * k[at(j * h + c)];
        return sum / std::sqrt(double(h));
      });
  BOOST_TEST(distance(run.y, mapped(mixed, heads * h, run.weight("o.weight"))) < 1e-12);
  // Queries that are a hundred times as large say what they said.
  const auto before = run.y;
  for (double& w : run.weight("q.weight")) w *= 100;
  run.run();
  BOOST_TEST(distance(run.y, before) < 1e-3);
}

BOOST_AUTO_TEST_CASE(contract) {
  check_layer<layer>({.lengths = {5, 3}});
  check_layer<rotating>({.d_kv = h});
  const ln::layer_report r = ln::check_layer<rotating>({.d_kv = h, .lengths = {5, 4}});
  BOOST_TEST(r.passed(), r.message());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::qk_norm_test
