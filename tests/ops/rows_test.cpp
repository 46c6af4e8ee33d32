// SPDX-License-Identifier: MIT
// Kernels over rows: every width from 1 to 70 at every instruction-set level against double, and
// the error bounds that simd/vector.inl states, over dense ranges.

#include <functional>

#include "support/test.hpp"

namespace test::rows_test {

namespace {

using kind = ln::activation_kind;

template <class T>
constexpr double small = sizeof(T) == 8 ? 1e-13 : 2e-6;

double sum_of(index n, const std::function<double(index)>& f) {
  double sum = 0;
  for (index i = 0; i < n; ++i) sum += f(i);
  return sum;
}

/// Everything below, for one width.
template <class T>
void check_rows(index n) {
  const auto x = normal<T>(n, 1), y = normal<T>(n, 2), gamma = normal<T>(n, 3),
             beta = normal<T>(n, 4), dx0 = normal<T>(n, 5);
  const auto d = [](const std::vector<T>& v, index i) { return static_cast<double>(v[at(i)]); };
  const auto all = [&](const std::function<double(index)>& f) {
    std::vector<double> r;
    for (index i = 0; i < n; ++i) r.push_back(f(i));
    return r;
  };
  const auto size = static_cast<double>(n);
  const double eps = 0.01, largest = *std::max_element(x.begin(), x.end());

  // Softmax, and its derivative in closed form.
  const double mass = sum_of(n, [&](index i) { return std::exp(d(x, i) - largest); });
  const auto p = all([&](index i) { return std::exp(d(x, i) - largest) / mass; });
  const double inner = sum_of(n, [&](index i) { return p[at(i)] * d(y, i); });
  const auto d_softmax = all([&](index i) { return p[at(i)] * (d(y, i) - inner); });

  // RMSNorm.
  const double root =
      1 / std::sqrt(sum_of(n, [&](index i) { return d(x, i) * d(x, i); }) / size + eps);
  const double ux = sum_of(n, [&](index i) { return d(y, i) * d(gamma, i) * d(x, i); }) / size;
  const auto rms = all([&](index i) { return d(gamma, i) * d(x, i) * root; });
  const auto d_rms = all([&](index i) {
    return d(dx0, i) + root * d(y, i) * d(gamma, i) - d(x, i) * root * root * root * ux;
  });

  // LayerNorm.
  const double mean = sum_of(n, [&](index i) { return d(x, i); }) / size;
  const double spread =
      1 / std::sqrt(sum_of(n, [&](index i) { return (d(x, i) - mean) * (d(x, i) - mean); }) / size +
                    eps);
  const auto hat = all([&](index i) { return (d(x, i) - mean) * spread; });
  const auto layer = all([&](index i) { return d(gamma, i) * hat[at(i)] + d(beta, i); });
  const double u_mean = sum_of(n, [&](index i) { return d(y, i) * d(gamma, i); }) / size;
  const double uh_mean =
      sum_of(n, [&](index i) { return d(y, i) * d(gamma, i) * hat[at(i)]; }) / size;
  const auto d_layer = all([&](index i) {
    return d(dx0, i) + spread * (d(y, i) * d(gamma, i) - u_mean - hat[at(i)] * uh_mean);
  });

  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    const double tolerance = small<T>, sums = tolerance * size;
    const auto close = [&](const std::vector<T>& got, const std::vector<double>& want,
                           const char* what) {
      BOOST_TEST(distance(got, want) <= tolerance * (std::max)(1.0, magnitude(want)),
                 what << ", width " << n);
    };
    BOOST_TEST(K::template maximum<T>(n, x.data()) == *std::max_element(x.begin(), x.end()));
    BOOST_TEST(distance_of(K::template total<T>(n, x.data()), mean * size) <= sums);
    BOOST_TEST(distance_of(K::template dot<T>(n, x.data(), y.data()),
                           sum_of(n, [&](index i) { return d(x, i) * d(y, i); })) <= sums);

    // A number between the rows does not count, one at any place in them does.
    for (const T odd : {std::numeric_limits<T>::quiet_NaN(), -std::numeric_limits<T>::infinity()}) {
      const index stride = n + 3;
      auto some = normal<T>(3 * stride, 13);
      some[at(n)] = some[at(2 * stride - 1)] = odd;
      BOOST_TEST(K::template all_finite<T>(3, n, some.data(), stride));
      for (const index place : {index{0}, n - 1, stride + n / 2, 2 * stride + n - 1}) {
        const T before = std::exchange(some[at(place)], odd);
        BOOST_TEST(!K::template all_finite<T>(3, n, some.data(), stride), place);
        some[at(place)] = before;
      }
    }

    // One query against some keys, and the mix of as many values, rows `stride` apart.
    for (const index rows : {1, 3, 7, 16, 21, 37}) {
      const index stride = n + 3;
      const auto keys = normal<T>(rows * stride, 11), weights = normal<T>(rows, 12);
      std::vector<T> scores(at(rows)), mixed(at(n));
      const ln::simd::token_rows<T> tokens{keys.data(), stride};
      K::template dots<T>(0, rows, n, T(0.5), x.data(), tokens, scores.data());
      K::template mix<T>(0, rows, n, weights.data(), tokens, mixed.data());
      for (index j = 0; j < rows; ++j)
        BOOST_TEST(distance_of(scores[at(j)], 0.5 * sum_of(n, [&](index i) {
                                                return d(x, i) * d(keys, j * stride + i);
                                              })) <= sums);
      for (index i = 0; i < n; ++i)
        BOOST_TEST(distance_of(mixed[at(i)], sum_of(rows, [&](index j) {
                                 return d(weights, j) * d(keys, j * stride + i);
                               })) <= small<T> * static_cast<double>(rows + 1));
    }

    auto r = y;
    K::template add<T>(n, r.data(), x.data(), r.data());
    close(r, all([&](index i) { return d(y, i) + d(x, i); }), "add");
    K::template scale<T>(n, T(0), r.data());
    close(r, all([](index) { return 0; }), "scale");

    r = x;
    K::template softmax<T>(n, r.data());
    close(r, p, "softmax");
    std::vector<T> probabilities(p.begin(), p.end()), d_x = y;
    K::template softmax_backward<T>(n, probabilities.data(), d_x.data(), d_x.data());
    close(d_x, d_softmax, "softmax_backward");
    r = x;
    BOOST_TEST(distance_of(K::template exp_sum<T>(n, static_cast<T>(largest), r.data()), mass) <=
               sums);

    const T one_over =
        K::template rms_norm<T>(n, static_cast<T>(eps), x.data(), gamma.data(), r.data());
    BOOST_TEST(distance_of(one_over, root) <= tolerance * root * 4);
    close(r, rms, "rms_norm");
    d_x = dx0;
    K::template rms_norm_backward<T>(n, one_over, x.data(), gamma.data(), y.data(), d_x.data());
    close(d_x, d_rms, "rms_norm_backward");

    T statistics[2] = {};
    K::template layer_norm<T>(n, static_cast<T>(eps), x.data(), gamma.data(), beta.data(), r.data(),
                              statistics);
    close(r, layer, "layer_norm");
    BOOST_TEST(distance_of(statistics[0], mean) <= tolerance);
    BOOST_TEST(distance_of(statistics[1], spread) <= tolerance * spread * 4);
    d_x = dx0;
    K::template layer_norm_backward<T>(n, statistics, x.data(), gamma.data(), y.data(), d_x.data());
    close(d_x, d_layer, "layer_norm_backward");
  });
}

/// The activations by their definitions.
double activate(kind a, double x) {
  constexpr double c = 0.79788456080286536;
  switch (a) {
    case kind::relu:
      return x > 0 ? x : 0;
    case kind::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case kind::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(c * (x + 0.044715 * x * x * x)));
    default:
      return x / (1 + std::exp(-x));
  }
}
double slope(kind a, double x) {
  constexpr double c = 0.79788456080286536, pi = 3.14159265358979324;
  switch (a) {
    case kind::relu:
      return x > 0;
    case kind::gelu:
      return 0.5 * (1 + std::erf(x / std::sqrt(2.0))) +
             x * std::exp(-x * x / 2) / std::sqrt(2 * pi);
    case kind::gelu_tanh: {
      const double t = std::tanh(c * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    }
    default: {
      const double s = 1 / (1 + std::exp(-x));
      return s + x * s * (1 - s);
    }
  }
}

/// What the stated bounds of exp (relative 2e-7), tanh (3e-7) and erf (4e-7) allow an activation to
/// be wrong by in float; rounding of its own steps included.
double allowed(kind a, double x) {
  const double rounding = 4 * epsilon<float> * (1 + std::abs(x));
  if (a == kind::gelu) return 0.5 * std::abs(x) * 4e-7 + rounding;
  if (a == kind::gelu_tanh) return 0.5 * std::abs(x) * 3e-7 + rounding;
  return rounding;
}

// -ffast-math divides by approximate reciprocals.
#if defined(__FAST_MATH__)
constexpr double fast_math_factor = 2;
#else
constexpr double fast_math_factor = 1;
#endif

template <kind A>
void check_activation() {
  std::vector<float> x;
  for (int i = -12000; i <= 12000; ++i) x.push_back(static_cast<float>(i) * 0.001f);
  for (int i = 0; i < 200; ++i)
    for (const float sign : {-1.0f, 1.0f})
      x.push_back(sign * std::pow(10.0f, static_cast<float>(i) * 0.05f - 6));
  const auto n = std::ssize(x);
  const std::vector<double> exact(x.begin(), x.end());
  const auto up = normal<float>(n, 1), dy = normal<float>(n, 2);
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    std::vector<float> y(x.size()), dx(x.size(), 1.0f), product(x.size()), d_gate(x.size()),
        d_up(x.size());
    K::template activation<A, float>(n, x.data(), y.data());
    K::template activation_backward<A, float>(n, x.data(), dy.data(), dx.data());
    K::template gated<A, float>(n, x.data(), up.data(), product.data());
    K::template gated_backward<A, float>(n, x.data(), up.data(), dy.data(), d_gate.data(),
                                         d_up.data());
    double value = 0, derivative = 0, gate = 0, worst_x = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double f = activate(A, exact[i]), s = slope(A, exact[i]);
      const double bound = fast_math_factor * allowed(A, exact[i]);
      const double slope_bound = fast_math_factor == 1 ? 1.5e-6 : 1.5e-5 * (1 + std::abs(exact[i]));
      const auto g = static_cast<double>(dy[i]), u = static_cast<double>(up[i]);
      const double error = distance_of(y[i], f) / bound;
      if (error > value) worst_x = exact[i];
      value = (std::max)(value, error);
      derivative =
          (std::max)(derivative, distance_of(dx[i], 1 + g * s) / (slope_bound * (1 + std::abs(g))));
      gate = (std::max)(gate, distance_of(product[i], f * u) / (bound * (1 + std::abs(u))));
      gate = (std::max)(gate,
                        distance_of(d_gate[i], g * u * s) / (slope_bound * (1 + std::abs(g * u))));
      gate = (std::max)(gate, distance_of(d_up[i], g * f) / (bound * (1 + std::abs(g))));
    }
    BOOST_TEST(value <= 1, "activation " << static_cast<int>(A) << " at " << worst_x);
    BOOST_TEST(derivative <= 1, "activation " << static_cast<int>(A));
    BOOST_TEST(gate <= 1, "activation " << static_cast<int>(A));

    // In double nothing is approximated.
    std::vector<double> fine(x.size()), d_fine(x.size()), ones(x.size(), 1.0);
    K::template activation<A, double>(n, exact.data(), fine.data());
    K::template activation_backward<A, double>(n, exact.data(), ones.data(), d_fine.data());
    double rough = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      rough =
          (std::max)(rough, distance_of(fine[i], activate(A, exact[i])) / (1 + std::abs(exact[i])));
      rough = (std::max)(rough, distance_of(d_fine[i], slope(A, exact[i])));
    }
    BOOST_TEST(rough < 1e-14, "activation " << static_cast<int>(A));
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(rows)

BOOST_AUTO_TEST_CASE(every_width_float) {
  for (index n = 1; n <= 70; ++n) check_rows<float>(n);
}
BOOST_AUTO_TEST_CASE(every_width_double) {
  for (index n = 1; n <= 70; ++n) check_rows<double>(n);
}

BOOST_AUTO_TEST_CASE(relu) { check_activation<kind::relu>(); }
BOOST_AUTO_TEST_CASE(gelu) { check_activation<kind::gelu>(); }
BOOST_AUTO_TEST_CASE(gelu_tanh) { check_activation<kind::gelu_tanh>(); }
BOOST_AUTO_TEST_CASE(silu) { check_activation<kind::silu>(); }

// exp in float: relative error below 2e-7 on [-87, 88], and 0 below.
BOOST_AUTO_TEST_CASE(exponential_bound) {
  std::vector<float> x;
  for (int i = -87000; i <= 88000; ++i)
    x.push_back((std::min)(static_cast<float>(i) / 1000.0f, 88.0f));
  for_levels([&](auto kernels) {
    auto y = x;
    decltype(kernels)::template exp_sum<float>(std::ssize(y), 0.0f, y.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      worst = (std::max)(worst, distance_of(y[i], want) / want);
    }
    BOOST_TEST(worst < 2e-7);
    std::vector<float> far{-88.0f, -100.0f, -1e4f, -1e30f, 0.0f};
    decltype(kernels)::template exp_sum<float>(std::ssize(far), 0.0f, far.data());
    BOOST_TEST(far == (std::vector<float>{0, 0, 0, 0, 1}), boost::test_tools::per_element());
  });
}

// Softmax of huge logits: the winner takes all, ties share, nothing overflows.
BOOST_AUTO_TEST_CASE(softmax_of_huge_logits) {
  for_levels([&](auto kernels) {
    std::vector<float> x{1e4f, -1e4f, 1e4f, 0.0f, -3e38f};
    decltype(kernels)::template softmax<float>(std::ssize(x), x.data());
    BOOST_TEST(x == (std::vector<float>{0.5f, 0, 0.5f, 0, 0}), boost::test_tools::per_element());
  });
}

// Nothing finite becomes NaN, however large; and logits of minus infinity have no probability, as
// those who mask with it expect.
#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(extreme_values) {
  constexpr float most = 3e38f, infinity = std::numeric_limits<float>::infinity();
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    std::vector<float> p{1, -infinity, 1, -most}, q{most, -most};
    K::template softmax<float>(std::ssize(p), p.data());
    K::template softmax<float>(std::ssize(q), q.data());
    BOOST_TEST(p == (std::vector<float>{0.5f, 0, 0.5f, 0}), boost::test_tools::per_element());
    BOOST_TEST(q == (std::vector<float>{1, 0}), boost::test_tools::per_element());
    const std::vector<float> x{1e13f, -1e13f, 1e20f, -1e20f, most, -most};
    const auto check = [&](auto activate_all) {
      std::vector<float> y(x.size());
      activate_all(y.data());
      for (std::size_t i = 0; i < x.size(); ++i) BOOST_TEST(y[i] == (std::max)(x[i], 0.0f));
    };
    check([&](float* y) { K::template activation<kind::relu, float>(std::ssize(x), x.data(), y); });
    check([&](float* y) { K::template activation<kind::gelu, float>(std::ssize(x), x.data(), y); });
    check([&](float* y) {
      K::template activation<kind::gelu_tanh, float>(std::ssize(x), x.data(), y);
    });
  });
}
#endif

/// Whether exactly the numbers [first, last) of x are not finite.
template <class T>
bool only_here(const std::vector<T>& x, std::size_t first, std::size_t last) {
  for (std::size_t i = 0; i < x.size(); ++i)
    if (ln::is_finite(x[i]) == (i >= first && i < last)) return false;
  return true;
}

/// A NaN, of either sign, in any place of a row: element by element it stays where it is, in what
/// is made of the whole row it is everywhere.
template <class T>
void check_nan_stays() {
  for_levels([](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {1, 7, 16, 37})
      for (const index place : {index{0}, n / 2, n - 1})
        for (const T sign : {T(1), T(-1)}) {
          const std::vector<T> ones(at(n), T(1)), fine = normal<T>(n, 1);
          auto bad = fine;
          bad[at(place)] = std::copysign(std::numeric_limits<T>::quiet_NaN(), sign);
          const std::size_t here = at(place), size = at(n);
          const auto alone = [&](const char* what, auto&& f) {
            std::vector<T> y(size, T(1)), z(size, T(1));
            f(y.data(), z.data());
            BOOST_TEST(only_here(y, here, here + 1), what << " n " << n << " at " << place);
            BOOST_TEST((only_here(z, here, here + 1) || only_here(z, 0, 0)), what);
          };
          const auto everywhere = [&](const char* what, auto&& f) {
            auto y = bad;
            f(y.data());
            BOOST_TEST(only_here(y, 0, size), what << " n " << n << " at " << place);
          };
          const auto activations = [&]<kind A>(std::integral_constant<kind, A>) {
            const T *const x = bad.data(), *const u = ones.data();
            alone("activation", [&](T* y, T*) { K::template activation<A, T>(n, x, y); });
            alone("activation_backward",
                  [&](T* y, T*) { K::template activation_backward<A, T>(n, x, u, y); });
            alone("gated", [&](T* y, T*) { K::template gated<A, T>(n, x, u, y); });
            alone("gated_backward",
                  [&](T* y, T* z) { K::template gated_backward<A, T>(n, x, u, u, y, z); });
          };
          activations(std::integral_constant<kind, kind::relu>{});
          activations(std::integral_constant<kind, kind::gelu>{});
          activations(std::integral_constant<kind, kind::gelu_tanh>{});
          activations(std::integral_constant<kind, kind::silu>{});
          alone("softplus", [&](T* y, T*) {
            std::copy_n(bad.data(), n, y);
            K::template softplus<T>(n, y);
          });
          alone("softplus_backward",
                [&](T* y, T*) { K::template softplus_backward<T>(n, bad.data(), y); });
          everywhere("softmax", [&](T* y) { K::template softmax<T>(n, y); });
          everywhere("rms_norm",
                     [&](T* y) { K::template rms_norm<T>(n, T(1e-5), y, ones.data(), y); });
          everywhere("layer_norm", [&](T* y) {
            T statistics[2];
            K::template layer_norm<T>(n, T(1e-5), y, ones.data(), ones.data(), y, statistics);
          });
          everywhere("cross_entropy", [&](T* y) {
            const token label = static_cast<token>(n - 1 - place);
            double loss = 0;
            ln::ops::cross_entropy<T>({}, 1, n, &label, y, &loss, true);
            BOOST_TEST(!ln::is_finite(loss));
          });
        }
  });
}

// With -ffast-math the compiler may assume that there are no NaNs, and swallows some of them.
#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(nan_stays_float) { check_nan_stays<float>(); }
BOOST_AUTO_TEST_CASE(nan_stays_double) { check_nan_stays<double>(); }
#endif

/// The mix of tokens in blocks, to the bit: that of tokens in one piece, and what was there before
/// comes first.
template <class T>
void check_mix_of_blocks() {
  constexpr index tokens = 2 * ln::simd::token_block + 7;
  const std::int32_t table[] = {2, 0, 1};
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {1, 3, 4, 8, 13, 16, 20, 37}) {
      const auto v = normal<T>(tokens * n, 1), p = normal<T>(tokens, 2), y = normal<T>(n, 3);
      std::vector<T> blocks(at(3 * ln::simd::token_block * n));
      for (index j = 0; j < tokens; ++j)
        std::copy_n(v.data() + j * n, n,
                    blocks.data() + (table[j / ln::simd::token_block] * ln::simd::token_block +
                                     j % ln::simd::token_block) *
                                        n);
      const ln::simd::token_rows<T> whole{v.data(), n}, parts{blocks.data(), n, 0, 0, table};
      for (const bool accumulate : {false, true}) {
        auto one = y, other = y;
        K::template mix<T>(0, tokens, n, p.data(), whole, one.data(), accumulate);
        K::template mix<T>(0, tokens, n, p.data(), parts, other.data(), accumulate);
        BOOST_TEST(same_bits(one, other), "width " << n);
        for (index i = 0; i < n; ++i) {
          double sum = accumulate ? static_cast<double>(y[at(i)]) : 0;
          for (index j = 0; j < tokens; ++j)
            sum += static_cast<double>(p[at(j)]) * static_cast<double>(v[at(j * n + i)]);
          BOOST_TEST(distance_of(one[at(i)], sum) <= small<T> * static_cast<double>(tokens));
        }
      }
    }
  });
}
BOOST_AUTO_TEST_CASE(mix_of_blocks) {
  check_mix_of_blocks<float>();
  check_mix_of_blocks<double>();
}

// The operations that split arrays over threads give the same as the kernels over the whole.
BOOST_AUTO_TEST_CASE(slices_cover_the_array) {
  constexpr index n = 1003;
  const auto x = normal<float>(n, 1), y = normal<float>(n, 2);
  for (int threads = 1; threads <= 5; ++threads) {
    std::vector<float> sum(n), copy(n), filled(n), activated(n), gated(n), dx = y, d_gate(n),
                                                                           d_up(n);
    on_machine(threads, ln::simd::level::portable, [&](const ln::ops::execution& on) {
      ln::ops::add(on, n, x.data(), y.data(), sum.data());
      ln::ops::copy(on, n, x.data(), copy.data());
      ln::ops::fill(on, n, 3.0f, filled.data());
      ln::ops::activation<kind::silu>(on, n, x.data(), activated.data());
      ln::ops::activation_backward<kind::silu>(on, n, x.data(), y.data(), dx.data());
      ln::ops::gated<kind::silu>(on, n, x.data(), y.data(), gated.data());
      ln::ops::gated_backward<kind::silu>(on, n, x.data(), y.data(), y.data(), d_gate.data(),
                                          d_up.data());
    });
    double worst = 0;
    for (std::size_t i = 0; i < at(n); ++i) {
      const auto a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
      const double f = activate(kind::silu, a), s = slope(kind::silu, a);
      for (const double error : {distance_of(sum[i], a + b), distance_of(copy[i], a),
                                 distance_of(filled[i], 3), distance_of(activated[i], f),
                                 distance_of(dx[i], b + b * s), distance_of(gated[i], f * b),
                                 distance_of(d_gate[i], b * b * s), distance_of(d_up[i], b * f)})
        worst = (std::max)(worst, error);
    }
    BOOST_TEST(worst < 1e-5);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rows_test
