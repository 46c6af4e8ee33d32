// SPDX-License-Identifier: MIT
// Lion, SGD, Sophia, Muon and AdamW in 8 bits against their formulas in plain doubles, and what all
// optimizers of the library have in common.

#include <algorithm>
#include <numeric>

#include "support/models.hpp"

namespace test::optimizers_test {

namespace {

/// Parameters without a model: hidden matrices, tall, wide and large, a head that is none, a table,
/// a norm, and one that has no gradient.
struct tensors {
  using storage = ln::storage::f32;
  template <class Form>
  struct params {
    typename Form::matrix tall{}, wide{}, large{}, head{}, table{};
    typename Form::vector scale{}, centre{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    const ln::parameter_path blocks = at / "blocks", block = blocks.element(0, 1);
    f(at / "head", ln::tensor_info{70, 64, ln::role::matrix}, p.head...);
    f(at / "table", ln::tensor_info{10, 8, ln::role::table}, p.table...);
    f(block / "tall", ln::tensor_info{40, 24, ln::role::matrix}, p.tall...);
    f(block / "wide", ln::tensor_info{20, 64, ln::role::matrix}, p.wide...);
    f(blocks / "large", ln::tensor_info{150, 100, ln::role::matrix}, p.large...);
    f(block / "scale", ln::tensor_info{1, 24, ln::role::scale}, p.scale...);
    f(block / "centre", ln::tensor_info{2, 3, ln::role::moving_average}, p.centre...);
  }
};

template <class Optimizer, class T>
struct bench {
  ln::weights<tensors, T> w;
  ln::gradients<tensors, T> g;
  typename Optimizer::template state<tensors, T> state;

  /// Calls f(info, weights, gradient) for each tensor.
  template <class F>
  void each(F&& f) {
    ln::each_tensor_of([&](const ln::parameter_path&, const ln::tensor_info& info, auto& values,
                           auto& gradient) { f(info, values_of(values), gradient); },
                       w, g);
  }
  /// Gradients of widely different sizes, some of them 0; weights once.
  void random(std::uint64_t step) {
    ln::random_stream random(ln::seed{step}, 1);
    each([&](const ln::tensor_info& info, T* values, T* gradient) {
      for (index i = 0; i < info.size(); ++i) {
        if (step == 0) values[i] = static_cast<T>(0.3 * random.normal());
        const double size = random.normal() * std::pow(10.0, 0.5 * random.normal() - 2);
        gradient[i] = static_cast<T>(random.below(8) == 0 ? 0 : size);
        if (info.kind == ln::role::moving_average) gradient[i] = T(0);
      }
    });
  }
  void step(const Optimizer& optimizer, index t, double scale = 1, int threads = 1) {
    on_machine(threads, ln::simd::best(),
               [&](const ln::ops::execution& on) { optimizer.update(on, t, scale, g, state, w); });
  }
  std::vector<double> values() {
    std::vector<double> all;
    each([&](const ln::tensor_info& info, const T* x, T*) {
      all.insert(all.end(), x, x + info.size());
    });
    return all;
  }
};

/// Values of one tensor and what an optimizer remembers of them.
struct reference {
  ln::tensor_info info;
  std::vector<double> w, g, m, v;
  bool two_dimensions() const { return info.kind != ln::role::scale; }
};

/// Five steps beside move(reference, t), which sees gradients as they are after scaling.
template <class T, class Optimizer, class Move>
void check_formula(const Optimizer& optimizer, double tolerance, Move&& move) {
  bench<Optimizer, T> b;
  b.random(0);
  std::vector<reference> all;
  b.each([&](const ln::tensor_info& info, const T* x, T*) {
    const auto n = at(info.size());
    all.push_back(
        {info, {x, x + n}, std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)});
  });
  const auto before = b.values();
  for (int t = 1; t <= 5; ++t) {
    b.random(static_cast<std::uint64_t>(t));
    const double scale = t % 2 == 0 ? 0.05 : 1;
    auto next = all.begin();
    b.each([&](const ln::tensor_info& info, T*, const T* g) {
      for (index i = 0; i < info.size(); ++i) next->g[at(i)] = scale * static_cast<double>(g[i]);
      if (info.kind != ln::role::moving_average) move(*next, t);
      ++next;
    });
    b.step(optimizer, t, scale, 1 + t % 3);
  }
  std::vector<double> want;
  for (const reference& r : all) want.insert(want.end(), r.w.begin(), r.w.end());
  BOOST_TEST(distance(b.values(), want) <= tolerance);
  BOOST_TEST(distance(before, want) > 100 * tolerance);
}

template <class T>
void check_lion(double tolerance) {
  const ln::lion o{ln::schedule::inverse_sqrt(2, 0.05), 0.8, 0.95, 0.3};
  check_formula<T>(o, tolerance, [](reference& r, int t) {
    const double lr = 0.05 / std::sqrt((std::max)(2.0, 1.0 * t));
    for (std::size_t i = 0; i < r.w.size(); ++i) {
      const double c = 0.8 * r.m[i] + (1 - 0.8) * r.g[i];
      if (r.two_dimensions()) r.w[i] *= 1 - lr * 0.3;
      r.w[i] -= lr * ((c > 0) - (c < 0));
      r.m[i] = 0.95 * r.m[i] + (1 - 0.95) * r.g[i];
    }
  });
}

template <class T>
void check_sgd(bool nesterov, double tolerance) {
  const ln::sgd o{ln::schedule::constant(0.5), 0.9, nesterov, 0.1};
  check_formula<T>(o, tolerance, [nesterov](reference& r, int) {
    for (std::size_t i = 0; i < r.w.size(); ++i) {
      const double g = r.g[i] + (r.two_dimensions() ? 0.1 * r.w[i] : 0);
      r.m[i] = 0.9 * r.m[i] + g;
      r.w[i] -= 0.5 * (nesterov ? g + 0.9 * r.m[i] : r.m[i]);
    }
  });
}

/// X made nearly orthogonal as the paper writes it, for any shape.
std::vector<double> orthogonal(index rows, index columns, const std::vector<double>& of) {
  const bool turn = rows > columns;  // so that rows are the fewer
  const auto n = at((std::min)(rows, columns)), m = at((std::max)(rows, columns));
  std::vector<double> x(of.size());
  double squares = 0;
  for (const double v : of) squares += v * v;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j)
      x[i * m + j] = (turn ? of[j * n + i] : of[i * m + j]) / (std::sqrt(squares) + 1e-7);
  const auto times = [](std::size_t p, std::size_t q, std::size_t k, const auto& a, const auto& b) {
    std::vector<double> c(p * q);
    for (std::size_t i = 0; i < p; ++i)
      for (std::size_t l = 0; l < k; ++l)
        for (std::size_t j = 0; j < q; ++j) c[i * q + j] += a[i * k + l] * b[l * q + j];
    return c;
  };
  for (int step = 0; step < 5; ++step) {
    std::vector<double> turned(x.size());
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < m; ++j) turned[j * n + i] = x[i * m + j];
    const auto a = times(n, n, m, x, turned);
    auto b = times(n, n, n, a, a);
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = -4.7750 * a[i] + 2.0315 * b[i];
    const auto bx = times(n, m, n, b, x);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] + bx[i];
  }
  std::vector<double> back(of.size());
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j) back[turn ? j * n + i : i * m + j] = x[i * m + j];
  return back;
}

template <class T>
void check_muon(bool nesterov, bool match, double tolerance) {
  const ln::muon o{ln::schedule::constant(0.1),
                   0.9,
                   nesterov,
                   0.2,
                   match,
                   {ln::schedule::constant(0.02), 0.8, 0.9, 1e-6, 0.5}};
  check_formula<T>(o, tolerance, [=](reference& r, int t) {
    const auto [rows, columns] = std::pair(r.info.rows, r.info.columns);
    const bool hidden = r.info.kind == ln::role::matrix && rows != 70;
    std::vector<double> u(r.w.size());
    for (std::size_t i = 0; i < r.w.size(); ++i) {
      if (hidden) {
        r.m[i] = 0.9 * r.m[i] + (1 - 0.9) * r.g[i];
        u[i] = nesterov ? (1 - 0.9) * r.g[i] + 0.9 * r.m[i] : r.m[i];
        continue;
      }
      r.m[i] = 0.8 * r.m[i] + (1 - 0.8) * r.g[i];
      r.v[i] = 0.9 * r.v[i] + (1 - 0.9) * r.g[i] * r.g[i];
      const double m = r.m[i] / (1 - std::pow(0.8, t)), v = r.v[i] / (1 - std::pow(0.9, t));
      r.w[i] -= 0.02 * (m / (std::sqrt(v) + 1e-6) + (r.two_dimensions() ? 0.5 * r.w[i] : 0));
    }
    if (!hidden) return;
    u = orthogonal(rows, columns, u);
    const auto m = static_cast<double>(rows), n = static_cast<double>(columns);
    const double size =
        match ? 0.2 * std::sqrt((std::max)(m, n)) : std::sqrt((std::max)(1.0, m / n));
    for (std::size_t i = 0; i < u.size(); ++i)
      r.w[i] = r.w[i] * (1 - 0.1 * 0.2) - 0.1 * u[i] * size;
  });
}

/// The dynamic codes as bitsandbytes makes them: unsorted, then sorted.
std::vector<float> codes(bool with_signs) {
  std::vector<float> all{0, 1};
  for (int i = 0; i < 7; ++i) {
    const int n = (with_signs ? 1 : 2) << i;
    for (int j = 0; j < n; ++j) {
      const double low = 0.1 + 0.9 * j / n, high = 0.1 + 0.9 * (j + 1) / n;
      all.push_back(static_cast<float>(std::pow(10.0, i - 6) * (low + high) / 2));
      if (with_signs) all.push_back(-all.back());
    }
  }
  std::ranges::sort(all);
  return all;
}
/// x rounded to codes with one scale for each 256 values.
void round_to(const std::vector<float>& table, std::vector<double>& x) {
  for (std::size_t first = 0; first < x.size(); first += 256) {
    const std::size_t last = (std::min)(x.size(), first + 256);
    float scale = 0;
    for (std::size_t i = first; i < last; ++i)
      scale = (std::max)(scale, std::abs(static_cast<float>(x[i])));
    for (std::size_t i = first; i < last; ++i) {
      const float y = scale > 0 ? static_cast<float>(x[i]) / scale : 0;
      float best = table[0];
      for (const float code : table)
        if (std::abs(code - y) < std::abs(best - y)) best = code;
      if (y > 0 && table[0] == 0 && best == 0) best = table[1];  // squares are not lost
      x[i] = static_cast<double>(best * scale);
    }
  }
}

/// Sophia with an estimate in each step, of the gradient itself and 70 tokens.
struct observed : ln::sophia {
  template <class M, class T>
  void update(const ln::ops::execution& on, index t, double scale, const ln::gradients<M, T>& g,
              state<M, T>& s, ln::weights<M, T>& w) const {
    ln::sophia::update(on, t, scale, g, s, w);
    observe(on, 70, scale, g, s);
  }
};

// Every optimizer in trainers of one small model.
using model = ln::decoder<tiny_decoder_shape, ln::tie::untied, ln::bias::all>;

template <class Optimizer>
Optimizer with_rate(double rate) {
  Optimizer o;
  o.rate = ln::schedule::constant(rate);
  return o;
}

/// The weights after some steps on one batch, from a copy of another's state if there is one.
template <class Optimizer>
struct run {
  using trainer = ln::trainer<model, Optimizer>;
  ln::weights<model> w;
  decoder_tokens data = data_for<model>(2, 0, 6);
  std::optional<ln::result<trainer>> train;
  std::vector<double> losses;

  explicit run(int threads, double rate) {
    randomize(w);
    train.emplace(trainer::open(w, data.limits(threads), with_rate<Optimizer>(rate)));
    BOOST_REQUIRE(static_cast<bool>(*train));
  }
  void steps(int n) {
    for (int i = 0; i < n; ++i) losses.push_back((*train)->step(data.view()));
  }
};

template <class Optimizer>
void check_trainer(double rate) {
  run<Optimizer> whole(1, rate);
  whole.steps(24);
  BOOST_TEST(whole.losses.back() < 0.8 * whole.losses.front(), Optimizer::name());
  run<Optimizer> first(1, rate), rest(1, rate), three(3, rate);
  first.steps(11);
  three.steps(11);
  BOOST_TEST(same_bytes(three.w, first.w), Optimizer::name() << ", threads");
  rest.steps(2);  // another state
  std::vector<std::span<std::byte>> blocks;
  (*first.train)->visit_state([&](std::string_view, std::span<std::byte> b) {
    blocks.push_back(b);
  });
  auto next = blocks.begin();
  (*rest.train)->visit_state([&](std::string_view, std::span<std::byte> b) {
    std::copy(next->begin(), next->end(), b.begin());
    ++next;
  });
  BOOST_REQUIRE(static_cast<bool>((*rest.train)->resume((*first.train)->progress())));
  rest.steps(13);
  BOOST_TEST(same_bytes(rest.w, whole.w), Optimizer::name() << ", resumed");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(optimizers)

BOOST_AUTO_TEST_CASE(lion_is_the_paper) {
  check_lion<double>(1e-14);
  check_lion<float>(1e-6);
}
BOOST_AUTO_TEST_CASE(sgd_is_the_one_of_pytorch) {
  for (const bool nesterov : {false, true}) {
    check_sgd<double>(nesterov, 1e-13);
    check_sgd<float>(nesterov, 3e-6);
  }
}
BOOST_AUTO_TEST_CASE(muon_is_the_reference) {
  for (const bool nesterov : {false, true}) check_muon<double>(nesterov, !nesterov, 1e-10);
  check_muon<float>(true, false, 2e-4);
}

// Of a diagonal matrix each value goes its own way: five times x <- 3.4445 x - 4.775 x^3 + 2.0315
// x^5. Singular values from 0.002 on end in [0.68, 1.2].
BOOST_AUTO_TEST_CASE(newton_schulz_of_a_diagonal) {
  bench<ln::muon, double> b;
  const auto w = b.w.tree().tall.data;
  const auto g = b.g.tree().tall;
  double squares = 0;
  const auto of = [](index i) { return std::pow(10.0, -2.6 * static_cast<double>(i) / 22); };
  for (index i = 0; i < 24; ++i) {
    g[i * 24 + i] = i < 23 ? of(i) : 2e-4;
    squares += g[i * 24 + i] * g[i * 24 + i];
  }
  b.step({.rate = ln::schedule::constant(1), .momentum = 0, .nesterov = false}, 1);
  for (index i = 0; i < 24; ++i) {
    double x = g[i * 24 + i] / std::sqrt(squares);
    for (int k = 0; k < 5; ++k) x = 3.4445 * x - 4.775 * x * x * x + 2.0315 * x * x * x * x * x;
    const double got = -w[i * 24 + i] / std::sqrt(40.0 / 24);
    BOOST_TEST(std::abs(got - x) < 1e-5);  // 1e-7 is added to the norm
    BOOST_TEST((i < 23 ? got > 0.68 && got < 1.2 : got < 0.68), got << " at " << i);
    for (index j = 0; j < 24; ++j)
      if (j != i) BOOST_TEST(std::abs(w[i * 24 + j]) < 1e-12);
  }
}

// By hand: m = 0.035 g at first, without curvature a full step; with h = 0.01 * 100 * 0.5^2 = 0.25
// a step of 0.0174885 / (0.04 * 0.25).
BOOST_AUTO_TEST_CASE(sophia_by_hand) {
  using optimizer = ln::sophia;
  bench<optimizer, double> b;
  const optimizer o{.rate = ln::schedule::constant(0.1), .rho = 0.04, .decay = 0.5};
  double* const w = b.w.tree().scale;
  double* const g = b.g.tree().scale;
  g[0] = 1e-9;
  g[1] = -3;
  b.step(o, 1);
  BOOST_TEST(distance_of(w[0], -0.1) < 1e-6);
  BOOST_TEST(distance_of(w[1], 0.1) < 1e-14);
  BOOST_TEST(w[2] == 0);
  g[0] = 5;
  g[1] = 0;
  on_machine(1, ln::simd::best(),
             [&](const ln::ops::execution& on) { o.observe(on, 100, 0.1, b.g, b.state); });
  BOOST_TEST(distance_of(b.state.second.tree().scale[0], 0.25) < 1e-15);
  g[0] = 0.1;
  w[0] = 2;
  b.w.tree().tall.data[0] = 2;
  b.step(o, 2);
  // m = 0.965 * 0.035e-9 + 0.035 * 0.1
  BOOST_TEST(distance_of(w[0], 2 - 0.1 * (0.965 * 0.035e-9 + 0.0035) / (0.04 * 0.25)) < 1e-12);
  BOOST_TEST(distance_of(b.w.tree().tall.data[0], 2 * 0.95) < 1e-15);
}
BOOST_AUTO_TEST_CASE(sophia_is_the_reference) {
  observed o;
  o.rate = ln::schedule::constant(0.1);
  o.rho = 0.5;
  o.decay = 0.2;
  int cut = 0, free = 0;
  check_formula<double>(o, 1e-11, [&](reference& r, int) {
    for (std::size_t i = 0; i < r.w.size(); ++i) {
      r.m[i] = 0.965 * r.m[i] + (1 - 0.965) * r.g[i];
      const double ratio = std::abs(r.m[i]) / (0.5 * 70 * r.v[i] + 1e-15);
      (ratio > 1 ? cut : free)++;
      if (r.two_dimensions()) r.w[i] *= 1 - 0.1 * 0.2;
      r.w[i] -= 0.1 * ((r.m[i] > 0) - (r.m[i] < 0)) * (std::min)(ratio, 1.0);
      r.v[i] = 0.99 * r.v[i] + (1 - 0.99) * r.g[i] * r.g[i];
    }
  });
  BOOST_TEST(cut > 1000);
  BOOST_TEST(free > 1000);
}

// Labels are drawn from the model's own distribution, none where the batch has none, and the same
// ones by any number of threads.
BOOST_AUTO_TEST_CASE(labels_that_a_model_draws) {
  constexpr index rows = 4000, vocabulary = 4;
  const double p[] = {0.5, 0.3, 0.2, 0};
  const ln::ops::packed_matrix<double, ln::storage::f64> none{};
  std::vector<token> labels(at(rows), 1);
  labels[7] = ln::ignored;
  std::vector<double> losses(at(rows)), before;
  double dy = 0;
  for (const int threads : {1, 3}) {
    std::vector<double> logits;
    for (index i = 0; i < rows; ++i)
      for (const double x : p) logits.push_back(x > 0 ? std::log(x) + 2 : -50);
    ln::ops::head_call<double, ln::storage::f64> h{
        rows, 1, vocabulary, nullptr, none, 1, labels.data(), logits.data(), losses.data(), &dy};
    on_machine(threads, ln::simd::best(), [&](const ln::ops::execution& on) {
      ln::detail::sampled_cross_entropy{5, 9}(on, h, 0, rows);
    });
    index drawn[4] = {};
    for (index i = 0; i < rows; ++i) {
      const double* const g = &logits[at(i * vocabulary)];
      const auto label = std::min_element(g, g + vocabulary) - g;
      if (i == 7) {
        BOOST_TEST(g[label] == 0);
        BOOST_TEST(losses[7] == 0);
        continue;
      }
      ++drawn[label];
      BOOST_TEST(distance_of(g[label], p[label] - 1) < 1e-12);
      BOOST_TEST(distance_of(losses[at(i)], -std::log(p[label])) < 1e-12);
    }
    for (int k = 0; k < 3; ++k)
      BOOST_TEST(std::abs(static_cast<double>(drawn[k]) - p[k] * rows) <
                 4 * std::sqrt(p[k] * (1 - p[k]) * rows));
    BOOST_TEST(drawn[3] == 0);
    if (threads > 1) BOOST_TEST(same_bits(before, logits));
    before = logits;
  }
}

// The codes, and rounding in the memory of AdamW: the head and the large matrix are coded.
BOOST_AUTO_TEST_CASE(dynamic_codes_in_8_bits) {
  const auto with_signs = codes(true), without = codes(false);
  BOOST_TEST(distance(ln::detail::dynamic_code_values<true>, with_signs) < 1e-7);
  BOOST_TEST(distance(ln::detail::dynamic_code_values<false>, without) < 1e-7);
  BOOST_TEST(with_signs[127] == 0);
  BOOST_TEST(with_signs[254] == 0.99296875f);
  for (std::size_t i = 0; i < 256; ++i) {
    BOOST_TEST(ln::detail::nearest_dynamic_code<true>(with_signs[i]) == i);
    BOOST_TEST(ln::detail::nearest_dynamic_code<false>(without[i]) == i);
  }
  BOOST_TEST(ln::detail::nearest_dynamic_code<false>(1e-12f) == 1);
  BOOST_TEST(ln::detail::nearest_dynamic_code<true>(1e-12f) == 127);

  const ln::adamw_8bit o{ln::schedule::constant(0.01), 0.8, 0.9, 1e-6, 0.5};
  check_formula<double>(o, 1e-9, [&](reference& r, int t) {
    for (std::size_t i = 0; i < r.w.size(); ++i) {
      r.m[i] = 0.8 * r.m[i] + (1 - 0.8) * r.g[i];
      r.v[i] = 0.9 * r.v[i] + (1 - 0.9) * r.g[i] * r.g[i];
      const double m = r.m[i] / (1 - std::pow(0.8, t)), v = r.v[i] / (1 - std::pow(0.9, t));
      r.w[i] -= 0.01 * (m / (std::sqrt(v) + 1e-6) + (r.two_dimensions() ? 0.5 * r.w[i] : 0));
    }
    if (r.w.size() < 4096) return;
    round_to(with_signs, r.m);
    round_to(without, r.v);
  });
}
// A row whose gradients have ended does not run away beside large ones.
BOOST_AUTO_TEST_CASE(squares_do_not_round_to_nothing) {
  bench<ln::adamw_8bit, float> b;
  const auto g = b.g.tree().head;
  for (int t = 1; t <= 400; ++t) {
    for (index i = 0; i < 70 * 64; ++i) g[i] = i % 2 == 0 ? 1.0f : t < 3 ? 1e-4f : 0.0f;
    b.step({.rate = ln::schedule::constant(1e-3), .beta2 = 0.95, .decay = 0}, t);
  }
  const float* const w = b.w.tree().head.data;
  BOOST_TEST(std::abs(w[0] + 0.4f) < 0.01f);
  BOOST_TEST(std::abs(w[1]) < 0.2f);
}

BOOST_AUTO_TEST_CASE(memory) {
  const auto lines = [](index bytes) { return (bytes + 63) / 64 * 64; };
  using g = ln::gradients<tensors>;
  static_assert(ln::lion::state<tensors, float>::bytes() == g::bytes());
  static_assert(ln::sgd::state<tensors, float>::bytes() == g::bytes());
  static_assert(ln::sophia::state<tensors, float>::bytes() == 2 * g::bytes());
  const index coded = 2 * (lines(4480) + lines(4 * 18) + lines(15'000) + lines(4 * 59)),
              full = 2 * (lines(4 * 80) + lines(4 * 960) + lines(4 * 1280) + lines(4 * 24));
  BOOST_TEST((ln::adamw_8bit::state<tensors, float>::bytes()) == coded + full);
  const index moments = lines(4 * 960) + lines(4 * 1280) + lines(4 * 15'000) +
                        2 * (lines(4 * 4480) + lines(4 * 80) + lines(4 * 24)),
              scratch = 2 * lines(4 * 15'000) + 2 * lines(4 * 10'000) + lines(8 * 150);
  BOOST_TEST((ln::muon::state<tensors, float>::bytes()) == moments + scratch);
}

BOOST_AUTO_TEST_CASE(trainers) {
  check_trainer<ln::lion>(3e-3);
  check_trainer<ln::sgd>(0.1);
  check_trainer<ln::sophia>(3e-3);
  check_trainer<ln::muon>(0.02);
  check_trainer<ln::adamw_8bit>(1e-2);
}

// Behind a step that is due, a trainer estimates the curvature as one that is told to does; clipped
// to the norm of a step.
BOOST_AUTO_TEST_CASE(curvature_in_trainers) {
  run<ln::sophia> one(1, 1e-3), two(1, 1e-3);
  (*one.train)->optimizer().every = 3;
  (*two.train)->optimizer().every = 1000;
  const auto curvature = [](run<ln::sophia>& r) {
    double sum = 0;
    (*r.train)->visit_state([&](std::string_view name, std::span<std::byte> block) {
      if (name != "optimizer.second") return;
      const auto* const h = reinterpret_cast<const float*>(block.data());
      for (std::size_t i = 0; i < block.size() / 4; ++i) sum += static_cast<double>(h[i]);
    });
    return sum;
  };
  for (int i = 1; i <= 4; ++i) {
    one.steps(1);
    two.steps(1);
    BOOST_TEST((curvature(one) > 0) == (i >= 3));
    if (i == 3) (void)(*two.train)->estimate_curvature(two.data.view());
  }
  BOOST_TEST(same_bytes(one.w, two.w));
  // 10 labels, a norm above 1, which is the largest.
  BOOST_TEST(curvature(one) < 0.01 * 10 * 1.0001);
  BOOST_TEST(curvature(one) > 0.01 * 10 * 0.999);

  (void)(*two.train)->accumulate(two.data.part(0, 1));
  BOOST_TEST(!ln::is_finite((*two.train)->estimate_curvature(two.data.view()).nats));
  BOOST_TEST((*two.train)->last_refusal() ==
             "gradients are being accumulated: call update() first");
  (*two.train)->update();
  BOOST_TEST((*two.train)->steps() == 5);
}

BOOST_AUTO_TEST_CASE(options_out_of_range) {
  ln::weights<model> w;
  const auto said = [&]<class O>(const O& o) {
    return ln::trainer<model, O>::open(w, {.target = 4}, o).error().message();
  };
  BOOST_TEST(said(ln::lion{.beta1 = 1}) ==
             "trainer::open: lion.beta1: expected 0 <= beta1 <= 0.999999, got 1");
  BOOST_TEST(said(ln::sgd{.momentum = -1}) ==
             "trainer::open: sgd.momentum: expected 0 <= momentum <= 0.999999, got -1");
  BOOST_TEST(said(ln::sophia{.every = 0}) ==
             "trainer::open: sophia.every: expected at least 1, got 0");
  BOOST_TEST(said(ln::muon{.others = {.eps = 0}}) ==
             "trainer::open: muon.others.eps: expected at least 1e-30, finite, got 0");
  BOOST_TEST(said(ln::adamw_8bit{.eps = 0}) ==
             "trainer::open: adamw_8bit.eps: expected at least 1e-30, finite, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::optimizers_test
