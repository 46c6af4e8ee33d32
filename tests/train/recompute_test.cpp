// SPDX-License-Identifier: MIT
// limits.recompute: what layers keep is computed again in backward, with the same bits as without.

#include "support/models.hpp"

namespace test::recompute_test {

namespace {

constexpr ln::limits long_text(bool recompute) {
  return {.batch = 1, .target = 8192, .threads = 2, .recompute = recompute};
}
// A sequence of 8192 tokens, far below 2 GB with the weights; about a quarter of what it takes
// without.
using stlm = ln::trainer<ln::zoo::stlm_10m>;
static_assert(stlm::footprint(long_text(true)) + ln::weights<ln::zoo::stlm_10m>::bytes() <
              500'000'000);
static_assert(stlm::footprint(long_text(false)) > 3 * stlm::footprint(long_text(true)));

template <class M>
void check_bits(ln::training_options how = {}) {
  const auto data = data_for<M>(4, 9, 7);
  how.seed = 3;
  const auto run = [&](bool recompute, int threads) {
    ln::weights<M> w;
    randomize(w);
    ln::limits l = data.limits(threads);
    l.recompute = recompute;
    auto train = ln::trainer<M>::open(w, l, {.rate = ln::schedule::constant(1e-2)}, how);
    BOOST_REQUIRE(static_cast<bool>(train));
    std::vector<double> all;
    for (int step = 0; step < 3; ++step) {
      all.push_back(train->step(data.view()));
      all.push_back(train->gradient_norm());
    }
    all.push_back(train->evaluate(data.view()).nats);
    BOOST_TEST(ln::is_finite(all.back()));
    return std::pair(all, std::move(w));
  };
  const auto kept = run(false, 1);
  for (const int threads : {1, 3}) {
    const auto again = run(true, threads);
    BOOST_TEST(same_bits(again.first, kept.first), threads << " threads");
    BOOST_TEST(same_bytes(again.second, kept.second), threads << " threads");
  }
  const auto bytes = [&](bool recompute) {
    return ln::trainer<M>::footprint(
        {.batch = 4, .source = 9, .target = 7, .recompute = recompute});
  };
  BOOST_TEST(bytes(true) < bytes(false));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(recompute)

BOOST_AUTO_TEST_CASE(encoders_and_decoders) {
  check_bits<ln::t5<tiny_t5_shape, ln::ffn::gated_gelu>>({.dropout = 0.2});
}
// Layers of two types by turns, one of which leaves tokens out; samples that skip layers, and early
// exits.
BOOST_AUTO_TEST_CASE(routed_decoders) {
  check_bits<ln::decoder<tiny_decoder_shape, ln::depths::mixture_of_depths<0.5>>>(
      {.dropout = 0.1, .layer_dropout = {.rate = 0.5}, .early_exits = {.scale = 0.3}});
}
// The first layer leaves values to all others.
BOOST_AUTO_TEST_CASE(recurrent_decoders) {
  constexpr static ln::decoder_shape three{.d_model = 6,
                                           .d_ff = 7,
                                           .heads = 2,
                                           .kv_heads = 2,
                                           .layers = 3,
                                           .vocabulary = 11,
                                           .context = 64,
                                           .eps = 1e-3};
  check_bits<ln::rwkv7<three>>();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::recompute_test
