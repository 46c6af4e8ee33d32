// SPDX-License-Identifier: MIT
// Fake quantization: what a trainer computes is the quantized model, and gradients pass straight
// through.

#include "support/models.hpp"

namespace test::fake_quantization_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using int4 = ln::storage::int4<8>;
template <class M, class S, class A = ln::compute::f32>
using fake_trainer = ln::trainer<M, ln::adamw, float, ln::compute::fake_quantized<S, A>>;

/// All values of gradients.
template <class Block>
std::vector<float> all_of(const Block& block) {
  std::vector<float> all;
  block.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}

/// Loss and gradients are those of a plain trainer at the numbers that the codes stand for, to the
/// bit. That trainer's gradients are checked by differences elsewhere: what is left is
/// straight-through. The loss is that of the quantized model, whose products sum in another order.
template <class M, class S>
void check_weights() {
  const auto data = data_for<M>(3, 6, 5);
  ln::weights<M> w;
  randomize(w);
  const auto q = ln::quantize<S>(w);
  auto numbers = decoded<M>(q);
  auto fake = fake_trainer<M, S>::open(w, data.limits());
  auto plain = ln::trainer<M>::open(numbers, data.limits());
  BOOST_REQUIRE(fake && plain);
  BOOST_TEST(same_bytes(fake->quantized(), q));
  const ln::loss_sum a = fake->accumulate(data.view()), b = plain->accumulate(data.view());
  BOOST_TEST(a.nats == b.nats);
  BOOST_TEST(same_bytes(fake->gradient(), plain->gradient()));
  BOOST_TEST(magnitude(all_of(fake->gradient())) > 0.1);
  const auto p = ln::pack(q);
  auto judge = ln::evaluator<ln::quantized<M, S>>::open(p, data.limits());
  BOOST_TEST(std::abs(judge->loss(data.view()).nats - a.nats) < 1e-5 * a.nats);
  // The master weights take the step, and the codes follow.
  const auto before = all_of(w);
  fake->update();
  BOOST_TEST(distance(all_of(w), before) > 1e-4);
  BOOST_TEST(same_bytes(fake->quantized(), ln::quantize<S>(w)));
  BOOST_TEST(!same_bytes(fake->quantized(), q));
}

/// What a run of some steps leaves: losses, weights, and the quantized weights.
template <class Trainer, class Quantized>
struct outcome {
  std::vector<double> losses;
  ln::weights<small> w;
  Quantized q;
};
/// Steps on `threads` threads, the last of them by another trainer that goes on from the first.
template <class Compute>
auto run(int threads, bool resumed) {
  using trainer = ln::trainer<small, ln::adamw, float, Compute>;
  using quantized = std::remove_cvref_t<decltype(std::declval<trainer&>().quantized())>;
  const auto data = data_for<small>(3, 6, 5);
  outcome<trainer, quantized> r;
  randomize(r.w);
  auto limits = data.limits(threads);
  limits.run_on = std_threads();
  const ln::adamw how{.rate = ln::schedule::constant(1e-2)};
  auto train = trainer::open(r.w, limits, how);
  BOOST_REQUIRE(static_cast<bool>(train));
  for (int step = 0; step < 3; ++step) r.losses.push_back(train->step(data.view()));
  ln::weights<small> other;
  randomize(other, 9);
  auto next = trainer::open(resumed ? other : r.w, limits, how);
  if (resumed) {
    std::vector<std::vector<std::byte>> blocks;
    train->visit_state([&](std::string_view, std::span<std::byte> block) {
      blocks.emplace_back(block.begin(), block.end());
    });
    auto from = blocks.begin();
    next->visit_state([&](std::string_view, std::span<std::byte> block) {
      std::ranges::copy(*from++, block.begin());
    });
    BOOST_REQUIRE(static_cast<bool>(next->resume(train->progress())));
  }
  auto& last = resumed ? *next : *train;
  for (int step = 0; step < 2; ++step) {
    r.losses.push_back(last.step(data.view()));
    r.losses.push_back(last.gradient_norm());
  }
  if (resumed) r.w = std::move(other);
  r.q = last.quantized().clone();
  return r;
}
/// Any number of threads, and a run that goes on elsewhere, gives the same bits.
template <class Compute>
void check_bits() {
  const auto one = run<Compute>(1, false);
  BOOST_TEST(one.losses.back() > 0);
  for (const auto& other : {run<Compute>(3, false), run<Compute>(2, true)}) {
    BOOST_TEST(other.losses == one.losses);
    BOOST_TEST(same_bytes(other.w, one.w));
    BOOST_TEST(same_bytes(other.q, one.q));
  }
}

/// With these, a first step of AdamW is -rate times the gradient.
ln::adamw nearly_descent(double rate) {
  return {.rate = ln::schedule::constant(rate * 1e8), .beta1 = 0, .eps = 1e8, .decay = 0};
}
/// All scales of quantized weights.
template <class Q>
std::vector<float*> scales_of(ln::weights<Q>& q) {
  std::vector<float*> all;
  q.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    if constexpr (requires { leaf.scales; })
      for (index i = 0;
           i < info.rows * ln::row_scales<typename std::remove_cvref_t<decltype(leaf)>::storage>(
                               info.columns);
           ++i)
        all.push_back(leaf.scales + i);
  });
  return all;
}
/// The change of each scale by one step, against differences of the loss, whose codes stay.
template <class S, class Steps>
void check_scales(double rate) {
  using trainer =
      ln::trainer<small, ln::adamw, float, ln::compute::fake_quantized<S, ln::compute::f32, Steps>>;
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  auto train = trainer::open(w, data.limits(), nearly_descent(rate), {.clip = 0});
  BOOST_REQUIRE(static_cast<bool>(train));
  auto before = train->quantized().clone();
  const auto loss_at = [&](const auto& q) {
    ln::weights<small, double> d;
    const auto numbers = decoded<small>(q);
    ln::each_tensor_of(
        [](const ln::parameter_path&, const ln::tensor_info& info, auto& to, const auto& from) {
          std::copy_n(values_of(from), info.size(), values_of(to));
        },
        d, numbers);
    const auto p = ln::pack(d);
    auto judge = ln::evaluator<small, double>::open(p, data.limits());
    return judge->loss(data.view()).mean();
  };
  (void)train->step(data.view());
  auto after = train->quantized().clone();
  const auto old = scales_of(before), moved = scales_of(after);
  double largest = 0;
  std::vector<double> expected, got;
  for (std::size_t i = 0; i < old.size(); i += 3) {
    const float kept = *old[i], h = kept / 64;
    *old[i] = kept + h;
    const double up = loss_at(before);
    *old[i] = kept - h;
    const double down = loss_at(before);
    *old[i] = kept;
    expected.push_back((up - down) / (2 * static_cast<double>(h)));
    got.push_back(static_cast<double>(kept - *moved[i]) / rate);
    largest = (std::max)(largest, std::abs(expected.back()));
  }
  BOOST_TEST(largest > 0.02);
  BOOST_TEST(distance(got, expected) < 0.01 * largest);
}

/// Products of inputs that compute type A rounds, in training.
template <class A>
void check_straight_through() {
  using S = ln::storage::fake_quantized<ln::storage::with_compute<int4, A>>;
  constexpr index n = 5, k = 19;
  constexpr auto Q = static_cast<float>(A::largest);
  const auto outlier = [](float v) { return static_cast<double>(std::abs(v)) >= A::threshold; };
  for (const index m : {index{3}, index{6}}) {  // each thread for itself, and shared
    const auto x = normal<float>(m * k, 1), w = normal<float>(n * k, 2),
               dy = normal<float>(m * n, 3);
    std::vector<float> panels(at(32 * k)), rounded = x;
    for (index i = 0; i < m; ++i)  // of groups of 8, by the definition
      for (index j = 0; j < k; j += 8) {
        float most = 0;
        for (index l = j; l < (std::min)(k, j + 8); ++l)
          if (!outlier(x[at(i * k + l)])) most = (std::max)(most, std::abs(x[at(i * k + l)]));
        for (index l = j; l < (std::min)(k, j + 8); ++l)
          if (!outlier(x[at(i * k + l)]))
            rounded[at(i * k + l)] =
                most / Q * static_cast<float>(std::nearbyint(x[at(i * k + l)] * (Q / most)));
      }
    BOOST_TEST(distance(rounded, x) > 1e-3);
    ln::ops::packed_matrix<float, S> p{panels.data(), nullptr, nullptr, w.data()};
    ln::memory_block scratch(ln::ops::converted_bytes<S>(m, k, n, 1, true));
    const ln::ops::execution on{{}, ln::simd::best(), scratch.data()};
    ln::ops::pack(on, n, k, ln::matrix_ref<S>{const_cast<float*>(w.data())}, p);
    std::vector<float> y(at(m * n)), dx(at(m * k), 0.5f), dw(at(n * k), 0.5f);
    std::vector<double> y_expected(y.size()), dx_expected(dx.size(), 0.5),
        dw_expected(dw.size(), 0.5);
    for (index i = 0; i < m; ++i)
      for (index c = 0; c < n; ++c)
        for (index j = 0; j < k; ++j) {
          const double d = static_cast<double>(dy[at(i * n + c)]),
                       read = static_cast<double>(rounded[at(i * k + j)]),
                       weight = static_cast<double>(w[at(c * k + j)]);
          y_expected[at(i * n + c)] += read * weight;
          dx_expected[at(i * k + j)] += d * weight;
          dw_expected[at(c * k + j)] += d * read;
        }
    ln::ops::matmul(on, m, n, k, x.data(), p, y.data());
    ln::ops::matmul_backward<float>(on, m, n, k, dy.data(), x.data(), p, {dw.data(), dx.data()});
    BOOST_TEST(distance(y, y_expected) < 1e-5);
    BOOST_TEST(distance(dx, dx_expected) < 1e-5);
    BOOST_TEST(distance(dw, dw_expected) < 1e-5);
  }
}

BOOST_AUTO_TEST_SUITE(fake_quantization)

BOOST_AUTO_TEST_CASE(weights_are_those_of_the_quantized_model) {
  check_weights<small, int4>();
  check_weights<small, ln::storage::q4_1>();
  check_weights<small, ln::storage::int8_per<ln::storage::granularity::tensor>>();
  check_weights<ln::decoder<tiny_decoder_shape, ln::tie::untied>,
                ln::storage::per_role<int4, ln::storage::embedding<ln::storage::f32>,
                                      ln::storage::head<ln::storage::int8>>>();
  check_weights<ln::t5<tiny_t5_shape>, ln::storage::nf4>();
  check_weights<small, ln::storage::outlier_columns<int4, 1>>();
  check_weights<small, ln::storage::sparse_outliers<ln::storage::spqr<3>, 1>>();
  check_weights<small, ln::storage::nf4_double_per<8>>();
}

BOOST_AUTO_TEST_CASE(inputs_are_rounded_as_the_quantized_model_rounds_them) {
  const auto check = []<class S>(S) {
    using Q = ln::quantized<small, S, ln::compute::int8>;
    const auto data = data_for<small>(3, 6, 5);
    ln::weights<small> w;
    randomize(w);
    auto exact = fake_trainer<small, S>::open(w, data.limits());
    auto fake = fake_trainer<small, S, ln::compute::int8>::open(w, data.limits());
    const auto p = ln::pack(fake->quantized());
    auto judge = ln::evaluator<Q>::open(p, data.limits());
    const double loss = fake->evaluate(data.view()).nats;
    BOOST_TEST(std::abs(judge->loss(data.view()).nats - loss) < 1e-5 * loss);
    BOOST_TEST(std::abs(exact->evaluate(data.view()).nats - loss) > 1e-4 * loss);
    const double first = fake->step(data.view());
    for (int i = 0; i < 30; ++i) (void)fake->step(data.view());
    BOOST_TEST(fake->evaluate(data.view()).mean() < 0.95 * first);
  };
  check(int4{});
  check(ln::storage::int8{});
}

BOOST_AUTO_TEST_CASE(gradients_pass_straight_through) {
  check_straight_through<ln::compute::int8>();
  check_straight_through<ln::compute::mixed_int8<1.0>>();
  check_straight_through<ln::compute::int4>();
}

BOOST_AUTO_TEST_CASE(keys_and_values_are_rounded_as_in_the_cache) {
  const auto check = []<class Cache>(Cache, double differs) {
    using M = ln::decoder<tiny_decoder_shape, Cache>;
    const auto data = decoder_data<M>(1, 9);
    ln::weights<M> w;
    randomize(w);
    auto train = fake_trainer<M, ln::storage::f32>::open(w, data.limits());
    std::vector<float> logits(at(9 * M::vocabulary)), decoded_logits;
    (void)train->evaluate(data.view(), logits);
    const auto p = ln::pack(w);
    auto s = ln::session<M>::open(p, {.target = 9});
    for (const token t : data.inputs) {
      const auto next = s->feed({&t, 1});
      decoded_logits.insert(decoded_logits.end(), next.begin(), next.end());
    }
    BOOST_TEST(distance(logits, decoded_logits) < 1e-4);
    auto plain = ln::trainer<M>::open(w, data.limits());
    (void)plain->evaluate(data.view(), logits);
    BOOST_TEST(distance(logits, decoded_logits) > differs);
    BOOST_TEST(train->step(data.view()) > 0);
  };
  check(ln::kv::int8{}, 1e-3);
  check(ln::kv::bf16{}, 1e-3);
  check(ln::kv::f16{}, 1e-4);
}

BOOST_AUTO_TEST_CASE(threads_and_resumed_runs_change_no_bit) {
  using ln::compute::fake_quantized, ln::compute::f32;
  check_bits<fake_quantized<int4, ln::compute::int8>>();
  using mixed = ln::storage::per_role<int4, ln::storage::embedding<ln::storage::f32>>;
  check_bits<fake_quantized<mixed, f32, ln::steps::learned>>();
  check_bits<fake_quantized<int4, f32, ln::steps::alone>>();
}

BOOST_AUTO_TEST_CASE(learned_steps_follow_the_surrogate) {
  // With rounding as a constant offset x' = w + s o inside, and x' = s Q where it is cut.
  using grid = ln::detail::code_grid<int4>;
  const std::vector<float> w{0.1f, -0.32f, 1.9f, 0.77f, -2.5f, 0.0f, 0.5f, 0.2f};
  const auto upstream = normal<float>(8, 5);
  const grid at_step{0.25f, 0};
  const auto surrogate = [&](double s) {
    double sum = 0;
    for (std::size_t j = 0; j < w.size(); ++j) {
      const double x = static_cast<double>(w[j]), units = x / 0.25;
      const double number =
          std::abs(units) > 7 ? std::copysign(7 * s, x) : x + s * (std::nearbyint(units) - units);
      sum += static_cast<double>(upstream[j]) * number;
    }
    return sum;
  };
  auto g = upstream;
  const double got = ln::detail::learned_step_gradient(at_step, 8, w.data(), g.data());
  const double numeric = (surrogate(0.26) - surrogate(0.24)) / 0.02;
  BOOST_TEST(std::abs(got - numeric / std::sqrt(8 * 7.0)) < 1e-9);
  for (std::size_t j = 0; j < w.size(); ++j)
    BOOST_TEST(g[j] == (j == 2 || j == 4 ? 0.0f : upstream[j]));
}

BOOST_AUTO_TEST_CASE(learned_steps_begin_and_train) {
  using trainer =
      ln::trainer<small, ln::adamw, float,
                  ln::compute::fake_quantized<int4, ln::compute::f32, ln::steps::learned>>;
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  auto train = trainer::open(w, data.limits(), {.rate = ln::schedule::constant(1e-2)});
  double mean = 0;
  for (index j = 0; j < 8; ++j)
    mean += std::abs(static_cast<double>(w.tree().embedding.data[j])) / 8;
  auto q = train->quantized().clone();
  BOOST_TEST(std::abs(static_cast<double>(q.tree().embedding.scales[0]) -
                      2 * mean / std::sqrt(7.0)) < 1e-6);
  const double first = train->step(data.view());
  for (int i = 0; i < 30; ++i) (void)train->step(data.view());
  BOOST_TEST(train->evaluate(data.view()).mean() < 0.7 * first);
  auto moved = train->quantized().clone();
  std::vector<float> a, b;
  for (float* s : scales_of(q)) a.push_back(*s);
  for (float* s : scales_of(moved)) b.push_back(*s);
  BOOST_TEST(distance(a, b) > 0.01);
}

BOOST_AUTO_TEST_CASE(steps_alone_are_linear) {
  check_scales<int4, ln::steps::alone>(1e-3);
  check_scales<
      ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric, 8>,
      ln::steps::alone>(1e-6);
}

BOOST_AUTO_TEST_CASE(steps_alone_begin_with_given_codes) {
  using trainer =
      ln::trainer<small, ln::adamw, float,
                  ln::compute::fake_quantized<int4, ln::compute::f32, ln::steps::alone>>;
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w, given;
  randomize(w);
  randomize(given, 2);
  auto train = trainer::open(w, data.limits(), {.rate = ln::schedule::constant(1e-2)});
  BOOST_TEST(same_bytes(train->quantized(), ln::quantize<int4>(w)));
  const auto q = ln::quantize<int4>(given);
  BOOST_REQUIRE(static_cast<bool>(train->start_from(q)));
  BOOST_TEST(same_bytes(train->quantized(), q));
  auto numbers = decoded<small>(q);
  auto plain = ln::trainer<small>::open(numbers, data.limits());
  const double before = train->evaluate(data.view()).nats;
  BOOST_TEST(before == plain->evaluate(data.view()).nats);
  const auto kept = w.clone();
  for (int i = 0; i < 30; ++i) (void)train->step(data.view());
  BOOST_TEST(train->evaluate(data.view()).nats < 0.9 * before);
  BOOST_TEST(same_bytes(w, kept));
  // Codes, norms and biases stay.
  auto other = train->quantized().clone();
  auto from = q.clone();
  const auto now = scales_of(other), then = scales_of(from);
  for (std::size_t i = 0; i < now.size(); ++i) *now[i] = *then[i];
  BOOST_TEST(same_bytes(other, q));
  // Weights that are not there have an error.
  ln::weights<ln::quantized<small, int4>> none;
  none.fail({ln::errc::invalid, "here", "there", "more", "less"});
  BOOST_TEST(train->start_from(none).error().where == "here");
}

// Sophia moves steps alone as it does learned ones; weights that stay have no curvature.
BOOST_AUTO_TEST_CASE(steps_alone_by_sophia) {
  using compute = ln::compute::fake_quantized<int4, ln::compute::f32, ln::steps::alone>;
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  const auto kept = w.clone();
  ln::sophia optimizer{.rate = ln::schedule::constant(1e-2)};
  optimizer.every = 2;
  auto train = ln::trainer<small, ln::sophia, float, compute>::open(w, data.limits(), optimizer);
  BOOST_REQUIRE(static_cast<bool>(train));
  const double before = train->step(data.view());
  for (int i = 0; i < 30; ++i) (void)train->step(data.view());
  BOOST_TEST(train->evaluate(data.view()).mean() < 0.9 * before);
  BOOST_TEST(same_bytes(w, kept));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::fake_quantization_test
