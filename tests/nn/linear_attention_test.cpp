// SPDX-License-Identifier: MIT
// Linear attention: gradients, the explicit kernel of all tokens by all tokens, decoding in pieces,
// causality, padding, threads, memory.

#include "support/mixing.hpp"

namespace test::linear_attention_test {

namespace {

using shape = ln::attention_shape;
template <shape A, class Map = ln::attention::elu_plus_one>
using layer = typename ln::attention::linear<Map>::template layer<A>;
constexpr auto interleaved = ln::rope_pairing::interleaved, half = ln::rope_pairing::half;

/// A user's own feature map.
struct softened_square {
  static std::string name() { return "softened_square"; }
  template <class Kernels, class T>
  static void map(index n, const T* x, T* y) {
    for (index i = 0; i < n; ++i) y[i] = x[i] * x[i] + T(0.25);
  }
  template <class T>
  static T derivative(T x, T) {
    return 2 * x;
  }
};

constexpr shape plain{.d_model = 9, .heads = 3, .kv_heads = 3, .d_kv = 2};
constexpr shape grouped{
    .d_model = 8, .heads = 4, .kv_heads = 2, .d_kv = 4, .causal = true, .bias = true, .rope = half};
constexpr shape small{
    .d_model = 3, .heads = 1, .kv_heads = 1, .d_kv = 2, .causal = true, .rope = interleaved};

double elu_plus_one(double x) { return x > 0 ? x + 1 : std::exp(x); }

/// The layer's output from the matrix of all kernel values, in double.
template <shape A, class Layer, class T>
std::vector<double> explicit_kernel(mixing<Layer, T>& m, const std::vector<T>& x, index batch,
                                    index length, const std::vector<index>& lengths) {
  const auto& w = m.w.tree();
  const auto bias = [](const auto& p) {
    if constexpr (A.bias)
      return static_cast<const T*>(p.bias);
    else
      return static_cast<const T*>(nullptr);
  };
  constexpr index h = A.d_kv, n = A.n(), kv = A.kv(), group = A.heads / A.kv_heads;
  const auto q = mapped(x, A.d_model, w.q.weight, n, bias(w.q));
  const auto k = mapped(x, A.d_model, w.k.weight, kv, bias(w.k));
  const auto v = mapped(x, A.d_model, w.v.weight, kv, bias(w.v));
  std::vector<double> rope(at(length * h)), mixed(q.size());
  ln::ops::rope_table(length, h, 10000.0, rope.data());
  const auto features = [&](const double* row, index t, bool turned) {
    std::vector<double> f(row, row + h);
    for (double& one : f) one = elu_plus_one(one);
    if (turned && A.rope != ln::rope_pairing::none)
      ln::ops::rope_row(A.rope, 1, h, rope.data() + t * h, f.data(), false);
    return f;
  };
  const auto product = [&](const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  for (index b = 0; b < batch; ++b)
    for (index head = 0; head < A.heads; ++head)
      for (index i = 0; i < lengths[at(b)]; ++i) {
        const double* const query = q.data() + (b * length + i) * n + head * h;
        double below = 1e-6;
        std::vector<double> above(at(h));
        for (index j = 0; j < (A.causal ? i + 1 : lengths[at(b)]); ++j) {
          const index place = (b * length + j) * kv + head / group * h;
          const double weight =
              product(features(query, i, true), features(k.data() + place, j, true));
          below += product(features(query, i, false), features(k.data() + place, j, false));
          for (index c = 0; c < h; ++c) above[at(c)] += weight * v[at(place + c)];
        }
        for (index c = 0; c < h; ++c)
          mixed[at((b * length + i) * n + head * h + c)] = above[at(c)] / below;
      }
  std::vector<double> y(x.size());
  for (index row = 0; row < batch * length; ++row)
    for (index o = 0; o < A.d_model; ++o) {
      double sum = bias(w.o) ? static_cast<double>(bias(w.o)[o]) : 0;
      for (index j = 0; j < n; ++j)
        sum += mixed[at(row * n + j)] * static_cast<double>(w.o.weight.data[o * n + j]);
      y[at(row * A.d_model + o)] = sum;
    }
  return y;
}

template <shape A, class T>
void check_explicit(index length, const std::vector<index>& lengths, double tolerance) {
  const index batch = std::ssize(lengths);
  mixing<layer<A>, T> m({.batch = batch, .length = length}, A.d_kv);
  const auto x = normal<T>(batch * length * A.d_model, 1);
  BOOST_TEST(distance(m.forward(x, length, lengths),
                      explicit_kernel<A>(m, x, batch, length, lengths)) <= tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(linear_attention)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain>>({.lengths = {3, 5}});
  check_layer<layer<grouped>>({.d_kv = 4});
  check_layer<layer<plain, softened_square>>();
}
// More than two blocks of rows, the last one short; with and without later tokens.
BOOST_AUTO_TEST_CASE(gradients_of_several_blocks) {
  constexpr index rows = ln::ops::linear_attention_rows;
  check_layer<layer<small>>({.batch = 1, .length = 2 * rows + 3, .d_kv = 2});
  check_layer<layer<shape{.d_model = 2, .heads = 2, .kv_heads = 1, .d_kv = 1}>>(
      {.batch = 1, .length = rows + 2});
}

BOOST_AUTO_TEST_CASE(equals_the_explicit_kernel) {
  check_explicit<plain, double>(150, {150, 64, 1}, 1e-13);
  check_explicit<grouped, double>(150, {150, 129}, 1e-13);
  check_explicit<small, double>(65, {65}, 1e-13);
  check_explicit<grouped, float>(150, {150, 77}, 2e-5);
}

BOOST_AUTO_TEST_CASE(pieces) {
  check_pieces<layer<grouped>>(
      150, {{63, 1, 64}, {1, 2, 1}, {1, 1, 3}, {70, 130, 66}, {15, 16, 16}}, 1e-13, 4);
  check_pieces<layer<small>>(130, std::vector<std::vector<index>>(130, {1}), 1e-13, 2);
}

BOOST_AUTO_TEST_CASE(causality) {
  check_causality<layer<grouped>>(130, 4);
  check_causality<layer<small>, float>(66, 2);
}
BOOST_AUTO_TEST_CASE(padding) {
  check_padding<layer<plain>>(70, {66, 70, 1});
  check_padding<layer<grouped>>(70, {70, 5}, 4);
}
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  check_threads<layer<plain>>(70, {66, 70});
  check_threads<layer<grouped>>(70, {70, 65}, 4);
}

// Twice the tokens are at most twice the memory; what lasts in decoding does not grow at all.
constexpr shape usual{
    .d_model = 512, .heads = 8, .kv_heads = 8, .d_kv = 64, .causal = true, .rope = half};
static_assert(bytes_of<layer<usual>>({.length = 8192, .training = true}) <=
              2 * bytes_of<layer<usual>>({.length = 4096, .training = true}));
static_assert(state_bytes_of<layer<usual>>({.length = 8192, .capacity = 8192}) ==
              4 * layer<usual>::state_values(100));
static_assert(layer<usual>::state_values(1) == 8 * (64 * 64 + 64));
static_assert(layer<usual>::flops({.length = 8192}) == 2 * layer<usual>::flops({.length = 4096}));
static_assert(ln::count_parameters<layer<usual>>() ==
              ln::count_parameters<ln::attention::full::layer<usual>>());

BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST(ln::attention::linear<>::name() == "linear<elu_plus_one>");
  BOOST_TEST(ln::attention::linear<softened_square>::name() == "linear<softened_square>");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::linear_attention_test
