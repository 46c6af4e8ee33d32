// SPDX-License-Identifier: MIT
// The trainer: clipping, accumulation, steps that must not be taken, and a loss that goes to zero.

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::trainer_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape, ln::tie::untied>;

/// An optimizer of our own that shows what it is given: w -= scale * g, with no state.
struct plain_descent {
  template <class M, class T>
  struct state {
    static constexpr index bytes() { return 0; }
    bool valid() const { return true; }
  };
  template <class M, class T>
  void update(const ln::ops::execution& on, index, double scale, const ln::gradients<M, T>& g,
              state<M, T>&, ln::weights<M, T>& w) const {
    M::visit(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& values,
            const auto& gradient) {
          on.threads.each(info.size(), [&](index i) {
            values_of(values)[i] -= static_cast<T>(scale) * gradient[i];
          });
        },
        ln::parameter_path{}, w.tree(), g.tree());
  }
};

/// All values of weights or gradients.
template <class Block>
std::vector<double> all_of(const Block& block) {
  std::vector<double> all;
  block.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}
double norm_of(const std::vector<double>& x) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  return std::sqrt(squares);
}

/// A gradient step of plain descent with a clipping threshold: the change of the weights, and the
/// norm that the trainer reports.
struct change {
  std::vector<double> step;
  double reported = 0;
};
template <class M>
change one_step(double clip) {
  ln::weights<M, double> w;
  randomize(w);
  const auto before = all_of(w);
  const auto data = data_for<M>(3, 6, 5);
  auto train = ln::trainer<M, plain_descent, double>::open(w, data.limits(), {}, {.clip = clip});
  (void)train->step(data.view());
  change c{all_of(w), train->gradient_norm()};
  for (std::size_t i = 0; i < before.size(); ++i) c.step[i] = before[i] - c.step[i];
  return c;
}

/// One big batch against its parts: summed gradients, and the weights after some updates.
template <class M>
void check_accumulation(double dropout) {
  constexpr index samples = 5;
  const auto data = data_for<M>(samples, 6, 5);
  ln::weights<M, double> whole, parts;
  randomize(whole);
  randomize(parts);
  const ln::training_options how{.clip = 0.3, .dropout = dropout, .seed = 77};
  auto one = ln::trainer<M, ln::adamw, double>::open(whole, data.limits(), {}, how);
  auto two = ln::trainer<M, ln::adamw, double>::open(parts, data.limits(), {}, how);
  double steps_differ = 0;
  std::vector<double> first;
  for (int step = 0; step < 3; ++step) {
    const ln::loss_sum big = one->accumulate(data.view());
    ln::loss_sum small;
    for (const auto& [from, count] : {std::pair<index, index>{0, 1}, {1, 3}, {4, 1}}) {
      const ln::loss_sum part = two->accumulate(data.part(from, count));
      small.nats += part.nats;
      small.tokens += part.tokens;
    }
    BOOST_TEST(small.tokens == big.tokens);
    BOOST_TEST(std::abs(small.nats - big.nats) < 1e-12 * big.nats);
    const auto a = all_of(one->gradient()), b = all_of(two->gradient());
    BOOST_TEST(magnitude(a) > 0.1);
    BOOST_TEST(distance(a, b) <= 1e-12 * magnitude(a));
    if (step == 0)
      first = a;
    else
      steps_differ = distance(a, first);
    one->update();
    two->update();
  }
  BOOST_TEST(distance(all_of(whole), all_of(parts)) <= 1e-11);
  BOOST_TEST(steps_differ > 1e-6);
  BOOST_TEST(one->steps() == 3);
  // step() is accumulate() and update().
  ln::weights<M, double> direct;
  randomize(direct);
  auto three = ln::trainer<M, ln::adamw, double>::open(direct, data.limits(), {}, how);
  for (int step = 0; step < 3; ++step) (void)three->step(data.view());
  BOOST_TEST(same_bytes(direct, whole));
}

/// Loss and gradient of a batch do not depend on how much larger ones the trainer has room for.
template <class M>
void check_larger_limits() {
  const auto data = data_for<M>(3, 6, 5);
  ln::weights<M, double> w;
  randomize(w);
  auto exact = ln::trainer<M, ln::adamw, double>::open(w, data.limits(), {}, {.dropout = 0.2});
  auto roomy = ln::trainer<M, ln::adamw, double>::open(w, {.batch = 7, .source = 19, .target = 23},
                                                       {}, {.dropout = 0.2});
  BOOST_TEST(exact->accumulate(data.view()).nats == roomy->accumulate(data.view()).nats);
  BOOST_TEST(same_bytes(exact->gradient(), roomy->gradient()));
}

/// Trains on one batch until its loss is nearly nothing.
template <class M, class Compute = ln::compute::f32>
double overfit(const auto& data, int steps) {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{3});
  auto train = ln::trainer<M, ln::adamw, float, Compute>::open(
      w, data.limits(), {ln::schedule::cosine(1e-2, 10, steps), 0.9, 0.98, 1e-8, 0});
  double first = train->step(data.view());
  for (int step = 1; step < steps; ++step) (void)train->step(data.view());
  BOOST_TEST(first > 1.5);
  return train->evaluate(data.view()).mean();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(trainer)

// Below the threshold clipping changes nothing; above, the whole gradient is scaled by
// c / (norm + 1e-6), its direction kept.
BOOST_AUTO_TEST_CASE(clipping) {
  const change free = one_step<t5>(0), loose = one_step<t5>(1e6), tight = one_step<t5>(0.01);
  const double norm = norm_of(free.step);
  BOOST_TEST(norm > 0.1);
  BOOST_TEST(std::abs(free.reported - norm) < 1e-12 * norm);
  BOOST_TEST(same_bits(free.step, loose.step));
  BOOST_TEST(std::abs(tight.reported - norm) < 1e-12 * norm);
  auto scaled = free.step;
  for (double& v : scaled) v *= 0.01 / (norm + 1e-6);
  BOOST_TEST(distance(tight.step, scaled) < 1e-14);
  BOOST_TEST(std::abs(norm_of(tight.step) - 0.01) < 1e-6);
}

// The step is that of the mean loss: sums divided by the tokens that count.
BOOST_AUTO_TEST_CASE(gradient_of_the_mean) {
  ln::weights<decoder, double> w;
  randomize(w);
  const auto data = data_for<decoder>(3, 6, 5);
  auto train = ln::trainer<decoder, plain_descent, double>::open(w, data.limits());
  const ln::loss_sum sum = train->accumulate(data.view());
  BOOST_TEST(sum.tokens == 3 * 5 - 2);
  const double norm = norm_of(all_of(train->gradient())) / static_cast<double>(sum.tokens);
  train->update();
  BOOST_TEST(std::abs(train->gradient_norm() - norm) < 1e-12 * norm);
}

BOOST_AUTO_TEST_CASE(accumulation_is_the_big_batch_t5) { check_accumulation<t5>(0); }
BOOST_AUTO_TEST_CASE(accumulation_is_the_big_batch_decoder) { check_accumulation<decoder>(0); }
// Masks belong to samples of the whole batch, so parts drop the same values.
BOOST_AUTO_TEST_CASE(accumulation_with_dropout) {
  check_accumulation<t5>(0.3);
  check_accumulation<decoder>(0.3);
}

// Training in bf16: the gradient is f32's within the rounding, every thread count gives the same
// bits, and a batch is learned by heart.
BOOST_AUTO_TEST_CASE(bf16) {
  const auto data = data_for<t5>(3, 6, 5);
  ln::weights<t5> w;
  randomize(w);
  auto exact = ln::trainer<t5>::open(w, data.limits());
  const ln::loss_sum want = exact->accumulate(data.view());
  using rounding = ln::trainer<t5, ln::adamw, float, ln::compute::bf16>;
  ln::limits limits = data.limits();
  auto rounded = rounding::open(w, limits);
  const ln::loss_sum got = rounded->accumulate(data.view());
  BOOST_TEST(distance_of(got.nats, want.nats) <= 0.01 * want.nats);
  double difference = 0, size = 0;
  t5::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& a, const auto& b) {
        for (index i = 0; i < info.size(); ++i) {
          difference += std::pow(static_cast<double>(a[i] - b[i]), 2);
          size += std::pow(static_cast<double>(a[i]), 2);
        }
      },
      ln::parameter_path{}, exact->gradient().tree(), rounded->gradient().tree());
  BOOST_TEST(difference > 0);
  BOOST_TEST(std::sqrt(difference / size) < 0.03);

  limits.threads = 3;
  limits.run_on = std_threads();
  auto shared = rounding::open(w, limits);
  BOOST_TEST(shared->accumulate(data.view()).nats == got.nats);
  BOOST_TEST(same_bytes(shared->gradient(), rounded->gradient()));

  const double in_f32 = overfit<t5>(data, 300);
  BOOST_TEST((overfit<t5, ln::compute::bf16>(data, 300)) < in_f32 + 0.02);
}

BOOST_AUTO_TEST_CASE(larger_limits_change_nothing) {
  check_larger_limits<t5>();
  check_larger_limits<decoder>();
}

// The dropout of each step is another, follows the seed, and is absent from evaluate().
BOOST_AUTO_TEST_CASE(dropout_in_training) {
  const auto data = data_for<decoder>(2, 6, 5);
  const auto losses = [&](double rate, std::uint64_t seed) {
    ln::weights<decoder, double> w;
    randomize(w);
    ln::adamw still{ln::schedule::constant(0)};
    auto train = ln::trainer<decoder, ln::adamw, double>::open(w, data.limits(), still,
                                                               {.dropout = rate, .seed = seed});
    return std::vector{train->step(data.view()), train->step(data.view()),
                       train->evaluate(data.view()).mean()};
  };
  const auto dropped = losses(0.3, 1), same = losses(0.3, 1), other = losses(0.3, 2),
             none = losses(0, 1);
  BOOST_TEST(dropped[0] != dropped[1]);
  BOOST_TEST(same_bits(dropped, same));
  BOOST_TEST(dropped[0] != other[0]);
  BOOST_TEST(none[0] == none[1]);
  BOOST_TEST(dropped[2] == none[2]);
  BOOST_TEST(none[2] == none[0]);
}

// A gradient that is not finite: the step is counted as skipped, weights and moments stay, and the
// next step is as if nothing had been.
BOOST_AUTO_TEST_CASE(gradients_that_are_not_finite_are_skipped) {
  const auto data = data_for<t5>(2, 6, 5);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    ln::weights<t5> w, v;
    randomize(w);
    randomize(v);
    const auto before = w.clone();
    auto train = ln::trainer<t5>::open(w, data.limits());
    auto fresh = ln::trainer<t5>::open(v, data.limits());
    (void)train->accumulate(data.view());
    train->gradient().tree().decoder_stack.norm.weight[3] = bad;  // 3e38 overflows only in the norm
    train->update();
    BOOST_TEST(same_bytes(w, before));
    BOOST_TEST(train->steps() == 0);
    BOOST_TEST(train->skipped() == 1);
    BOOST_TEST(train->step(data.view()) == fresh->step(data.view()));
    BOOST_TEST(same_bytes(w, v));
    BOOST_TEST(!same_bytes(w, before));
    BOOST_TEST(train->steps() == 1);
  }
}

// Likewise a loss that is not finite, though its gradient is: the next loss is counted from zero.
BOOST_AUTO_TEST_CASE(losses_that_are_not_finite_are_skipped) {
  const auto data = data_for<decoder>(2, 6, 5);
  ln::weights<decoder> w;
  randomize(w);
  const auto before = w.clone();
  auto train = ln::trainer<decoder>::open(w, data.limits());
  (void)train->accumulate(data.view());
  auto progress = train->progress();
  progress.nats = std::numeric_limits<double>::infinity();
  LINNET_REQUIRE_OK(train->resume(progress));
  train->update();
  BOOST_TEST(same_bytes(w, before));
  BOOST_TEST(train->skipped() == 1);
  BOOST_TEST(train->progress().nats == 0);
  (void)train->step(data.view());
  BOOST_TEST(train->steps() == 1);
}

// An optimizer's steps count from one: the first of AdamW is the rate times the gradient's sign.
BOOST_AUTO_TEST_CASE(first_step) {
  const auto data = data_for<decoder>(2, 6, 5);
  ln::weights<decoder, double> w;
  randomize(w);
  const auto before = all_of(w);
  auto train = ln::trainer<decoder, ln::adamw, double>::open(
      w, data.limits(), {ln::schedule::constant(0.125), 0.9, 0.999, 1e-12, 0}, {.clip = 0});
  (void)train->accumulate(data.view());
  const auto gradient = all_of(train->gradient());
  train->update();
  const auto after = all_of(w);
  double worst = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    if (std::abs(gradient[i]) > 1e-3)
      worst =
          (std::max)(worst, distance_of(before[i] - after[i], std::copysign(0.125, gradient[i])));
  BOOST_TEST(worst < 1e-6);
}

// A batch without a single label that counts teaches nothing.
BOOST_AUTO_TEST_CASE(nothing_but_ignored_labels) {
  decoder_tokens data(2, 5, decoder::vocabulary);
  std::fill(data.labels.begin(), data.labels.end(), ln::ignored);
  ln::weights<decoder> w;
  randomize(w);
  const auto before = w.clone();
  auto train = ln::trainer<decoder>::open(w, data.limits());
  BOOST_TEST(train->step(data.view()) == 0);
  BOOST_TEST(same_bytes(w, before));
  BOOST_TEST(train->steps() == 0);
}

// Weights that were changed from outside count after refresh(), and the packed copy is current.
BOOST_AUTO_TEST_CASE(refresh_and_current) {
  const auto data = data_for<decoder>(2, 6, 5);
  ln::weights<decoder> w, v;
  randomize(w, 1);
  randomize(v, 2);
  auto train = ln::trainer<decoder>::open(w, data.limits());
  auto other = ln::trainer<decoder>::open(v, data.limits());
  std::memcpy(w.data(), v.data(), at(ln::weights<decoder>::bytes()));
  BOOST_TEST(train->evaluate(data.view()).nats != other->evaluate(data.view()).nats);
  train->refresh();
  BOOST_TEST(train->evaluate(data.view()).nats == other->evaluate(data.view()).nats);
  (void)train->step(data.view());
  BOOST_TEST(same_bytes(ln::unpack(train->current()), w));
}

// One fixed batch is learnt by heart.
BOOST_AUTO_TEST_CASE(overfits_one_batch) {
  constexpr ln::t5_shape t5_numbers{.d_model = 16,
                                    .d_ff = 32,
                                    .d_kv = 8,
                                    .heads = 2,
                                    .encoder_layers = 1,
                                    .decoder_layers = 1,
                                    .vocabulary = 13,
                                    .buckets = 8,
                                    .max_distance = 12};
  constexpr ln::decoder_shape decoder_numbers{.d_model = 16,
                                              .d_ff = 32,
                                              .heads = 2,
                                              .kv_heads = 1,
                                              .layers = 1,
                                              .vocabulary = 13,
                                              .context = 16};
  using small_t5 = ln::t5<t5_numbers>;
  using small_decoder = ln::decoder<decoder_numbers>;
  BOOST_TEST(overfit<small_t5>(t5_data<small_t5>(4, 6, 5), 600) < 0.005);
  // Rotary positions cannot tell how often the first token has been repeated, so it is not.
  auto data = decoder_data<small_decoder>(2, 9);
  for (index i = 0; i < 18; ++i) data.inputs[at(i)] = static_cast<token>((3 * i + i / 9) % 13);
  BOOST_TEST(overfit<small_decoder>(data, 600) < 0.005);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::trainer_test
