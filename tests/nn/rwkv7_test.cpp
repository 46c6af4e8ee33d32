// SPDX-License-Identifier: MIT
// RWKV-7: gradients of both its layers, and their values against explicit transition matrices, with
// several heads, and in the limits in which the recurrence is a known one.

#include "support/gradients.hpp"
#include "support/lone_layer.hpp"

namespace test::rwkv7_test {

namespace {

using shape = ln::attention_shape;
constexpr shape numbers(index heads, index n, bool first) {
  return {.d_model = heads * n,
          .heads = heads,
          .kv_heads = heads,
          .d_kv = n,
          .causal = true,
          .first = first};
}
template <index Heads, index N, bool First>
using time_mix = ln::mixer::rwkv7::layer<numbers(Heads, N, First)>;
/// The first layer, and one of the others that reads its values.
template <index Heads, index N>
using two =
    ln::chain<ln::named<"0", time_mix<Heads, N, true>>, ln::named<"1", time_mix<Heads, N, false>>>;
template <index D, index F>
using channel_mix = ln::ffn::rwkv7_channel_mix::layer<D, F, false>;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double hyperbolic(double x) { return std::tanh(x); }
double same(double x) { return x; }

using vector = std::vector<double>;
using named_values = std::map<std::string, vector>;

/// Time mixing of one sequence x[length, heads * n], straight from the published equations.
vector reference(const named_values& all, const std::string& prefix, index heads, index n,
                 const vector& x, std::vector<vector>& first_values) {
  const index d = heads * n, length = std::ssize(x) / d;
  const bool first = first_values.empty();
  const auto p = [&](const char* name) -> const vector& { return all.at(prefix + name); };
  vector y;
  // S[head][value][key]
  std::vector<std::vector<vector>> s(at(heads), std::vector<vector>(at(n), vector(at(n))));
  for (index t = 0; t < length; ++t) {
    const auto input = [&](const char* mu) {
      vector mixed;
      for (index j = 0; j < d; ++j) {
        const double now = x[at(t * d + j)], before = t > 0 ? x[at((t - 1) * d + j)] : 0;
        mixed.push_back(now + p(mu)[at(j)] * (before - now));
      }
      return mixed;
    };
    const auto low_rank = [&](const char* in, const char* out, const char* mu, auto between) {
      vector hidden = times(p(in), input(mu));
      for (double& h : hidden) h = between(h);
      return times(p(out), hidden);
    };
    const vector r = times(p("receptance.weight"), input("x_r")),
                 key = times(p("key.weight"), input("x_k")),
                 g = low_rank("g1.weight", "g2.weight", "x_g", sigmoid),
                 decays = low_rank("w1.weight", "w2.weight", "x_w", hyperbolic),
                 rates = low_rank("a1.weight", "a2.weight", "x_a", same);
    vector v = times(p("value.weight"), input("x_v"));
    if (first) {
      first_values.push_back(v);
    } else {
      const vector shares = low_rank("v1.weight", "v2.weight", "x_v", same);
      for (std::size_t j = 0; j < at(d); ++j)
        v[j] += (first_values[at(t)][j] - v[j]) * sigmoid(p("v0")[j] + shares[j]);
    }
    vector gated;
    for (index h = 0; h < heads; ++h) {
      vector w, a, kappa, k, out;
      double square = 0;
      for (index j = h * n; j < (h + 1) * n; ++j) {
        const auto c = at(j);
        w.push_back(std::exp(-std::exp(-0.5) * sigmoid(p("w0")[c] + decays[c])));
        a.push_back(sigmoid(p("a0")[c] + rates[c]));
        kappa.push_back(key[c] * p("k_k")[c]);
        k.push_back(key[c] * (1 + (a.back() - 1) * p("k_a")[c]));
        square += kappa.back() * kappa.back();
      }
      for (double& one : kappa) one /= std::sqrt(square);
      // S <- S (diag(w) - kappa (kappa a)^T) + v k^T, with the transition as a matrix.
      auto& state = s[at(h)];
      for (std::size_t i = 0; i < at(n); ++i) {
        vector row(at(n));
        for (std::size_t j = 0; j < at(n); ++j) {
          for (std::size_t l = 0; l < at(n); ++l)
            row[j] += state[i][l] * ((l == j ? w[j] : 0) - kappa[l] * kappa[j] * a[j]);
          row[j] += v[at(h * n) + i] * k[j];
        }
        state[i] = row;
        double sum = 0;
        for (std::size_t j = 0; j < at(n); ++j) sum += row[j] * r[at(h * n) + j];
        out.push_back(sum);
      }
      double mean = 0, variance = 0, bonus = 0;
      for (const double one : out) mean += one / static_cast<double>(n);
      for (const double one : out) variance += (one - mean) * (one - mean) / static_cast<double>(n);
      for (std::size_t j = 0; j < at(n); ++j)
        bonus += r[at(h * n) + j] * k[j] * p("r_k")[at(h * n) + j];
      for (std::size_t j = 0; j < at(n); ++j) {
        const std::size_t c = at(h * n) + j;
        const double normed = (out[j] - mean) / std::sqrt(variance + 64e-5);
        gated.push_back((normed * p("ln_x.weight")[c] + p("ln_x.bias")[c] + bonus * v[c]) * g[c]);
      }
    }
    const vector o = times(p("output.weight"), gated);
    y.insert(y.end(), o.begin(), o.end());
  }
  return y;
}

/// The recurrence alone on one sequence of one head, in double.
struct recurrence {
  static constexpr index n = 21, length = 35;
  vector r = normal<double>(length * n, 1), w = vector(r.size(), 1),
         k = normal<double>(length * n, 2), v = normal<double>(length * n, 3),
         remove = vector(r.size()), weight = vector(r.size()), y = vector(r.size()),
         state = vector(at(n * n));

  void run() {
    const ln::ops::wkv7_call<double> a{
        1,
        length,
        1,
        n,
        {r.data(), w.data(), k.data(), v.data(), remove.data(), weight.data()},
        y.data(),
        state.data()};
    on_machine(2, ln::simd::best(), [&](const ln::ops::execution& on) { ln::ops::wkv7(on, a); });
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(rwkv7)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<time_mix<2, 3, true>>();
  check_layer<two<2, 3>>();
  check_layer<two<1, 5>>({.batch = 1, .length = 2});
  check_layer<time_mix<3, 1, true>>({.batch = 1, .length = 4});
  check_layer<time_mix<1, 4, true>>({.length = 35});  // three chunks
  check_layer<channel_mix<6, 10>>();
  check_layer<channel_mix<4, 3>>({.length = 1, .dropout = 0.3, .seed = 5});
}

BOOST_AUTO_TEST_CASE(time_mix_is_a_product_of_matrices) {
  constexpr index heads = 3, n = 5, d = heads * n, length = 20, batch = 2;
  const lone_layer<two<heads, n>> both;
  const auto all = normal<double>(batch * length * d, 7);
  const auto y = both.forward(all, batch, length);
  double worst = 0, size = 0;
  for (index b = 0; b < batch; ++b) {
    const vector x(all.begin() + b * length * d, all.begin() + (b + 1) * length * d);
    std::vector<vector> first_values;
    const vector between = reference(both.parameters, "0.", heads, n, x, first_values);
    const vector want = reference(both.parameters, "1.", heads, n, between, first_values);
    size = (std::max)(size, magnitude(want));
    worst =
        (std::max)(worst, distance(want, std::span(y).subspan(at(b * length * d), want.size())));
  }
  BOOST_TEST(worst < 1e-12);
  BOOST_TEST(size > 0.1);
}

BOOST_AUTO_TEST_CASE(channel_mix_is_the_formula) {
  constexpr index d = 5, f = 7, length = 6;
  const lone_layer<channel_mix<d, f>> layer;
  const auto& p = layer.parameters;
  const auto x = normal<double>(length * d, 8);
  const auto y = layer.forward(x, 1, length);
  double worst = 0;
  for (index t = 0; t < length; ++t) {
    vector mixed;
    for (index j = 0; j < d; ++j) {
      const double now = x[at(t * d + j)], before = t > 0 ? x[at((t - 1) * d + j)] : 0;
      mixed.push_back(now + p.at("x_k")[at(j)] * (before - now));
    }
    vector k = times(p.at("key.weight"), mixed);
    for (double& one : k) one = one > 0 ? one * one : 0;
    const vector v = times(p.at("value.weight"), k);
    for (index j = 0; j < d; ++j)
      worst = (std::max)(worst, distance_of(y[at(t * d + j)], v[at(j)]));
  }
  BOOST_TEST(worst < 1e-13);
}

// Without removal: linear attention with a decay per channel, as a double sum.
BOOST_AUTO_TEST_CASE(without_removal_it_is_gated_linear_attention) {
  recurrence one;
  constexpr index n = recurrence::n, length = recurrence::length;
  ln::random_stream random(ln::seed{3});
  for (double& w : one.w) w = 0.55 + 0.45 * random.uniform();
  one.remove = normal<double>(length * n, 5);
  one.run();
  double worst = 0;
  for (index t = 0; t < length; ++t) {
    vector want(at(n)), decay(at(n), 1);
    for (index s = t; s >= 0; --s) {
      double score = 0;
      for (index j = 0; j < n; ++j)
        score += one.r[at(t * n + j)] * decay[at(j)] * one.k[at(s * n + j)];
      for (index i = 0; i < n; ++i) want[at(i)] += score * one.v[at(s * n + i)];
      for (index j = 0; j < n; ++j) decay[at(j)] *= one.w[at(s * n + j)];
    }
    worst = (std::max)(worst, distance(want, std::span(one.y).subspan(at(t * n), at(n))));
  }
  BOOST_TEST(worst < 1e-12);
}

// Without decay and with all of the old value removed: the delta rule, whose state answers the last
// key with the last value.
BOOST_AUTO_TEST_CASE(with_full_removal_it_is_the_delta_rule) {
  recurrence one;
  constexpr index n = recurrence::n, length = recurrence::length;
  for (index t = 0; t < length; ++t) {
    double square = 0;
    for (index j = 0; j < n; ++j) square += one.k[at(t * n + j)] * one.k[at(t * n + j)];
    for (index j = 0; j < n; ++j) one.k[at(t * n + j)] /= std::sqrt(square);
  }
  one.r = one.remove = one.weight = one.k;
  one.run();
  BOOST_TEST(distance(one.y, one.v) < 1e-12);
}

BOOST_AUTO_TEST_CASE(counts) {
  constexpr index d = 64, rank = 32;
  static_assert(ln::count_parameters<time_mix<1, 64, true>>() ==
                4 * d * d + 2 * d * (3 * rank) + 13 * d);
  static_assert(ln::count_parameters<time_mix<1, 64, false>>() ==
                4 * d * d + 2 * d * (4 * rank) + 14 * d);
  static_assert(ln::count_parameters<channel_mix<64, 256>>() == 2 * 64 * 256 + 64);
  static_assert(time_mix<4, 16, true>::state_values(9) + channel_mix<64, 9>::state_values(9) ==
                2 * 64 + 64 * 16);
  // sqrt(768) = 27.7, sqrt(2048) = 45.3
  using ln::detail::rwkv7_rank;
  static_assert(rwkv7_rank(768, 2.5) == 64 && rwkv7_rank(768, 1.7) == 32 &&
                rwkv7_rank(768, 5) == 128);
  static_assert(rwkv7_rank(2048, 2.5) == 128 && rwkv7_rank(2048, 1.7) == 64 &&
                rwkv7_rank(2048, 5) == 224);
  ln::call_shape e;
  e.length = 3;
  BOOST_TEST((time_mix<4, 16, true>::flops(e)) ==
             3 * (2 * (4 * d * d + 6 * d * rank) + 9 * d * 16));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rwkv7_test
