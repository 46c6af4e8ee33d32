// SPDX-License-Identifier: MIT
// Results do not depend on the number of threads: losses, gradients, weights and generated tokens
// of 1, 2, 3 and 4 threads are equal to the bit, with OpenMP and with threads of our own.

#include "support/models.hpp"

namespace test::threads_test {

namespace {

// Wide enough that every thread gets work: several panels, rows, heads and chunks.
constexpr ln::t5_shape t5_numbers{.d_model = 48,
                                  .d_ff = 100,
                                  .d_kv = 12,
                                  .heads = 4,
                                  .encoder_layers = 1,
                                  .decoder_layers = 2,
                                  .vocabulary = 201};
constexpr ln::decoder_shape decoder_numbers{.d_model = 48,
                                            .d_ff = 100,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .layers = 2,
                                            .vocabulary = 201,
                                            .context = 64};
using t5 = ln::t5<t5_numbers, ln::ffn::gated_gelu>;
using decoder = ln::decoder<decoder_numbers, ln::norm::layer_norm, ln::bias::all>;
constexpr ln::decoder_shape recurrent_numbers{.d_model = 48,
                                              .d_ff = 100,
                                              .heads = 2,
                                              .kv_heads = 2,
                                              .layers = 2,
                                              .vocabulary = 201,
                                              .context = 64};

/// An executor that gives one thread, two, three, ... in turn, up to what it is asked for. What
/// serves a busy host does nothing else.
ln::executor varying(int& call) {
  return {&call, [](void* object, int n, void (*body)(void*, int, int), void* argument) {
            const ln::executor all = std_threads();
            all.run(all.object, 1 + (*static_cast<int*>(object))++ % n, body, argument);
          }};
}

/// Everything a run produces.
template <class M>
struct outcome {
  std::vector<double> losses;
  ln::gradients<M> gradient;
  ln::weights<M> w;
  std::vector<token> generated;
};

template <class M>
outcome<M> run(int threads, const ln::executor& custom) {
  const auto data = data_for<M>(5, 11, 14);
  ln::limits l = data.limits(threads);
  l.run_on = custom;
  outcome<M> r;
  ln::initialize(r.w, ln::seed{1});
  auto train = ln::trainer<M>::open(r.w, l, {ln::schedule::constant(1e-2)},
                                    {.clip = 0.5, .dropout = 0.1, .seed = 4});
  for (int step = 0; step < 2; ++step) {
    r.losses.push_back(train->step(data.view()));
    r.losses.push_back(train->gradient_norm());
  }
  r.losses.push_back(train->evaluate(data.view()).nats);
  (void)train->accumulate(data.view());
  r.gradient = std::move(train->gradient());
  const auto p = ln::pack(r.w);
  auto s = ln::session<M>::open(p, l);
  ln::sampler sample({.temperature = 1, .seed = 3});
  s->generate(std::span(data.view().labels, 7), ln::greedy{},
              [&](token t) { r.generated.push_back(t); });
  s->generate(std::span(data.view().labels, 7), sample, [&](token t) { r.generated.push_back(t); });
  return r;
}

template <class M>
void check_threads(const ln::executor& custom) {
  const outcome<M> alone = run<M>(1, {});
  BOOST_TEST(alone.losses[2] < alone.losses[0]);
  BOOST_TEST(alone.generated.size() >= 16u);
  for (int threads = 2; threads <= 4; ++threads) {
    const outcome<M> together = run<M>(threads, custom);
    BOOST_TEST(same_bits(together.losses, alone.losses), threads << " threads");
    BOOST_TEST(same_bytes(together.gradient, alone.gradient), threads << " threads");
    BOOST_TEST(same_bytes(together.w, alone.w), threads << " threads");
    BOOST_TEST(together.generated == alone.generated, boost::test_tools::per_element());
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(threads)

BOOST_AUTO_TEST_CASE(t5_on_openmp, *boost::unit_test::label("tsan")) { check_threads<t5>({}); }
BOOST_AUTO_TEST_CASE(decoder_on_own_threads, *boost::unit_test::label("tsan")) {
  check_threads<decoder>(std_threads());
}
BOOST_AUTO_TEST_CASE(recurrences_on_own_threads, *boost::unit_test::label("tsan")) {
  check_threads<ln::rwkv4<recurrent_numbers>>(std_threads());
  check_threads<ln::rwkv7<recurrent_numbers>>(std_threads());
}

BOOST_AUTO_TEST_CASE(numbers_that_change_from_call_to_call) {
  int call = 0;
  check_threads<t5>(varying(call));
  check_threads<decoder>(varying(call));
  BOOST_TEST(call > 20);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::threads_test
