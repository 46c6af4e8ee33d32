// SPDX-License-Identifier: MIT
// Nystromformer: the pseudo-inverse and its derivative, gradients, the dense reference, m = T.

#include "support/attention.hpp"

namespace test::nystrom_test {

namespace {
using ln::attention::nystrom;
using shape = ln::attention_shape;
constexpr shape plain{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3};
constexpr shape t5{
    .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true};
constexpr shape rotary{.d_model = 6,
                       .heads = 2,
                       .kv_heads = 2,
                       .d_kv = 4,
                       .bias = true,
                       .rope = ln::rope_pairing::interleaved};
template <shape A, index M, index Taps = 0>
using layer = typename nystrom<M, Taps>::template layer<A>;

constexpr shape wide{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
static_assert(ln::count_parameters<layer<wide, 32, 33>>() == 4 * 64 * 64 + 33 * 4);
static_assert(ln::count_parameters<layer<wide, 32, 0>>() == 4 * 64 * 64);
static_assert(grows_slowly<layer<wide, 32, 33>>());
static_assert(!nystrom<>::causal && !nystrom<>::supports_cache);

/// A random matrix whose rows sum to one, near the identity when `near`.
std::vector<double> stochastic(index m, double near, std::uint64_t stream) {
  auto a = normal<double>(m * m, stream);
  for (index i = 0; i < m; ++i) {
    double sum = 0;
    for (index j = 0; j < m; ++j)
      sum += a[at(i * m + j)] = std::exp(a[at(i * m + j)] + (i == j ? near : 0));
    for (index j = 0; j < m; ++j) a[at(i * m + j)] /= sum;
  }
  return a;
}
/// An inverse in memory of its own.
template <index Iterations>
struct inverse {
  index m, wide = ln::round_up(m, 32);
  std::vector<double> memory;
  ln::ops::pseudoinverse<double, Iterations> z;
  inverse(index m_, const std::vector<double>& a)
      : m(m_),
        memory(at(ln::ops::pseudoinverse<double, Iterations>::size(m, true)), 1e300),
        z{m, wide, memory.data()} {
    fill(z.a(), a);
  }
  void fill(double* to, const std::vector<double>& from) const {
    for (index i = 0; i < m * m; ++i) to[i / m * wide + i % m] = from[at(i)];
  }
  std::vector<double> compact(const double* from) const {
    std::vector<double> to(at(m * m));
    for (index i = 0; i < m * m; ++i) to[at(i)] = from[i / m * wide + i % m];
    return to;
  }
  std::vector<double> run() {
    ln::simd::dispatch(ln::simd::best(), [&](auto kernels) { z.run(kernels); });
    return compact(z.result());
  }
};
std::vector<double> product(index m, const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> c(at(m * m));
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < m; ++j)
      for (index k = 0; k < m; ++k) c[at(i * m + j)] += a[at(i * m + k)] * b[at(k * m + j)];
  return c;
}

/// The layer in plain loops, for one sample of `valid` rows x; iterations as in the paper.
std::vector<double> reference(std::span<const double> x, index d, index heads, index h, index m,
                              double scale, std::span<const double> wq, std::span<const double> wk,
                              std::span<const double> wv, std::span<const double> wo,
                              std::span<const double> taps) {
  const index valid = std::ssize(x) / d, n = heads * h, used = std::min(m, valid),
              width = std::ssize(taps) / heads;
  const auto q = mapped(x, d, wq), k = mapped(x, d, wk), v = mapped(x, d, wv);
  const auto landmarks = [&](const std::vector<double>& rows) {
    std::vector<double> y(at(used * n));
    for (index s = 0; s < used; ++s) {
      const index first = s * valid / used, last = (s + 1) * valid / used;
      for (index t = first; t < last; ++t)
        for (index c = 0; c < n; ++c)
          y[at(s * n + c)] += rows[at(t * n + c)] / double(last - first);
    }
    return y;
  };
  const auto ql = landmarks(q), kl = landmarks(k);
  const auto all = [](index, index, index) { return true; };
  const auto scores = [&](const std::vector<double>& left, const std::vector<double>& right) {
    return [&, scale](index head, index i, index j) {
      return scale * dot(left, i, right, j, heads, head, h);
    };
  };
  auto middle = dense_attention(used, valid, heads, h, v, all, scores(ql, k));
  for (index head = 0; head < heads; ++head) {
    std::vector<double> a(at(used * used)), z(a.size());
    for (index i = 0; i < used; ++i) {
      double sum = 0;
      for (index j = 0; j < used; ++j)
        sum += a[at(i * used + j)] = std::exp(scale * dot(ql, i, kl, j, heads, head, h));
      for (index j = 0; j < used; ++j) a[at(i * used + j)] /= sum;
    }
    double rows = 0, columns = 0;
    for (index i = 0; i < used; ++i) {
      double row = 0, column = 0;
      for (index j = 0; j < used; ++j)
        row += std::abs(a[at(i * used + j)]), column += std::abs(a[at(j * used + i)]);
      rows = std::max(rows, row), columns = std::max(columns, column);
    }
    for (index i = 0; i < used; ++i)
      for (index j = 0; j < used; ++j) z[at(i * used + j)] = a[at(j * used + i)] / (rows * columns);
    for (int s = 0; s < 6; ++s) {
      const auto az = product(used, a, z);
      const auto next = [&](double diagonal, std::vector<double> p) {
        for (double& value : p) value = -value;
        for (index i = 0; i < used; ++i) p[at(i * used + i)] += diagonal;
        return p;
      };
      z = product(used, z, next(13, product(used, az, next(15, product(used, az, next(7, az))))));
      for (double& value : z) value /= 4;
    }
    auto turned = middle;
    for (index i = 0; i < used; ++i)
      for (index c = 0; c < h; ++c) {
        double sum = 0;
        for (index j = 0; j < used; ++j)
          sum += z[at(i * used + j)] * middle[at((j * heads + head) * h + c)];
        turned[at((i * heads + head) * h + c)] = sum;
      }
    middle = turned;
  }
  auto mixed = dense_attention(valid, used, heads, h, middle, all, scores(q, kl));
  for (index t = 0; t < valid; ++t)
    for (index head = 0; head < heads; ++head)
      for (index r = 0; r < width; ++r) {
        const index other = t + r - width / 2;
        for (index c = 0; c < h && other >= 0 && other < valid; ++c)
          mixed[at((t * heads + head) * h + c)] +=
              taps[at(head * width + r)] * v[at((other * heads + head) * h + c)];
      }
  return mapped(mixed, n, wo);
}
}  // namespace

BOOST_AUTO_TEST_SUITE(nystrom_layer)

// A Z A = A for a matrix that six iterations can invert, and Z A = 1 after more.
BOOST_AUTO_TEST_CASE(pseudoinverse) {
  for (const index m : {1, 2, 5, 33}) {
    const auto a = stochastic(m, 6, 1);
    inverse<6> six(m, a);
    BOOST_TEST(distance(product(m, product(m, a, six.run()), a), a) <= 1e-6, "size " << m);
    inverse<20> many(m, a);
    auto one = product(m, many.run(), a);
    for (index i = 0; i < m; ++i) one[at(i * m + i)] -= 1;
    BOOST_TEST(magnitude(one) <= 1e-12, "size " << m);
  }
}
// Its derivative on a matrix that is far from inverted after six iterations.
BOOST_AUTO_TEST_CASE(pseudoinverse_backward) {
  constexpr index m = 4;
  auto a = stochastic(m, 1, 2);
  const auto weights = normal<double>(m * m, 3);
  inverse<6> z(m, a);
  (void)z.run();
  z.fill(z.z.d_result(), weights);
  ln::simd::dispatch(ln::simd::best(), [&](auto kernels) { z.z.backward(kernels); });
  const auto analytic = z.compact(z.z.da());
  for (index i = 0; i < m * m; ++i) {
    const auto loss = [&](double change) {
      auto moved = a;
      moved[at(i)] += change;
      const auto result = inverse<6>(m, moved).run();
      double sum = 0;
      for (index j = 0; j < m * m; ++j) sum += result[at(j)] * weights[at(j)];
      return sum;
    };
    BOOST_TEST(std::abs((loss(1e-6) - loss(-1e-6)) / 2e-6 - analytic[at(i)]) <=
               1e-6 * magnitude(analytic));
  }
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain, 2>>();
  check_layer<layer<plain, 3, 3>>({.length = 7, .lengths = {7, 2}});
  check_layer<layer<t5, 4, 5>>({.length = 6, .lengths = {5, 6}});
  check_layer<layer<rotary, 3, 1>>({.d_kv = 4});
}

// Lengths that are and are not multiples of m, and below it.
BOOST_AUTO_TEST_CASE(dense_reference) {
  constexpr index m = 4, length = 11, taps = 5;
  const std::vector<index> lengths{11, 8, 3, 1};
  attention_run<layer<plain, m, taps>> run(4, length, lengths);
  run.run();
  for (index b = 0; b < 4; ++b) {
    const auto expected =
        reference({run.input(b, 0), at(run.valid(b) * 6)}, 6, 2, 3, m, 1 / std::sqrt(3.0),
                  run.weight("q.weight"), run.weight("k.weight"), run.weight("v.weight"),
                  run.weight("o.weight"), run.weight("taps.weight"));
    BOOST_TEST(
        distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <= 1e-12,
        "length " << run.valid(b));
  }
}

// As many landmarks as tokens and a matrix that converges: full attention. Large keys that answer
// to one query each make softmax(q k^T) nearly the identity.
BOOST_AUTO_TEST_CASE(all_landmarks_are_full_attention) {
  constexpr shape a{.d_model = 6, .heads = 1, .kv_heads = 1, .d_kv = 6};
  attention_run<layer<a, 8>> low(1, 6);
  attention_run<ln::attention::full::layer<a>> full(1, 6);
  for (index i = 0; i < 36; ++i) {
    low.x[at(i)] = full.x[at(i)] = i / 6 == i % 6 ? 1 : 0.1 * std::sin(double(i));
    for (auto w : {low.weight("q.weight"), low.weight("k.weight"), full.weight("q.weight"),
                   full.weight("k.weight")})
      w[at(i)] = i / 6 == i % 6 ? 3.5 : 0;
  }
  low.run();
  full.run();
  BOOST_TEST(distance(low.y, full.y) <= 1e-9);
}

BOOST_AUTO_TEST_CASE(padding) { check_padding<layer<t5, 4, 3>>(9, {9, 1, 6}); }
BOOST_AUTO_TEST_CASE(threads) {
  check_threads<layer<plain, 4, 3>, float>(40, {40, 1, 35});
  check_threads<layer<rotary, 35>, double>(40, {40, 1, 35}, 4);
}
BOOST_AUTO_TEST_CASE(in_float) { check_float<layer<plain, 4, 3>>(40, {40, 1, 35}); }
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST(nystrom<>::name() == "nystrom<64, 33>");
  BOOST_TEST((nystrom<32, 0>::name()) == "nystrom<32, 0>");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::nystrom_test
