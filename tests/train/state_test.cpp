// SPDX-License-Identifier: MIT
// What a run consists of: copied into a fresh trainer at any moment, it continues with the same
// bits. And what happens when a loss or a gradient is not finite.

#include "support/resumed.hpp"

namespace test::state_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// An optimizer of a user: descent with momentum.
struct momentum {
  template <class M, class T>
  struct state {
    ln::gradients<M, T> velocity;

    static constexpr index bytes() { return ln::gradients<M, T>::bytes(); }
    bool valid() const { return velocity.valid(); }
    template <class F>
    void visit(F&& f) {
      f("velocity", velocity.block());
    }
  };
  template <class M, class T>
  void update(const ln::ops::execution& on, index, double scale, const ln::gradients<M, T>& g,
              state<M, T>& s, ln::weights<M, T>& w) const {
    M::visit(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& values,
            const auto& gradient, auto& v) {
          on.threads.each(info.size(), [&](index i) {
            v[i] = T(0.9) * v[i] + static_cast<T>(scale) * gradient[i];
            values_of(values)[i] -= T(0.1) * v[i];
          });
        },
        ln::parameter_path{}, w.tree(), g.tree(), s.velocity.tree());
  }
};
/// One that remembers nothing, and so needs no visit.
struct descent {
  template <class M, class T>
  struct state {
    static constexpr index bytes() { return 0; }
    bool valid() const { return true; }
  };
  template <class M, class T>
  void update(const ln::ops::execution&, index, double, const ln::gradients<M, T>&, state<M, T>&,
              ln::weights<M, T>&) const {}
};

template <class Optimizer>
std::vector<std::string> blocks_of() {
  ln::weights<model> w;
  auto train = ln::trainer<model, Optimizer>::open(w, {.target = 4});
  std::vector<std::string> names;
  train->visit_state(
      [&](std::string_view name, std::span<std::byte>) { names.emplace_back(name); });
  return names;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(training_state)

BOOST_AUTO_TEST_CASE(blocks) {
  BOOST_TEST(blocks_of<ln::adamw>() == (std::vector<std::string>{"weights", "optimizer.first",
                                                                 "optimizer.second", "gradients"}),
             boost::test_tools::per_element());
  BOOST_TEST(blocks_of<ln::adafactor>() ==
                 (std::vector<std::string>{"weights", "optimizer.second", "gradients"}),
             boost::test_tools::per_element());
  BOOST_TEST(blocks_of<descent>() == (std::vector<std::string>{"weights", "gradients"}),
             boost::test_tools::per_element());
}

// A run of accumulated steps with dropout is copied after each call.
BOOST_AUTO_TEST_CASE(a_copy_continues_with_the_same_bits) {
  using trainer = ln::trainer<model, momentum>;
  const auto data = data_for<model>(3, 0, 6);
  const ln::training_options how{.dropout = 0.2, .seed = 9};
  const auto call = [&](trainer& train, int i) {
    if (i % 3 == 2) return train.update(), train.gradient_norm();
    return train.accumulate(data.part(i % 3, 1 + i % 2)).nats;
  };
  constexpr int calls = 12;
  for (int from = 0; from < calls; ++from) {
    ln::weights<model> w, v;
    randomize(w);
    randomize(v, 2);
    auto one = trainer::open(w, data.limits(), {}, how);
    auto two = trainer::open(v, data.limits(), {}, how);
    (void)two->step(data.view());
    for (int i = 0; i < from; ++i) (void)call(*one, i);
    BOOST_TEST(one->progress().accumulating() == (from % 3 != 0));
    copy_state(*one, *two);
    for (int i = from; i < calls; ++i) BOOST_TEST(call(*one, i) == call(*two, i));
    BOOST_TEST(same_bytes(w, v));
    BOOST_TEST(two->steps() == calls / 3);
  }
}

// The Super Tiny Language Models' batch: 20 parts of 24 windows are the batch of 480, and a run
// that is copied between two parts, with one integer for its place in the data, goes on with the
// same bits.
BOOST_AUTO_TEST_CASE(parts_of_a_step_of_480) {
  constexpr index part = 24, parts = 20, length = 4;
  constexpr std::uint64_t whole = part * parts;
  const auto text = tokens(4001, model::vocabulary, 3);
  const auto windows = [&](index batch) {
    return *ln::window_stream<>::open(ln::token_source(text, {}), batch, length, ln::seed{8});
  };
  const ln::adamw optimizer{.rate = ln::schedule::cosine(1e-2, 1, 4), .beta2 = 0.95, .decay = 0.1};
  const ln::training_options how{.dropout = ln::dropout_schedule::linear(0.1, 0.3, 1, 3),
                                 .seed = 5};
  using trainer = ln::trainer<model, ln::adamw, double>;
  ln::weights<model, double> w, v, u;
  randomize(w);
  randomize(v);
  randomize(u, 2);
  auto one = trainer::open(w, {.batch = part * parts, .target = length}, optimizer, how);
  auto two = trainer::open(v, {.batch = part, .target = length}, optimizer, how);
  auto three = trainer::open(u, {.batch = part, .target = length}, optimizer, how);
  auto large = windows(part * parts), small = windows(part);
  for (std::uint64_t step = 0; step < 3; ++step) {
    const double mean = one->step(large.batch(step * whole));
    ln::loss_sum sum;
    for (std::uint64_t at = step * whole; at < (step + 1) * whole; at += part) {
      if (at == whole + 7 * part) copy_state(*two, *three);
      const ln::loss_sum some = two->accumulate(small.batch(at));
      sum.nats += some.nats;
      sum.tokens += some.tokens;
    }
    two->update();
    BOOST_TEST(sum.tokens == 480 * length);
    BOOST_TEST(std::abs(sum.mean() - mean) < 1e-13 * mean);
    BOOST_TEST(std::abs(two->gradient_norm() - one->gradient_norm()) <
               1e-12 * one->gradient_norm());
  }
  double worst = 0;
  model::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& a, const auto& b) {
        for (index i = 0; i < info.size(); ++i)
          worst = (std::max)(worst, distance_of(values_of(a)[i], values_of(b)[i]));
      },
      ln::parameter_path{}, w.tree(), v.tree());
  BOOST_TEST(worst < 1e-11);

  auto cursor = static_cast<std::uint64_t>(three->steps()) * whole +
                static_cast<std::uint64_t>(three->progress().samples);
  BOOST_TEST(cursor == whole + 7 * part);
  auto resumed = windows(part);
  for (; cursor < 3 * whole; cursor += part) {
    (void)three->accumulate(resumed.batch(cursor));
    if ((cursor + part) % whole == 0) three->update();
  }
  BOOST_TEST(same_bytes(u, v));
}

// With bad_step::stop a bad step leaves the weights, and nothing happens until resume().
BOOST_AUTO_TEST_CASE(stopping) {
  const auto data = data_for<model>(2, 0, 5);
  ln::weights<model> w;
  randomize(w);
  auto train =
      ln::trainer<model>::open(w, data.limits(), {}, {.if_not_finite = ln::bad_step::stop});
  BOOST_TEST(ln::is_finite(train->step(data.view())));
  const auto good = w.clone();
  (void)train->accumulate(data.view());
  train->gradient().tree().norm.weight[1] = nan;
  BOOST_TEST(!train->stopped());
  train->update();
  BOOST_TEST(train->stopped());
  BOOST_TEST(train->steps() == 1);
  BOOST_TEST(train->skipped() == 1);
  BOOST_TEST(!ln::is_finite(train->step(data.view())));
  BOOST_TEST(!ln::is_finite(train->accumulate(data.view()).nats));
  train->update();
  BOOST_TEST(train->skipped() == 1);
  BOOST_TEST(!train->progress().accumulating());
  BOOST_TEST(same_bytes(w, good));
  LINNET_REQUIRE_OK(train->resume(train->progress()));
  BOOST_TEST(ln::is_finite(train->step(data.view())));
  BOOST_TEST(train->steps() == 2);
  BOOST_TEST(!same_bytes(w, good));
}

// A loss that is not finite spoils the step even where the gradient has been mended, in one call
// and in parts, and only that step.
BOOST_AUTO_TEST_CASE(losses_that_are_not_finite) {
  const auto data = data_for<model>(2, 0, 5);
  for (const auto policy : {ln::bad_step::skip, ln::bad_step::stop}) {
    ln::weights<model> w;
    randomize(w);
    auto train = ln::trainer<model>::open(w, data.limits(), {}, {.if_not_finite = policy});
    const auto good = w.clone();
    float& gamma = w.tree().norm.weight[0];
    const float before = std::exchange(gamma, nan);
    train->refresh();
    BOOST_TEST(!ln::is_finite(train->accumulate(data.view()).nats));
    gamma = before;
    train->refresh();
    train->gradient().visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      std::fill_n(leaf, info.size(), 0.5f);
    });
    (void)train->accumulate(data.part(0, 1));
    train->update();
    BOOST_TEST(ln::is_finite(train->gradient_norm()));
    BOOST_TEST(same_bytes(w, good));
    BOOST_TEST(train->steps() == 0);
    BOOST_TEST(train->skipped() == 1);
    BOOST_TEST(train->stopped() == (policy == ln::bad_step::stop));
    (void)train->step(data.view());
    BOOST_TEST(train->steps() == (policy == ln::bad_step::stop ? 0 : 1));
  }
}

// Batches that cannot be used, or teach nothing, are no reason to stop.
BOOST_AUTO_TEST_CASE(no_reason_to_stop) {
  auto data = data_for<model>(1, 0, 5);
  ln::weights<model> w;
  randomize(w);
  auto train =
      ln::trainer<model>::open(w, data.limits(), {}, {.if_not_finite = ln::bad_step::stop});
  std::fill(data.labels.begin(), data.labels.end(), ln::ignored);
  (void)train->step(data.view());
  data.labels[0] = static_cast<token>(model::vocabulary);
  BOOST_TEST(!ln::is_finite(train->step(data.view())));
  BOOST_TEST(!train->stopped());
}

// Counters that no run reaches are refused, as load_checkpoint() refuses them; nothing is done.
BOOST_AUTO_TEST_CASE(counters_out_of_their_ranges) {
  const auto data = data_for<model>(2, 0, 5);
  ln::weights<model> w;
  randomize(w);
  auto train = ln::trainer<model>::open(w, data.limits());
  BOOST_TEST(ln::is_finite(train->step(data.view())));
  const index huge = std::numeric_limits<index>::max(), most = 1'000'000'000'000'000;
  using progress = ln::training_progress;
  for (const progress& at :
       {progress{.steps = huge}, progress{.steps = most + 1}, progress{.steps = -1},
        progress{.skipped = huge}, progress{.tokens = -1}, progress{.samples = huge}}) {
    const auto resumed = train->resume(at);
    BOOST_REQUIRE(!resumed);
    BOOST_TEST((resumed.error().code == ln::errc::invalid));
    BOOST_TEST(train->steps() == 1);
  }
  BOOST_TEST(message(train->resume({.steps = -1})) ==
             "trainer::resume: progress.steps: expected at least 0, got -1");
  LINNET_REQUIRE_OK(train->resume({.steps = most}));
  BOOST_TEST(ln::is_finite(train->step(data.view())));
  BOOST_TEST(train->steps() == most + 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::state_test
