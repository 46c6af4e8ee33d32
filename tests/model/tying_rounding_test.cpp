// SPDX-License-Identifier: MIT
// Deltas and a narrow embedding in products that round their inputs, and stored in four bits.

#include "support/scoring.hpp"

namespace test::tying_rounding_test {

namespace {
using M = ln::decoder<tiny_decoder_shape, ln::sharing::lora<2>, ln::embedding::factorised<3>>;
}  // namespace

BOOST_AUTO_TEST_SUITE(tying_rounding)

BOOST_AUTO_TEST_CASE(learns_in_bf16) {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto data = decoder_data<M>(3, 20);
  using trainer = ln::trainer<M, ln::adamw, float, ln::compute::bf16>;
  auto train = trainer::open(w, data.limits(), {ln::schedule::constant(3e-2)}, {.clip = 1.0});
  BOOST_REQUIRE(static_cast<bool>(train));
  const double before = train->evaluate(data.view()).mean();
  BOOST_TEST(std::abs(before - std::log(11.0)) < 0.4);
  for (int step = 0; step < 150; ++step) (void)train->step(data.view());
  BOOST_TEST(train->skipped() == 0);
  BOOST_TEST(train->evaluate(data.view()).mean() < 0.5 * before);
}

BOOST_AUTO_TEST_CASE(rounded_inputs_and_four_bits) {
  ln::weights<M> w;
  randomize(w);
  const auto data = decoder_data<M>(2, 6);
  const auto q = ln::quantize<ln::storage::int8>(w);
  const auto want = logits_of(ln::pack(decoded<M>(q)), data);
  const auto rounded = ln::quantize<ln::storage::int8, ln::compute::int8>(w);
  const double far = distance(logits_of(ln::pack(rounded), data), want);
  BOOST_TEST(far > 1e-5);
  BOOST_TEST(far < 0.3 * magnitude(want));
  const auto few = ln::quantize<ln::storage::nf4>(w);
  const auto meant = logits_of(ln::pack(decoded<M>(few)), data);
  BOOST_TEST(distance(logits_of(ln::pack(few), data), meant) <= 1e-5 * (1 + magnitude(meant)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tying_rounding_test
