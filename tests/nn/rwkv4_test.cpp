// SPDX-License-Identifier: MIT
// RWKV-4: gradients of both its layers, and their values against the definition of the weighted
// average as a double sum, with keys that overflow every number.

#include "support/gradients.hpp"
#include "support/lone_layer.hpp"

namespace test::rwkv4_test {

namespace {

using shape = ln::attention_shape;
template <index D>
using time_mix = ln::mixer::rwkv4::layer<shape{
    .d_model = D, .heads = 1, .kv_heads = 1, .d_kv = D, .causal = true}>;
template <index D, index F>
using channel_mix = ln::ffn::rwkv4_channel_mix::layer<D, F, false>;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// mu x_t + (1 - mu) x_{t-1} of one sequence x[length, d].
std::vector<double> mixture(const std::vector<double>& x, index d, index t,
                            const std::vector<double>& mu) {
  std::vector<double> y;
  for (index j = 0; j < d; ++j)
    y.push_back(mu[at(j)] * x[at(t * d + j)] +
                (t > 0 ? (1 - mu[at(j)]) * x[at((t - 1) * d + j)] : 0));
  return y;
}

/// The average of one channel by its definition: weights e^{u + k_t} of the token itself and
/// e^{k_i + (t - 1 - i) w} of those before, relative to the largest of them.
double average(const std::vector<double>& k, const std::vector<double>& v, index t, double w,
               double u) {
  std::vector<double> exponents;
  for (index i = 0; i < t; ++i) exponents.push_back(k[at(i)] + static_cast<double>(t - 1 - i) * w);
  exponents.push_back(u + k[at(t)]);
  const double top = *std::max_element(exponents.begin(), exponents.end());
  double sum = 0, weights = 0;
  for (std::size_t i = 0; i < exponents.size(); ++i) {
    sum += std::exp(exponents[i] - top) * v[i];
    weights += std::exp(exponents[i] - top);
  }
  return sum / weights;
}

/// The recurrence alone on one sequence: y, and the gradients for dy.
template <class T>
struct recurrence {
  static constexpr index d = 21, length = 45;  // more than one block of channels and two chunks
  std::vector<T> decay = normal<T>(d, 1), bonus = normal<T>(d, 2), k = normal<T>(length * d, 3, 40),
                 v = normal<T>(length * d, 4), dy = normal<T>(length * d, 5), y, dk, dv, d_decay,
                 d_bonus;

  recurrence() : y(k.size()), dk(k.size()), dv(k.size()), d_decay(d), d_bonus(d) {
    for (index t = 0; t < length; ++t)  // up and down as far as it goes
      for (index j = 0; j < 3; ++j)
        k[at(t * d + j)] = T(j == 0 ? 80 : j == 1 ? -80 : t % 2 * 160 - 80);
    decay[1] = T(-8);  // hardly any decay
    decay[2] = T(4);   // hardly any memory
  }
  void run() {
    std::vector<T> starts(at(ln::ops::recurrent_chunks(length) * 3 * d));
    ln::ops::wkv4_call<T> a{1, length, d, decay.data(), bonus.data(), k.data(), v.data(), y.data()};
    a.starts = starts.data();
    on_machine(1, ln::simd::best(), [&](const ln::ops::execution& on) {
      ln::ops::wkv4(on, a);
      ln::ops::wkv4_backward(on, a,
                             {dy.data(), dk.data(), dv.data(), d_decay.data(), d_bonus.data()});
    });
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(rwkv4)

// The squared relu keeps a NaN where it is, forward and backward.
#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(relu_squared_keeps_nan) {
  const auto fine = normal<float>(9, 1);
  for (index place = 0; place < 9; ++place) {
    auto x = fine, y = fine, dx = fine;
    x[at(place)] = std::numeric_limits<float>::quiet_NaN();
    ln::detail::relu_squared<float>({}, 9, x.data(), y.data());
    ln::detail::relu_squared_backward<float>({}, 9, x.data(), fine.data(), dx.data());
    for (index i = 0; i < 9; ++i) {
      BOOST_TEST(ln::is_finite(y[at(i)]) == (i != place));
      BOOST_TEST(ln::is_finite(dx[at(i)]) == (i != place));
    }
  }
}
#endif

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<time_mix<5>>();
  check_layer<time_mix<18>>({.batch = 1, .length = 3});
  check_layer<time_mix<3>>({.length = 35});  // three chunks
  check_layer<channel_mix<6, 10>>();
  check_layer<channel_mix<4, 3>>({.length = 1, .dropout = 0.3, .seed = 5});
}

BOOST_AUTO_TEST_CASE(time_mix_is_the_double_sum) {
  constexpr index d = 19, length = 37, batch = 2;
  const lone_layer<time_mix<d>> layer;
  const auto& p = layer.parameters;
  const auto all = normal<double>(batch * length * d, 7);
  const auto y = layer.forward(all, batch, length);
  double worst = 0;
  for (index b = 0; b < batch; ++b) {
    const std::vector<double> x(all.begin() + b * length * d, all.begin() + (b + 1) * length * d);
    std::vector<std::vector<double>> k(at(d)), v(at(d));  // by channel
    for (index t = 0; t < length; ++t) {
      const auto kt = times(p.at("key.weight"), mixture(x, d, t, p.at("time_mix_k"))),
                 vt = times(p.at("value.weight"), mixture(x, d, t, p.at("time_mix_v"))),
                 rt = times(p.at("receptance.weight"), mixture(x, d, t, p.at("time_mix_r")));
      std::vector<double> gated;
      for (std::size_t j = 0; j < at(d); ++j) {
        k[j].push_back(kt[j]);
        v[j].push_back(vt[j]);
        gated.push_back(sigmoid(rt[j]) * average(k[j], v[j], t, -std::exp(p.at("time_decay")[j]),
                                                 p.at("time_first")[j]));
      }
      const auto want = times(p.at("output.weight"), gated);
      for (index j = 0; j < d; ++j)
        worst = (std::max)(worst, distance_of(want[at(j)], y[at((b * length + t) * d + j)]));
    }
  }
  BOOST_TEST(worst < 1e-12);
}

BOOST_AUTO_TEST_CASE(channel_mix_is_the_formula) {
  constexpr index d = 5, f = 7, length = 6;
  const lone_layer<channel_mix<d, f>> layer;
  const auto& p = layer.parameters;
  const auto x = normal<double>(length * d, 8);
  const auto y = layer.forward(x, 1, length);
  double worst = 0;
  for (index t = 0; t < length; ++t) {
    auto k = times(p.at("key.weight"), mixture(x, d, t, p.at("time_mix_k")));
    for (double& one : k) one = one > 0 ? one * one : 0;
    const auto v = times(p.at("value.weight"), k),
               r = times(p.at("receptance.weight"), mixture(x, d, t, p.at("time_mix_r")));
    for (index j = 0; j < d; ++j)
      worst = (std::max)(worst, distance_of(y[at(t * d + j)], sigmoid(r[at(j)]) * v[at(j)]));
  }
  BOOST_TEST(worst < 1e-13);
}

// Keys of 80 and more, up and down, in float: e^80 squared would be infinite.
BOOST_AUTO_TEST_CASE(large_keys) {
  recurrence<double> exact;
  recurrence<float> rounded;
  std::copy(rounded.k.begin(), rounded.k.end(), exact.k.begin());
  std::copy(rounded.v.begin(), rounded.v.end(), exact.v.begin());
  std::copy(rounded.decay.begin(), rounded.decay.end(), exact.decay.begin());
  std::copy(rounded.bonus.begin(), rounded.bonus.end(), exact.bonus.begin());
  exact.run();
  rounded.run();
  constexpr index d = recurrence<double>::d, length = recurrence<double>::length;
  double worst = 0;
  for (index j = 0; j < d; ++j) {
    std::vector<double> k, v;
    for (index t = 0; t < length; ++t) {
      k.push_back(exact.k[at(t * d + j)]);
      v.push_back(exact.v[at(t * d + j)]);
      const double want = average(k, v, t, -std::exp(exact.decay[at(j)]), exact.bonus[at(j)]);
      worst = (std::max)(worst, distance_of(exact.y[at(t * d + j)], want));
    }
  }
  BOOST_TEST(worst < 1e-12);
  BOOST_TEST(distance(rounded.y, exact.y) < 1e-4);
  BOOST_TEST(distance(rounded.dk, exact.dk) < 1e-4 * magnitude(exact.dk));
  BOOST_TEST(distance(rounded.dv, exact.dv) < 1e-4 * magnitude(exact.dv));
  BOOST_TEST(distance(rounded.d_decay, exact.d_decay) < 1e-4 * magnitude(exact.d_decay));
  BOOST_TEST(distance(rounded.d_bonus, exact.d_bonus) < 1e-4 * magnitude(exact.d_bonus));
}

// A key far above all others decides alone; equal keys without decay give the plain average.
BOOST_AUTO_TEST_CASE(limits) {
  recurrence<double> one;
  std::fill(one.decay.begin(), one.decay.end(), -60.0);
  std::fill(one.bonus.begin(), one.bonus.end(), 0.0);
  std::fill(one.k.begin(), one.k.end(), 1.5);
  constexpr index d = recurrence<double>::d, length = recurrence<double>::length;
  for (index t = 0; t < length; ++t) one.k[at(t * d)] = t == 20 ? 300 : 0;
  one.run();
  double mean = 0;
  for (index t = 0; t < length; ++t) mean += one.v[at(t * d + 1)] / static_cast<double>(length);
  BOOST_TEST(distance_of(one.y[at((length - 1) * d + 1)], mean) < 1e-13);
  for (index t = 20; t < length; ++t)
    BOOST_TEST(distance_of(one.y[at(t * d)], one.v[at(20 * d)]) < 1e-13);
}

BOOST_AUTO_TEST_CASE(counts) {
  constexpr index d = 12, f = 20;
  static_assert(ln::count_parameters<time_mix<d>>() == 4 * d * d + 5 * d);
  static_assert(ln::count_parameters<channel_mix<d, f>>() == d * d + 2 * d * f + 2 * d);
  static_assert(time_mix<d>::state_values(1000) + channel_mix<d, f>::state_values(1000) == 5 * d);
  ln::call_shape e;
  e.batch = 3;
  e.length = 7;
  BOOST_TEST(time_mix<d>::flops(e) == 21 * 2 * 4 * d * d);
  BOOST_TEST((channel_mix<d, f>::flops(e) == 21 * 2 * (d * d + 2 * d * f)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rwkv4_test
