// SPDX-License-Identifier: MIT
// AdamW against the textbook in plain scalars, and the schedules by their formulas and shapes.

#include "support/models.hpp"

namespace test::optimizer_test {

namespace {

using model = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                          ln::ffn::relu, ln::bias::all>;
constexpr double pi = 3.14159265358979323846;

/// Weights, gradients and the optimizer's state of the model, with a plain copy of all weights.
template <class T>
struct bench {
  ln::weights<model, T> w;
  ln::gradients<model, T> g;
  ln::adamw::state<model, T> state;

  bench() { randomize(w); }
  /// Fills the gradients with values of widely different sizes.
  void random_gradients(std::uint64_t step) {
    g.visit([&](const ln::parameter_path& at_path, const ln::tensor_info& info, auto& leaf) {
      ln::random_stream random(ln::seed{step}, ln::stream_of(at_path.str()));
      for (index i = 0; i < info.size(); ++i)
        leaf[i] = static_cast<T>(random.normal() * std::pow(10.0, 3 * random.normal() - 2));
    });
  }
  /// Calls f(info, weight, gradient) for every entry, in order.
  template <class F>
  void each(F&& f) {
    ln::each_tensor_of(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& values, auto& gradient) {
          for (index i = 0; i < info.size(); ++i) f(info, values_of(values)[i], gradient[i]);
        },
        w, g);
  }
  std::vector<double> values() {
    std::vector<double> all;
    each([&](const ln::tensor_info&, T& value, T&) { all.push_back(static_cast<double>(value)); });
    return all;
  }
};

/// Seven steps with changing rate and gradient scale: m and v are the bias-corrected averages, the
/// step is rate (m^ / (sqrt(v^) + eps) + decay w), decay on tensors of two dimensions only.
template <class T>
void check_adamw(int threads, double tolerance) {
  const ln::adamw optimizer{ln::schedule::inverse_sqrt(2, 0.05), 0.85, 0.97, 1e-4, 0.2};
  bench<T> b;
  std::vector<double> w = b.values(), m(w.size()), v(w.size());
  for (int step = 1; step <= 7; ++step) {
    b.random_gradients(static_cast<std::uint64_t>(step));
    const double scale = 1.0 / step,
                 rate = 0.05 / std::sqrt((std::max)(2.0, static_cast<double>(step)));
    std::size_t i = 0;
    b.each([&](const ln::tensor_info& info, T&, T& gradient) {
      const double g = scale * static_cast<double>(gradient);
      const bool two_dimensions = info.kind != ln::role::scale && info.kind != ln::role::bias;
      m[i] = 0.85 * m[i] + 0.15 * g;
      v[i] = 0.97 * v[i] + 0.03 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.85, step)),
                   v_hat = v[i] / (1 - std::pow(0.97, step));
      w[i] -= rate * (m_hat / (std::sqrt(v_hat) + 1e-4) + (two_dimensions ? 0.2 * w[i] : 0));
      ++i;
    });
    on_machine(threads, ln::simd::best(), [&](const ln::ops::execution& on) {
      optimizer.update(on, step, scale, b.g, b.state, b.w);
    });
  }
  BOOST_TEST(w.size() == at(model::parameters()));
  BOOST_TEST(distance(b.values(), w) <= tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(optimizer)

BOOST_AUTO_TEST_CASE(adamw_is_the_textbook) {
  check_adamw<double>(1, 1e-13);
  check_adamw<double>(3, 1e-13);
  check_adamw<float>(1, 2e-6);
}

// The first step without decay is the learning rate times the sign of the gradient, whatever its
// size (as long as it is far above eps).
BOOST_AUTO_TEST_CASE(first_step_is_the_sign) {
  bench<double> b;
  const auto before = b.values();
  b.each([&](const ln::tensor_info&, double&, double& g) {
    g = (&g - b.g.tree().embedding) % 3 == 0 ? -1e-3 : 1e3;
  });
  const ln::adamw optimizer{ln::schedule::constant(0.125), 0.9, 0.999, 1e-12, 0};
  optimizer.update(ln::ops::execution{{}, ln::simd::best()}, 1, 1, b.g, b.state, b.w);
  std::size_t i = 0;
  double worst = 0;
  b.each([&](const ln::tensor_info&, double& value, double& g) {
    worst = (std::max)(worst, distance_of(before[i++] - value, g > 0 ? 0.125 : -0.125));
  });
  BOOST_TEST(worst < 1e-8);
}

// Decay alone shrinks tensors of two dimensions by 1 - rate decay and leaves the others.
BOOST_AUTO_TEST_CASE(decay_is_decoupled) {
  bench<double> b;
  const auto before = b.values();
  const ln::adamw optimizer{ln::schedule::constant(0.5), 0.9, 0.999, 1e-8, 0.1};
  optimizer.update(ln::ops::execution{{}, ln::simd::best()}, 1, 1, b.g, b.state, b.w);
  std::size_t i = 0;
  double worst = 0;
  index untouched = 0;
  b.each([&](const ln::tensor_info& info, double& value, double&) {
    const bool vector = info.kind == ln::role::scale || info.kind == ln::role::bias;
    untouched += vector;
    worst = (std::max)(worst, distance_of(value, before[i++] * (vector ? 1 : 0.95)));
  });
  BOOST_TEST(worst < 1e-15);
  // Two layers: q, k, v, o and both feed-forward biases, two norms each; the final norm.
  BOOST_TEST(untouched == 2 * (8 + 4 + 4 + 8 + 7 + 8 + 4 * 8) + 2 * 8);
}

// The moments are all the state there is.
BOOST_AUTO_TEST_CASE(state_is_two_moments) {
  static_assert(ln::adamw::state<model, float>::bytes() ==
                2 * ln::gradients<model, float>::bytes());
  BOOST_TEST((ln::adamw::state<model, float>().valid()));
}

BOOST_AUTO_TEST_CASE(constant_schedule) {
  const auto s = ln::schedule::constant(0.3);
  for (const index t : {1, 2, 1000, 1'000'000}) BOOST_TEST(s.at(t) == 0.3);
}

// Cosine: linear up to the peak at the end of warm-up, then min + (peak - min)(1 + cos) / 2 down to
// the floor at the last step, and the floor after it.
BOOST_AUTO_TEST_CASE(cosine_schedule) {
  const auto s = ln::schedule::cosine(0.5, 100, 1100, 0.05);
  BOOST_TEST(std::abs(s.at(1) - 0.005) < 1e-15);
  BOOST_TEST(std::abs(s.at(50) - 0.25) < 1e-15);
  BOOST_TEST(std::abs(s.at(100) - 0.5) < 1e-15);
  BOOST_TEST(std::abs(s.at(600) - 0.275) < 1e-15);  // half way
  BOOST_TEST(std::abs(s.at(350) - (0.05 + 0.225 * (1 + std::cos(pi / 4)))) < 1e-15);
  BOOST_TEST(std::abs(s.at(1100) - 0.05) < 1e-15);
  for (const index t : {1101, 1102, 5000}) BOOST_TEST(s.at(t) == 0.05);
  for (index t = 2; t <= 100; ++t) BOOST_TEST(s.at(t) > s.at(t - 1));
  for (index t = 101; t <= 1100; ++t) BOOST_TEST(s.at(t) < s.at(t - 1));
  const auto cold = ln::schedule::cosine(1, 0, 10);
  BOOST_TEST(cold.at(10) == 0);
  BOOST_TEST(std::abs(cold.at(5) - 0.5) < 1e-15);
}

// The repository's cosine divides by all steps: at the last one a share of the warm-up is left.
BOOST_AUTO_TEST_CASE(cosine_of_the_repository) {
  const auto s = ln::schedule::cosine_repo_compat(6e-4, 5000, 25'000, 6e-5);
  const auto by_hand = [](double t) {
    return 6e-5 + 0.5 * (6e-4 - 6e-5) * (1 + std::cos(pi * (t - 5000) / 25'000));
  };
  BOOST_TEST(std::abs(s.at(2500) - 3e-4) < 1e-18);
  for (const index t : {5000, 5001, 17'500, 24'999, 25'000, 27'000})
    BOOST_TEST(std::abs(s.at(t) - by_hand(static_cast<double>(t))) < 1e-18);
  BOOST_TEST(s.at(25'000) > 1.1e-4);
  for (index t = 5001; t <= 25'000; ++t) BOOST_TEST(s.at(t) < s.at(t - 1));
  BOOST_TEST(s.at(30'000) == 6e-5);
}

// T5's inverse square roots: 0.01 until step 10^4, then 1 / sqrt(t); with linear warm-up up to
// there.
BOOST_AUTO_TEST_CASE(inverse_square_root_schedules) {
  const auto s = ln::schedule::inverse_sqrt();
  BOOST_TEST(std::abs(s.at(1) - 0.01) < 1e-15);
  BOOST_TEST(std::abs(s.at(10'000) - 0.01) < 1e-15);
  BOOST_TEST(std::abs(s.at(40'000) - 0.005) < 1e-15);
  BOOST_TEST(std::abs(ln::schedule::inverse_sqrt(100, 3).at(900) - 0.1) < 1e-15);
  BOOST_TEST(ln::schedule::inverse_sqrt(0).at(4) == 0.5);

  const auto linear = ln::schedule::inverse_sqrt_linear(20'000, 2);
  BOOST_TEST(std::abs(linear.at(20'000) - 2 / std::sqrt(20'000.0)) < 1e-15);
  BOOST_TEST(std::abs(linear.at(19'999) - 2 * 0.99995 / std::sqrt(20'000.0)) < 1e-15);
  BOOST_TEST(std::abs(linear.at(5'000) - 0.5 / std::sqrt(20'000.0)) < 1e-15);
  BOOST_TEST(std::abs(linear.at(80'000) - 2 / std::sqrt(80'000.0)) < 1e-15);
  for (index t = 100; t <= 20'000; t += 100) BOOST_TEST(linear.at(t) > linear.at(t - 99));
  for (index t = 20'100; t <= 60'000; t += 100) BOOST_TEST(linear.at(t) < linear.at(t - 99));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::optimizer_test
