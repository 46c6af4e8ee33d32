// SPDX-License-Identifier: MIT
// Training in f16, in 8-bit floats and in bf16 alone: how numbers are rounded, what scales do, and
// that runs resume with the same bits.

#include <array>

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::precision_test {

namespace {

using model = ln::decoder<tiny_decoder_shape, ln::bias::all>;
template <class Compute, class Optimizer = ln::adamw>
using trainer = ln::trainer<model, Optimizer, float, Compute>;

/// x rounded to `digits` binary digits, at least in units of 2^lowest: another way than the
/// library's.
double rounded(double x, int digits, int lowest) {
  if (x == 0) return 0;
  const int exponent = (std::max)(std::ilogb(x) - digits + 1, lowest);
  return std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
}
double f16(double x) { return rounded(x, 11, -24); }
double e4m3(double x) { return (std::clamp)(rounded(x, 4, -9), -448.0, 448.0); }
double e5m2(double x) { return (std::clamp)(rounded(x, 3, -16), -57344.0, 57344.0); }

std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

/// A product of x[m, k] with w[n, k], and its derivatives by dy[m, n], by the library in storage
/// `S`.
template <class S>
struct products {
  static constexpr index m = 5, n = 37, k = 9;
  std::vector<float> x = normal<float>(m * k, 1), w = normal<float>(n * k, 2),
                     dy = normal<float>(m * n, 3), y = std::vector<float>(at(m * n)),
                     dw = std::vector<float>(at(n * k)), dx = std::vector<float>(at(m * k));
  ln::delayed_scales scales{};

  void run(float loss_scale, int threads) {
    ln::ops::packed_matrix<float, S> p;
    std::vector<float> panels(at(p.size(n, k)));
    p.panels = panels.data();
    p.rows = w.data();
    if constexpr (S::delayed) p.delayed.at = &scales;
    std::vector<float> scratch(at(ln::ops::converted_bytes<S>(m, k, n, threads, true) / 4));
    on_machine(threads, ln::simd::best(), [&](ln::ops::execution on) {
      on.converted = scratch.data();
      on.loss_scale = loss_scale;
      on.notes_ranges = true;
      ln::ops::pack(on, n, k, ln::matrix_ref<S>{w.data()}, p);
      ln::ops::matmul(on, m, n, k, x.data(), p, y.data());
      ln::ops::matmul_backward(on, m, n, k, dy.data(), x.data(), p, {dw.data(), dx.data()});
    });
  }
  /// The largest difference from sums of rounded numbers; weights are read as they are.
  template <class F, class G>
  double worst(F&& forward, G&& backward) const {
    double most = 0;
    const auto of = [](const std::vector<float>& a, index i) {
      return static_cast<double>(a[at(i)]);
    };
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < n; ++j) {
        double sum = 0;
        for (index l = 0; l < k; ++l) sum += forward(of(x, i * k + l)) * of(w, j * k + l);
        most = (std::max)(most, distance_of(sum, y[at(i * n + j)]));
      }
    for (index i = 0; i < m; ++i)
      for (index l = 0; l < k; ++l) {
        double sum = 0;
        for (index j = 0; j < n; ++j) sum += backward(of(dy, i * n + j)) * of(w, j * k + l);
        most = (std::max)(most, distance_of(sum, dx[at(i * k + l)]));
      }
    for (index j = 0; j < n; ++j)
      for (index l = 0; l < k; ++l) {
        double sum = 0;
        for (index i = 0; i < m; ++i)
          sum += backward(of(dy, i * n + j)) * forward(of(x, i * k + l));
        most = (std::max)(most, distance_of(sum, dw[at(j * k + l)]));
      }
    return most;
  }
};

/// The weights and losses of some steps, from a copy of another's state if there is one.
template <class Train>
struct run {
  ln::weights<model> w;
  decoder_tokens data = data_for<model>(3, 0, 6);
  std::optional<ln::result<Train>> train;
  std::vector<double> losses;

  explicit run(int threads = 1, const ln::training_options& how = {}, bool recompute = false) {
    randomize(w);
    ln::limits l = data.limits(threads);
    l.recompute = recompute;
    typename Train::optimizer_type optimizer;
    optimizer.rate = ln::schedule::constant(1e-2);
    train.emplace(Train::open(w, l, optimizer, how));
    BOOST_REQUIRE(static_cast<bool>(*train));
  }
  Train& operator*() { return **train; }
  void steps(int n) {
    for (int i = 0; i < n; ++i) losses.push_back((**this).step(data.view()));
  }
  std::span<std::byte> block(std::string_view name) {
    std::span<std::byte> found;
    (**this).visit_state([&](std::string_view is, std::span<std::byte> b) {
      if (is == name) found = b;
    });
    BOOST_REQUIRE(!found.empty());
    return found;
  }
  std::string state() {
    std::string all;
    (**this).visit_state([&](std::string_view, std::span<std::byte> b) {
      all.append(reinterpret_cast<const char*>(b.data()), b.size());
    });
    return all;
  }
};

template <class Train>
void check_run() {
  run<Train> whole;
  whole.steps(9);
  BOOST_TEST(whole.losses.back() < 0.95 * whole.losses.front());
  run<Train> team(3), frugal(1, {}, true);
  team.steps(9);
  frugal.steps(9);
  BOOST_TEST((team.state() == whole.state()));
  BOOST_TEST((frugal.state() == whole.state()));
  run<Train> first, rest;
  first.steps(4);
  (void)(*first).evaluate(first.data.view());  // leaves no trace
  rest.steps(2);
  const std::string kept = first.state();
  std::size_t from = 0;
  (*rest).visit_state([&](std::string_view, std::span<std::byte> b) {
    std::memcpy(b.data(), kept.data() + from, b.size());
    from += b.size();
  });
  LINNET_REQUIRE_OK((*rest).resume((*first).progress()));
  rest.steps(5);
  BOOST_TEST((rest.state() == whole.state()));
}

/// The cosine between the gradient in `Compute` and that in f32.
template <class Compute>
double cosine() {
  const auto gradient = []<class C>(std::type_identity<C>) {
    run<trainer<C>> r;
    (*r).optimizer().rate = ln::schedule::constant(0);
    ln::initialize(r.w, ln::seed{1});
    (*r).refresh();
    r.steps(1);  // the second one knows the ranges
    (void)(*r).accumulate(r.data.view());
    std::vector<double> all;
    (*r).gradient().visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& g) {
      all.insert(all.end(), g, g + info.size());
    });
    return all;
  };
  const auto a = gradient(std::type_identity<ln::compute::f32>{}),
             b = gradient(std::type_identity<Compute>{});
  double both = 0, one = 0, other = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    both += a[i] * b[i];
    one += a[i] * a[i];
    other += b[i] * b[i];
  }
  return both / std::sqrt(one * other);
}

/// Whether all weights and moments of a run are bf16 numbers, some of which are not 0.
template <class Run>
void check_all_bf16(Run& r) {
  for (const auto name : {"weights", "optimizer.first", "optimizer.second"}) {
    const auto b = r.block(name);
    std::uint32_t all = 0;
    for (std::size_t i = 0; i < b.size(); i += 4) {
      std::uint32_t one = 0;
      std::memcpy(&one, b.data() + i, 4);
      all |= one;
    }
    BOOST_TEST((all & 0xffff) == 0u, name);
    const bool unseen = (*r).steps() < 2 && std::string_view(name) == "optimizer.second";
    BOOST_TEST((all != 0 || unseen), name);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(precision)

BOOST_AUTO_TEST_CASE(products_in_f16) {
  for (const int threads : {1, 3}) {
    products<ln::storage::mixed_precision<ln::compute::f16>> p;
    for (float& g : p.dy) g *= 1e-6f;  // below the least f16 without a scale
    p.run(4096, threads);
    BOOST_TEST(p.worst(f16, [](double g) { return f16(4096 * g) / 4096; }) < 1e-5);
    BOOST_TEST(magnitude(p.dx) > 1e-6);
    double most = 0;
    for (index i = 0; i < p.m * p.k; ++i)
      most = (std::max)(most, std::abs(static_cast<double>(p.dx[at(i)])));
    BOOST_TEST(p.worst(f16, [](double g) { return f16(g); }) > 1e-8 * most);
  }
  products<ln::storage::mixed_precision<ln::compute::f16>> p;
  p.dy[3] = 20;
  p.run(4096, 1);  // 81920 overflows
  BOOST_TEST(!ln::is_finite(p.dw[3 * 9]));
}

// With a scale of 1 before the first step, then with the largest of 16 steps.
BOOST_AUTO_TEST_CASE(products_in_8_bits) {
  for (const int threads : {1, 3}) {
    products<ln::storage::mixed_precision<ln::compute::fp8>> p;
    p.dy[5] = 70'000;  // is cut to 57344
    p.run(1, threads);
    BOOST_TEST(p.worst(e4m3, e5m2) < 0.05);  // of sums about 57344
    BOOST_TEST(p.scales.gradient.largest == bits_of(70'000));
    BOOST_TEST(p.scales.input.largest == bits_of(static_cast<float>(magnitude(p.x))));
    p.dy[5] = 1;
    p.scales.gradient.largest = bits_of(4);
    p.scales.input.advance(0, 448);
    p.scales.gradient.advance(0, 57344);
    BOOST_TEST(p.scales.gradient.scale == 14336);
    BOOST_TEST(p.scales.gradient.largest == 0u);
    std::ranges::fill(p.dw, 0.0f);
    std::ranges::fill(p.dx, 0.0f);
    p.run(1, threads);
    const auto s = static_cast<double>(p.scales.input.scale);
    BOOST_TEST(p.worst([s](double x) { return e4m3(s * x) / s; },
                       [](double g) { return e5m2(14336 * g) / 14336; }) < 1e-5);
  }
}
BOOST_AUTO_TEST_CASE(delayed_scales) {
  ln::delayed_scales::one s;
  BOOST_TEST(s.factor() == 1);
  for (index t = 0; t < 20; ++t) {
    s.largest = bits_of(t == 2 ? 8.0f : t == 7 ? std::numeric_limits<float>::infinity() : 2.0f);
    s.advance(t, 448);
    BOOST_TEST(s.factor() == (t >= 2 && t < 18 ? 56 : 224), "step " << t);
  }
}

BOOST_AUTO_TEST_CASE(runs) {
  check_run<trainer<ln::compute::f16>>();
  check_run<trainer<ln::compute::fp8>>();
}
BOOST_AUTO_TEST_CASE(gradients_point_where_those_in_f32_do) {
  const double half = cosine<ln::compute::f16>(), eight = cosine<ln::compute::fp8>();
  BOOST_TEST(half > 0.99999);
  BOOST_TEST(half < 1 - 1e-12);
  BOOST_TEST(eight > 0.97);
  BOOST_TEST(eight < 0.99999);
}

// A scale that is too large costs steps, which leave weights and moments as they were, and no run.
BOOST_AUTO_TEST_CASE(overflow_in_f16) {
  run<trainer<ln::compute::f16>> r(1, {.if_not_finite = ln::bad_step::stop, .patience = 1});
  const auto scale = [&] { return reinterpret_cast<double*>(r.block("loss_scale").data()); };
  BOOST_TEST(*scale() == 65536);
  *scale() = 16'777'216;
  const auto before = r.w.clone();
  const auto moments = [&] {
    const auto b = r.block("optimizer.first");
    return std::vector<std::byte>(b.begin(), b.end());
  };
  const auto zero = moments();
  r.steps(1);
  BOOST_TEST((*r).steps() == 0);
  BOOST_TEST((*r).skipped() == 1);
  BOOST_TEST(!(*r).stopped());
  BOOST_TEST(same_bytes(r.w, before));
  BOOST_TEST((moments() == zero));
  BOOST_TEST(*scale() == 8'388'608);
  for (int i = 0; i < 20 && (*r).steps() == 0; ++i) r.steps(1);
  BOOST_TEST((*r).steps() == 1);
  BOOST_TEST(*scale() > 1);
  BOOST_TEST(!same_bytes(r.w, before));

  ln::dynamic_loss_scale s;
  for (int i = 0; i < 1999; ++i) BOOST_TEST(!s.advance(false));
  BOOST_TEST(s.value == 65536);
  (void)s.advance(false);
  BOOST_TEST(s.value == 131'072);
  BOOST_TEST(s.advance(true));
  BOOST_TEST(s.value == 65536);
  s.value = 1;
  BOOST_TEST(!s.advance(true));  // then it is no scale's fault
}
// Curvature comes from gradients that f16 rounds, with their scale: those of v are 1e-8 here, below
// the least f16.
BOOST_AUTO_TEST_CASE(curvature_in_f16) {
  const auto seen = []<class Compute>(Compute) {
    run<trainer<Compute, ln::sophia>> r;
    r.w.visit([](const ln::parameter_path& path, const ln::tensor_info& info, auto& leaf) {
      if (path.str().ends_with("attention.o.weight"))
        for (index i = 0; i < info.size(); ++i) values_of(leaf)[i] *= 1e-7f;
    });
    (*r).refresh();
    BOOST_TEST(ln::is_finite((*r).estimate_curvature(r.data.view()).nats));
    const auto b = r.block("optimizer.second");
    int count = 0;
    for (std::size_t i = 0; i < b.size(); i += 4) {
      float h = 0;
      std::memcpy(&h, b.data() + i, 4);
      count += h > 0;
    }
    return count;
  };
  const int all = seen(ln::compute::f32{}), half = seen(ln::compute::f16{});
  BOOST_TEST(half > 0.98 * all, half << " of " << all);
}
// A loss that is no number stops, as in f32.
BOOST_AUTO_TEST_CASE(losses_that_are_no_number) {
  run<trainer<ln::compute::f16>> r(1, {.if_not_finite = ln::bad_step::stop});
  r.w.tree().norm.weight[0] = std::numeric_limits<float>::quiet_NaN();
  (*r).refresh();
  r.steps(1);
  BOOST_TEST((*r).stopped());
}

// Up or down to a neighbour, in the mean to the number itself; bf16 numbers and infinities stay.
BOOST_AUTO_TEST_CASE(stochastic_rounding) {
  const float x = 1.0f + 0x1p-9f + 0x1p-11f;  // 0.3125 of the way to the next
  ln::random_stream random(ln::seed{1});
  int up = 0;
  constexpr int n = 20'000;
  for (int i = 0; i < n; ++i) {
    const float y = ln::detail::stochastic_bf16(-x, random.bits());
    BOOST_REQUIRE((y == -1.0f || y == -1.0f - 0x1p-7f));
    up += y != -1.0f;
  }
  BOOST_TEST(std::abs(up / static_cast<double>(n) - 0.3125) < 4 * std::sqrt(0.3125 * 0.6875 / n));
  for (const float same : {0.0f, -0.0f, 1.5f, -0x1p-130f, std::numeric_limits<float>::infinity()})
    BOOST_TEST(bits_of(ln::detail::stochastic_bf16(same, 0xffff'ffff)) == bits_of(same));
  // Mean of all draws of a tensor, where each has its own.
  std::vector<float> many(10'000, x);
  ln::detail::round_to_bf16({}, 1, 2, 3, std::ssize(many), many.data());
  double mean = 0;
  for (const float y : many) mean += static_cast<double>(y) / 10'000;
  BOOST_TEST(std::abs(mean - static_cast<double>(x)) < 4 * 0x1p-7 * std::sqrt(0.22 / 10'000));
  // Neighbours are rounded independently: alike with probability p^2 + (1 - p)^2.
  for (const std::size_t begin : {std::size_t{0}, std::size_t{1}}) {
    const double p = 0.3125, alike = p * p + (1 - p) * (1 - p);
    double seen = 0;
    for (std::size_t i = begin; i + 1 < many.size(); i += 2) seen += many[i] == many[i + 1];
    BOOST_TEST(std::abs(seen / 5'000 - alike) < 4 * std::sqrt(alike * (1 - alike) / 5'000));
  }
}
// All weights and moments are bf16 numbers, and what is below half a place counts: 400 steps of
// 1e-4 from 1, where places are 0.004 and 0.008.
BOOST_AUTO_TEST_CASE(bf16_alone) {
  using optimizer = ln::bf16_rounded<ln::adamw>;
  check_run<trainer<ln::compute::bf16, optimizer>>();
  run<trainer<ln::compute::bf16, optimizer>> r;
  r.steps(2);
  check_all_bf16(r);
  // Also behind an estimate of the curvature, which sophia takes after its step.
  run<trainer<ln::compute::bf16, ln::bf16_rounded<ln::sophia>>> s;
  (*s).optimizer().every = 2;
  for (int t = 1; t <= 4; ++t) {
    s.steps(1);
    check_all_bf16(s);
  }
  ln::weights<model> w;
  ln::gradients<model> g;
  ln::lion::state<model, float> state;
  const auto fill = [](auto& block, float x) {
    block.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      std::fill_n(values_of(leaf), info.size(), x);
    });
  };
  fill(w, 1);
  fill(g, 1);
  const ln::bf16_rounded<ln::lion> o{{.rate = ln::schedule::constant(1e-4), .decay = 0}};
  for (index t = 1; t <= 400; ++t) o.update({{}, ln::simd::best()}, t, 1, g, state, w);
  double mean = 0;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    for (index i = 0; i < info.size(); ++i) mean += static_cast<double>(values_of(leaf)[i]);
  });
  mean /= static_cast<double>(model::parameters());
  BOOST_TEST(std::abs(mean - 0.96) < 0.003);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::precision_test
