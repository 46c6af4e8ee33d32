// SPDX-License-Identifier: MIT
// Adafactor against hand-made numbers and against the paper's formulas in plain doubles.

#include "support/test.hpp"

namespace test::adafactor_test {

namespace {

/// Parameters without a model: two that are factored, with the fewest rows and the fewest columns,
/// two that just miss that, a single value, and one that has no gradient.
struct tensors {
  using storage = ln::storage::f32;
  template <class Form>
  struct params {
    typename Form::matrix big{}, square{}, flat{}, narrow{};
    typename Form::vector one{}, centre{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    f(at / "big", ln::tensor_info{128, 130, ln::role::matrix}, p.big...);
    f(at / "square", ln::tensor_info{131, 128, ln::role::matrix}, p.square...);
    f(at / "flat", ln::tensor_info{127, 130, ln::role::matrix}, p.flat...);
    f(at / "narrow", ln::tensor_info{130, 127, ln::role::table}, p.narrow...);
    f(at / "one", ln::tensor_info{1, 1, ln::role::scale}, p.one...);
    f(at / "centre", ln::tensor_info{2, 3, ln::role::moving_average}, p.centre...);
  }
};

template <class T>
struct bench {
  ln::weights<tensors, T> w;
  ln::gradients<tensors, T> g;
  ln::adafactor::state<tensors, T> state;

  /// Every value, anew: weights of `deviation`, gradients of widely different sizes.
  void random(std::uint64_t step, bool weights_too = false) {
    ln::random_stream random(ln::seed{step}, 1);
    each([&](T& value, T& gradient) {
      if (weights_too) value = static_cast<T>(0.3 * random.normal());
      gradient = static_cast<T>(random.normal() * std::pow(10.0, 0.5 * random.normal() - 2));
    });
  }
  template <class F>
  void each(F&& f) {
    ln::each_tensor_of(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& values, auto& gradient) {
          for (index i = 0; i < info.size(); ++i) f(values_of(values)[i], gradient[i]);
        },
        w, g);
  }
  std::vector<double> values() {
    std::vector<double> all;
    each([&](T& value, T&) { all.push_back(static_cast<double>(value)); });
    return all;
  }
  void step(const ln::adafactor& optimizer, index t, double scale = 1, int threads = 1) {
    on_machine(threads, ln::simd::best(),
               [&](const ln::ops::execution& on) { optimizer.update(on, t, scale, g, state, w); });
  }
};

/// One tensor, as the paper writes it: the whole matrix V, no shortcuts.
struct naive {
  index rows, columns;
  bool factored;
  double most;  ///< RMS of an update
  double eps;   ///< added to squared gradients
  std::vector<double> w, r, c, v;

  void step(double rate, int t, const std::vector<double>& g) {
    const double keep = 1 - std::pow(t, -0.8);
    const auto m = at(rows), n = at(columns);
    if (factored) {
      r.resize(m);
      c.resize(n);
      double mean = 0;
      for (std::size_t i = 0; i < m; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < n; ++j) sum += g[i * n + j] * g[i * n + j] + eps;
        r[i] = keep * r[i] + (1 - keep) * sum / static_cast<double>(n);
        mean += r[i] / static_cast<double>(m);
      }
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t i = 0; i < m; ++i) sum += g[i * n + j] * g[i * n + j] + eps;
        c[j] = keep * c[j] + (1 - keep) * sum / static_cast<double>(m);
      }
      v.resize(m * n);
      for (std::size_t i = 0; i < m * n; ++i) v[i] = r[i / n] * c[i % n] / mean;
    } else {
      v.resize(m * n);
      for (std::size_t i = 0; i < m * n; ++i) v[i] = keep * v[i] + (1 - keep) * (g[i] * g[i] + eps);
    }
    std::vector<double> u(m * n);
    for (std::size_t i = 0; i < m * n; ++i) u[i] = g[i] / std::sqrt(v[i]);
    const double size = (std::max)(rms(w), 1e-3), clip = (std::max)(1.0, rms(u) / most);
    for (std::size_t i = 0; i < m * n; ++i) w[i] -= rate * size * u[i] / clip;
  }
  static double rms(const std::vector<double>& x) {
    double sum = 0;
    for (const double value : x) sum += value * value;
    return std::sqrt(sum / static_cast<double>(x.size()));
  }
};

/// Five steps with changing rate and gradient scale; the small ones are not clipped.
template <class T>
void check_reference(double clip, double eps, double tolerance) {
  const ln::adafactor optimizer{
      .rate = ln::schedule::inverse_sqrt(2, 0.5), .clip = clip, .eps_gradient = eps};
  bench<T> b;
  b.random(100, true);
  const auto before = b.values();
  std::vector<naive> want;
  std::size_t first = 0;
  ln::each_tensor<tensors>([&](const ln::parameter_path&, const ln::tensor_info& info) {
    const auto begin = before.begin() + static_cast<std::ptrdiff_t>(first);
    want.push_back({info.rows,
                    info.columns,
                    info.rows >= 128 && info.columns >= 128,
                    clip,
                    eps,
                    {begin, begin + info.size()},
                    {},
                    {},
                    {}});
    first += at(info.size());
  });
  for (int t = 1; t <= 5; ++t) {
    b.random(static_cast<std::uint64_t>(t));
    const double scale = t % 2 == 0 ? 0.05 : 1, rate = 0.5 / std::sqrt((std::max)(2.0, 1.0 * t));
    std::vector<double> g;
    b.each([&](T&, T& gradient) { g.push_back(scale * static_cast<double>(gradient)); });
    first = 0;
    for (naive& tensor : want) {
      const auto begin = g.begin() + static_cast<std::ptrdiff_t>(first);
      if (&tensor != &want.back())  // has no gradient
        tensor.step(rate, t, {begin, begin + std::ssize(tensor.w)});
      first += tensor.w.size();
    }
    b.step(optimizer, t, scale);
  }
  std::vector<double> all;
  for (const naive& tensor : want) all.insert(all.end(), tensor.w.begin(), tensor.w.end());
  BOOST_TEST(distance(b.values(), all) <= tolerance);
  BOOST_TEST(distance(before, all) > 0.05);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(adafactor)

// One value 2 with gradients 3, -4, 1 at the rate 0.1: v is 9, then 0.4256507 9 + 0.5743492 16, and
// so on; the second update, 1.1085, is clipped to 1.
BOOST_AUTO_TEST_CASE(one_value_by_hand) {
  bench<double> b;
  const ln::adafactor optimizer{ln::schedule::constant(0.1)};
  double& w = *b.w.tree().one;
  w = 2;
  const double gradients[] = {3, -4, 1}, weights[] = {1.8, 1.98, 1.9101231017316};
  for (int t = 1; t <= 3; ++t) {
    *b.g.tree().one = gradients[t - 1];
    b.step(optimizer, t);
    BOOST_TEST(distance_of(w, weights[t - 1]) < 1e-12);
  }
}

// The first step keeps nothing; of squares of rank one the factors are exact, so it is the rate
// times the weights' RMS times the sign. Weights of zero count as 0.001.
BOOST_AUTO_TEST_CASE(first_step_of_rank_one_is_the_sign) {
  for (const double size : {0.25, 0.0}) {
    bench<double> b;
    const auto big = b.w.tree().big.data;
    for (index i = 0; i < 128; ++i)
      for (index j = 0; j < 130; ++j) {
        big[i * 130 + j] = (i + j) % 3 == 0 ? size : -size;
        b.g.tree().big[i * 130 + j] =
            std::pow(1.1, i) * std::pow(0.9, j) * (i * j % 7 < 3 ? 1 : -1);
      }
    const auto before = b.values();
    b.step({ln::schedule::constant(0.5)}, 1, 1e-3);
    const auto after = b.values();
    const double step = 0.5 * (std::max)(size, 1e-3);
    double worst = 0;
    for (index i = 0; i < 128 * 130; ++i) {
      const double sign = b.g.tree().big[i] > 0 ? 1 : -1;
      worst = (std::max)(worst, distance_of(before[at(i)] - after[at(i)], step * sign));
    }
    BOOST_TEST(worst < 1e-12 * step + 1e-15);
  }
}

BOOST_AUTO_TEST_CASE(is_the_paper) {
  for (const double clip : {1.0, 0.25, 1.5}) {
    for (const double eps : {1e-30, 1e-4}) {
      check_reference<double>(clip, eps, 1e-12);
      check_reference<float>(clip, eps, 1e-5);
    }
  }
}

BOOST_AUTO_TEST_CASE(any_number_of_threads) {
  const auto run = [](int threads) {
    bench<float> b;
    b.random(100, true);
    for (int t = 1; t <= 3; ++t) {
      b.random(static_cast<std::uint64_t>(t));
      b.step({ln::schedule::constant(0.1)}, t, 1, threads);
    }
    return std::move(b.w);
  };
  const auto alone = run(1);
  for (int threads = 2; threads <= 4; ++threads)
    BOOST_TEST(same_bytes(run(threads), alone), threads << " threads");
}

// Rows and columns of the large matrices, every value of the others, none of the average: in whole
// cache lines. Beside them, sums over one tensor.
BOOST_AUTO_TEST_CASE(memory) {
  using state = ln::adafactor::state<tensors, float>;
  const auto lines = [](index bytes) { return (bytes + 63) / 64 * 64; };
  const index kept = lines(4 * 128) + lines(4 * 130) + lines(4 * 131) + lines(4 * 128) +
                     2 * lines(4 * 127 * 130) + lines(4);
  const index sums = 2 * lines(8 * 131) + lines(8 * 130);
  BOOST_TEST(state::bytes() == kept + sums);
  state s;
  BOOST_TEST(s.valid());
  index seen = 0;
  s.visit([&](std::string_view name, std::span<std::byte> block) {
    BOOST_TEST(name == "second");
    seen += std::ssize(block);
  });
  BOOST_TEST(seen == kept);
}

// What visit() shows is all there is: a copy continues with the same bits.
BOOST_AUTO_TEST_CASE(state_is_all) {
  bench<float> a, b;
  a.random(100, true);
  a.step({}, 1);
  a.random(2);
  b.random(2);
  std::memcpy(b.w.data(), a.w.data(), at(ln::weights<tensors>::bytes()));
  a.state.visit([&](std::string_view, std::span<std::byte> from) {
    b.state.visit([&](std::string_view, std::span<std::byte> to) {
      std::memcpy(to.data(), from.data(), from.size());
    });
  });
  const auto before = a.w.clone();
  a.step({}, 2);
  b.step({}, 2);
  BOOST_TEST(same_bytes(a.w, b.w));
  BOOST_TEST(!same_bytes(a.w, before));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::adafactor_test
