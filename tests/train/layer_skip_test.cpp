// SPDX-License-Identifier: MIT
// LayerSkip: the weights of exits, the loss of all exits against truncated models, and layers that
// samples skip in training.

#include <map>

#include "support/models.hpp"

namespace test::layer_skip_test {

namespace {

constexpr ln::decoder_shape with_layers(index n) {
  ln::decoder_shape shape = tiny_decoder_shape;
  shape.layers = n;
  return shape;
}
template <index N>
using decoder = ln::decoder<with_layers(N), ln::tie::untied>;
using M = decoder<3>;
constexpr ln::decoder_shape three_rwkv7 = [] {
  ln::decoder_shape shape = tiny_rwkv7_shape;
  shape.layers = 3;
  return shape;
}();

std::vector<double> weights_of(const ln::early_exits& exits, index step, index layers) {
  std::vector<double> w(at(layers));
  exits.weights(step, w);
  return w;
}
/// Which exits have a weight.
std::string enabled(const ln::early_exits& exits, index step, index layers) {
  std::string all;
  for (index l = 0; l < layers; ++l) all += exits.enabled(step, l, layers) ? 'x' : '-';
  return all;
}

/// Values of weights or gradients by name.
template <class Block>
std::map<std::string, std::vector<double>> by_name(const Block& block) {
  std::map<std::string, std::vector<double>> all;
  block.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, const auto& leaf) {
    all[where.str()].assign(values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}

/// Loss and gradient of the model that ends after its first N layers: a model of its own with the
/// weights of the same names.
template <index N>
std::pair<ln::loss_sum, std::map<std::string, std::vector<double>>> truncated(
    const std::map<std::string, std::vector<double>>& weights, const decoder_tokens& data) {
  ln::weights<decoder<N>, double> w;
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    std::copy_n(weights.at(where.str()).data(), info.size(), values_of(leaf));
  });
  auto train = ln::trainer<decoder<N>, ln::adamw, double>::open(w, data.limits());
  const ln::loss_sum loss = train->accumulate(data.view());
  return {loss, by_name(train->gradient())};
}

template <class Model>
ln::weights<Model, double> random_weights() {
  ln::weights<Model, double> w;
  randomize(w);
  return w;
}

/// The gradient of J for all parameters, with layers skipped or not.
template <class Model>
void check_exits(const std::vector<double>& weights, double dropout, double layer_rate) {
  auto w = random_weights<Model>();
  const auto data = decoder_data<Model>(3, 4);
  const ln::gradient_report r = ln::check_model_gradients(
      w, data.view(), data.limits(), {3, 1, 2, dropout, layer_rate}, 1e-5, 1e-3,
      ln::cross_entropy_objective{}, ln::exit_calls{weights.data()});
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == Model::parameters());
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
}

/// Weights after three steps of a trainer.
std::vector<double> trained(const ln::training_options& how, std::vector<double>* losses = nullptr,
                            int threads = 1) {
  auto w = random_weights<M>();
  const auto data = decoder_data<M>(4, 5);
  ln::limits l = data.limits(threads);
  l.run_on = std_threads();
  auto train = ln::trainer<M, ln::adamw, double>::open(w, l, {ln::schedule::constant(1e-2)}, how);
  BOOST_REQUIRE(static_cast<bool>(train));
  for (int step = 0; step < 3; ++step) {
    const double loss = train->step(data.view());
    if (losses) losses->push_back(loss);
  }
  std::vector<double> all;
  for (const auto& [name, values] : by_name(w)) all.insert(all.end(), values.begin(), values.end());
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(layer_skip)

// Zoo C7's numbers, and e(l) = e_s (0 + ... + l), e(L-1) = L - 1 + e_s (0 + ... + (L-2)) by hand.
BOOST_AUTO_TEST_CASE(weights_of_exits) {
  BOOST_TEST(distance(weights_of({.scale = 1}, 0, 6),
                      std::vector{0.0, 1 / 35., 3 / 35., 6 / 35., 10 / 35., 15 / 35.}) < 1e-15);
  BOOST_TEST(distance(weights_of({.scale = 1}, 0, 6),
                      std::vector{0.0, .0286, .0857, .1714, .2857, .4286}) < 5e-5);
  BOOST_TEST(distance(weights_of({.scale = 0.5}, 0, 4),
                      std::vector{0.0, 0.5 / 6.5, 1.5 / 6.5, 4.5 / 6.5}) < 1e-15);
  BOOST_TEST(weights_of({.scale = 0}, 0, 3) == (std::vector{0.0, 0.0, 1.0}));
  BOOST_TEST(weights_of({.scale = 1}, 0, 1) == (std::vector{1.0}));
  BOOST_TEST(weights_of({.scale = 1}, 0, 2) == (std::vector{0.0, 1.0}));
  // Normalised over the enabled ones; an exit after layer 0 alone leaves the last.
  BOOST_TEST(distance(weights_of({.scale = 1, .rotation = 3}, 1, 6),
                      std::vector{0.0, 1 / 26., 0.0, 0.0, 10 / 26., 15 / 26.}) < 1e-15);
  BOOST_TEST(weights_of({.scale = 1, .rotation = 5}, 0, 6) ==
             (std::vector{0.0, 0.0, 0.0, 0.0, 0.0, 1.0}));
}
BOOST_AUTO_TEST_CASE(curricula) {
  const ln::early_exits rotating{.scale = 1, .rotation = 3};
  BOOST_TEST(enabled(rotating, 0, 7) == "x--x--x");
  BOOST_TEST(enabled(rotating, 1, 7) == "-x--x-x");
  BOOST_TEST(enabled(rotating, 2, 7) == "--x--xx");
  BOOST_TEST(enabled(rotating, 3, 7) == "x--x--x");
  BOOST_TEST(enabled({.scale = 1}, 5, 3) == "xxx");
  // T = 80, L = 4: one more every 10 steps, all before T / 2.
  const ln::early_exits gradual{.scale = 1, .steps = 80};
  for (const auto& [step, want] : std::map<index, const char*>{{0, "---x"},
                                                               {9, "---x"},
                                                               {10, "--xx"},
                                                               {19, "--xx"},
                                                               {20, "-xxx"},
                                                               {29, "-xxx"},
                                                               {30, "xxxx"},
                                                               {1000, "xxxx"}})
    BOOST_TEST(enabled(gradual, step, 4) == want);
}
// S(t) = 2^(t / (T - 1)) - 1, or 1.
BOOST_AUTO_TEST_CASE(rates) {
  const ln::layer_dropout rising{0.2, 11};
  BOOST_TEST(rising.at(0) == 0);
  BOOST_TEST(distance_of(rising.at(5), 0.2 * (std::sqrt(2.0) - 1)) < 1e-15);
  for (const index t : {10, 11, 1000}) BOOST_TEST(rising.at(t) == 0.2);
  BOOST_TEST(ln::layer_dropout{0.2}.at(0) == 0.2);
  BOOST_TEST((ln::layer_dropout{0.2, 1}.at(0)) == 0.2);
}

// J, its gradient, and the loss of each exit are those of three separate models that end earlier
// and share their weights.
BOOST_AUTO_TEST_CASE(truncated_models) {
  auto w = random_weights<M>();
  const auto data = decoder_data<M>(3, 5);
  const auto names = by_name(w);
  const std::array parts{truncated<1>(names, data), truncated<2>(names, data),
                         truncated<3>(names, data)};
  const auto p = ln::pack(w);
  auto scoring = ln::evaluator<M, double>::open(p, data.limits());
  std::vector<ln::loss_sum> each(3);
  BOOST_TEST(scoring->exit_losses(data.view(), each));
  for (std::size_t l = 0; l < 3; ++l) {
    BOOST_TEST(each[l].nats == parts[l].first.nats);
    BOOST_TEST(each[l].tokens == parts[l].first.tokens);
  }
  BOOST_TEST(!scoring->exit_losses(data.view(), std::span(each).first(2)));
  BOOST_TEST(!scoring->exit_losses({}, each));

  for (const double scale : {0.2, 1.0}) {
    auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits(), {},
                                                         {.early_exits = {.scale = scale}});
    const double e[] = {0, scale / (2 + 2 * scale), (2 + scale) / (2 + 2 * scale)};
    const ln::loss_sum loss = train->accumulate(data.view());
    double nats = 0;
    auto want = by_name(ln::gradients<M, double>());
    for (std::size_t l = 0; l < 3; ++l) {
      nats += e[l] * parts[l].first.nats;
      for (const auto& [name, values] : parts[l].second)
        for (std::size_t i = 0; i < values.size(); ++i) want[name][i] += e[l] * values[i];
    }
    BOOST_TEST(distance_of(loss.nats, nats) <= 1e-13 * nats);
    BOOST_TEST(loss.tokens == each[2].tokens);
    for (const auto& [name, values] : by_name(train->gradient()))
      BOOST_TEST(distance(values, want[name]) <= 1e-12 * magnitude(want[name]), name);
    BOOST_TEST(train->evaluate(data.view()).nats == each[2].nats);
  }
}

BOOST_AUTO_TEST_CASE(gradient_of_all_exits, *boost::unit_test::label("numbers")) {
  check_exits<M>({0.2, 0.3, 0.5}, 0, 0);
  check_exits<M>({0.7, 0, 0.3}, 0.2, 0.9);
  // Its stack is two chained ones.
  check_exits<ln::rwkv7<three_rwkv7>>({0.2, 0.3, 0.5}, 0, 0.9);
}

// Without early exits, and where only the last is enabled, training is plain training to the bit.
BOOST_AUTO_TEST_CASE(nothing_enabled_is_plain) {
  std::vector<double> losses, same;
  const auto plain = trained({.dropout = 0.1}, &losses);
  BOOST_TEST(same_bits(trained({.dropout = 0.1, .early_exits = {.scale = 1, .steps = 1000}}, &same),
                       plain));
  BOOST_TEST(same_bits(losses, same));
  BOOST_TEST(
      same_bits(trained({.dropout = 0.1, .early_exits = {.scale = 0, .rotation = 1}}), plain));
  BOOST_TEST(!same_bits(trained({.dropout = 0.1, .early_exits = {.scale = 1}}), plain));
  // S(t) is still nearly 0.
  BOOST_TEST(same_bits(trained({.dropout = 0.1, .layer_dropout = {0.5, 1'000'000'000}}), plain));
  BOOST_TEST(!same_bits(trained({.dropout = 0.1, .layer_dropout = {0.5}}), plain));
}
// The curriculum and S(t) follow the optimizer's steps.
BOOST_AUTO_TEST_CASE(schedules_follow_steps) {
  std::vector<double> plain, rotating, dropping;
  (void)trained({}, &plain);
  // Step 0 enables exit 0, which has no weight; step 1 enables exit 1.
  (void)trained({.early_exits = {.scale = 1, .rotation = 3}}, &rotating);
  BOOST_TEST(rotating[0] == plain[0]);
  BOOST_TEST(rotating[1] != plain[1]);
  (void)trained({.layer_dropout = {0.9, 3}}, &dropping);
  BOOST_TEST(dropping[0] == plain[0]);
  BOOST_TEST(dropping[1] != plain[1]);
  // With two steps S(t) is 0, then 1: not a sample of the first skips a layer, nearly all of the
  // second do, those of a constant rate.
  std::vector<double> sudden, constant;
  const auto still = [&](const ln::layer_dropout& drop, std::vector<double>& losses) {
    auto w = random_weights<M>();
    const auto data = data_for<M>(3, 6, 5);
    auto train = ln::trainer<M, ln::adamw, double>::open(
        w, data.limits(), {.rate = ln::schedule::constant(0), .decay = 0}, {.layer_dropout = drop});
    for (int t = 0; t < 3; ++t) losses.push_back(train->step(data.view()));
  };
  std::vector<double> none;
  still({}, none);
  still({0.9, 2}, sudden);
  still({0.9}, constant);
  BOOST_TEST(sudden[0] == none[0]);
  BOOST_TEST(constant[0] != none[0]);
  for (const std::size_t t : {1u, 2u}) {
    BOOST_TEST(sudden[t] == constant[t]);
    BOOST_TEST(sudden[t] != none[t]);
  }
}

BOOST_AUTO_TEST_CASE(threads_change_nothing) {
  const ln::training_options how{
      .dropout = 0.1, .layer_dropout = {0.6}, .early_exits = {.scale = 1}};
  std::vector<double> losses, same;
  const auto alone = trained(how, &losses);
  for (int threads = 2; threads <= 3; ++threads) {
    same.clear();
    BOOST_TEST(same_bits(trained(how, &same, threads), alone));
    BOOST_TEST(same_bits(same, losses));
  }
}

// Parts of a batch skip the layers that the whole batch does; a part of one sample may compute
// nothing at all of a layer.
template <class Model>
void check_accumulation(const ln::training_options& how) {
  auto whole = random_weights<Model>(), parts = random_weights<Model>();
  const auto data = data_for<Model>(5, 6, 5);
  auto one = ln::trainer<Model, ln::adamw, double>::open(whole, data.limits(), {}, how);
  auto two = ln::trainer<Model, ln::adamw, double>::open(parts, data.limits(), {}, how);
  const ln::loss_sum big = one->accumulate(data.view());
  double nats = 0;
  for (const auto& [from, count] : {std::pair<index, index>{0, 1}, {1, 1}, {2, 2}, {4, 1}})
    nats += two->accumulate(data.part(from, count)).nats;
  BOOST_TEST(distance_of(nats, big.nats) <= 1e-12 * big.nats);
  const auto got = by_name(two->gradient());
  for (const auto& [name, values] : by_name(one->gradient()))
    BOOST_TEST(distance(values, got.at(name)) <= 1e-12 * magnitude(values) + 1e-14, name);
}
BOOST_AUTO_TEST_CASE(accumulation_changes_nothing) {
  check_accumulation<M>(
      {.dropout = 0.1, .seed = 5, .layer_dropout = {0.6}, .early_exits = {.scale = 1}});
  check_accumulation<ln::t5<tiny_t5_shape>>({.seed = 5, .layer_dropout = {0.6}});
}
BOOST_AUTO_TEST_CASE(gradient_of_t5) {
  ln::weights<ln::t5<tiny_t5_shape>, double> w;
  randomize(w);
  const auto data = t5_data<ln::t5<tiny_t5_shape>>(3);
  const auto r = ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, 0, 0.5});
  BOOST_TEST(r.passed(), text_of(r));
}

// In the last three of four layers: the stream of a sample that skips a layer is the same to the
// bit behind it, and so is the gradient of one that skips them all; a layer that every sample with
// a gradient skips gets none.
BOOST_AUTO_TEST_CASE(skipped_samples_pass_unchanged) {
  using layer = ln::residual<ln::norm::rms::layer<6, ln::real{1e-3}>,
                             ln::chain<ln::named<"w", ln::linear<6, 6, true>>>>;
  using stack = ln::repeat<layer, 3, 1, 4>;
  constexpr index batch = 24, length = 3, rows = batch * length, sample = length * 6;
  ln::layer_runner<stack, double> alone({.batch = batch, .length = length, .training = true});
  alone.weights.visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
        const auto values = normal<double>(info.size(), ln::stream_of(where.str()));
        std::copy(values.begin(), values.end(), values_of(leaf));
      });
  const auto& cache = alone.buffers.cache;
  ln::context<double> ctx;
  ctx.on.level = ln::simd::best();
  ctx.batch = batch;
  ctx.length = length;
  ctx.dropout = {1, 2, 0, 0, 0.9};
  alone.pack();
  const auto x = normal<double>(rows * 6, 1), dy = normal<double>(rows * 6, 2);
  std::vector<double> y(x.size()), dx(x.size());
  alone.forward(x.data(), y.data(), ctx);
  const double* streams[] = {x.data(), cache.loop.stream[0], cache.loop.stream[1], y.data()};
  const auto drops = [&](index l, index b) {
    return ln::ops::layer_mask(ctx.dropout, cache.loop.dropout_id, 1 + l, 4).drops(b);
  };
  const auto same = [](const double* a, const double* b, index from) {
    return std::memcmp(a + from * sample, b + from * sample, at(sample) * sizeof(double)) == 0;
  };
  for (index l = 0; l < 3; ++l) {
    index dropped = 0;
    for (index b = 0; b < batch; ++b) {
      dropped += drops(l, b);
      BOOST_TEST(same(streams[l], streams[l + 1], b) == drops(l, b), l << ' ' << b);
    }
    BOOST_TEST(dropped > 0);
    BOOST_TEST(dropped < batch);
  }
  // Gradients of the samples alone that skip the last layer.
  auto some = dy;
  for (index b = 0; b < batch; ++b)
    if (!drops(2, b)) std::fill_n(some.begin() + b * sample, sample, 0.0);
  alone.backward(x.data(), some.data(), dx.data(), ctx);
  for (const auto& [name, values] : by_name(alone.gradients))
    BOOST_TEST((magnitude(values) == 0) == (name.substr(0, 1) == "3"), name);
  index unchanged = 0;
  for (index b = 0; b < batch; ++b) {
    const bool all = drops(0, b) && drops(1, b) && drops(2, b);
    if (!drops(2, b)) continue;
    BOOST_TEST(same(dx.data(), dy.data(), b) == all);
    unchanged += all;
  }
  BOOST_TEST(unchanged > 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  auto w = random_weights<M>();
  const auto message = [](auto& weights, const ln::training_options& how) {
    using model = typename std::remove_cvref_t<decltype(weights)>::model;
    const auto t = ln::trainer<model, ln::adamw, double>::open(
        weights, {.batch = 1, .source = 4, .target = 4}, {}, how);
    return t ? "opened" : t.error().message();
  };
  BOOST_TEST(message(w, {.layer_dropout = {1}}) ==
             "trainer::open: training_options.layer_dropout.rate: expected 0 <= rate < 1 (0 turns "
             "it off), "
             "got 1");
  BOOST_TEST(message(w, {.layer_dropout = {.rate = std::nan("")}}) ==
             "trainer::open: training_options.layer_dropout.rate: expected 0 <= rate < 1 (0 turns "
             "it off), "
             "got nan");
  BOOST_TEST(
      message(w, {.layer_dropout = {0.1, -1}}) ==
      "trainer::open: training_options.layer_dropout.steps: expected at least 0 (0 for continued "
      "training), got -1");
  BOOST_TEST(
      message(w, {.early_exits = {.scale = 1.5}}) ==
      "trainer::open: training_options.early_exits.scale: expected 0 <= scale <= 1 (0 is plain "
      "training), got 1.5");
  BOOST_TEST(message(w, {.early_exits = {.rotation = 0}}) ==
             "trainer::open: training_options.early_exits.rotation: expected at least 1, got 0");
  BOOST_TEST(
      message(w, {.early_exits = {.steps = -1}}) ==
      "trainer::open: training_options.early_exits.steps: expected at least 0 (0: all from the "
      "start), got -1");
  auto v = random_weights<ln::t5<tiny_t5_shape>>();
  BOOST_TEST(message(v, {.early_exits = {.scale = 1}}) ==
             "trainer::open: training_options.early_exits.scale: expected 0, as this model has no "
             "early exits, got 1");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::layer_skip_test
