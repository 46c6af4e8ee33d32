// SPDX-License-Identifier: MIT
// Every kind of attention that sees both ways, in an encoder: gradients, and padding that changes
// nothing.

#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test::encoder_kinds_test {

namespace {

template <class Kind>
void check() {
  using M = ln::encoder<tiny_encoder_shape, Kind>;
  const auto data = encoder_data<M>(3, 9);
  ln::weights<M, double> w;
  randomize(w);
  const auto r = ln::check_model_gradients(w, data.view(), data.limits());
  BOOST_TEST(r.passed(), Kind::name() << ": " << text_of(r));
  BOOST_TEST(r.entries == M::parameters());
  const auto p = ln::pack(w);
  const auto whole = logits_of(p, data);
  for (index b = 0; b < data.batch; ++b) {
    const auto own = at(data.lengths[at(b)] * M::vocabulary);
    auto scoring = ln::evaluator<M, double>::open(p, data.limits());
    BOOST_REQUIRE(static_cast<bool>(scoring));
    std::vector<double> logits(own);
    BOOST_TEST(ln::is_finite(scoring->loss(data.alone(b), std::span(logits)).nats));
    BOOST_TEST(
        distance(logits, std::span(whole).subspan(at(b * data.length * M::vocabulary), own)) <=
            same_result<double> * magnitude(logits),
        Kind::name() << ' ' << b);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(encoder_kinds)

BOOST_AUTO_TEST_CASE(windows) {
  check<ln::attention::sliding_window<3>>();
  check<ln::attention::longformer<4, 1>>();
}
BOOST_AUTO_TEST_CASE(low_ranks) {
  check<ln::attention::low_rank<2>>();
  check<ln::attention::linformer<3, 32>>();
  check<ln::attention::nystrom<4, 3>>();
}
BOOST_AUTO_TEST_CASE(groups) {
  check<ln::attention::lsh<4, 2>>();
  check<ln::attention::routing<2, 3>>();
}
BOOST_AUTO_TEST_CASE(no_softmax) {
  check<ln::attention::linear<>>();
  check<ln::mixer::fnet>();
}

// What fewer tokens are read by than the context has positions.
BOOST_AUTO_TEST_CASE(linformer_ends) {
  using M = ln::encoder<tiny_encoder_shape, ln::attention::linformer<3, 16>>;
  const auto p = random_packed<M, float>();
  const auto opened = ln::evaluator<M>::open(p, {});
  BOOST_REQUIRE(!opened);
  BOOST_TEST(opened.error().message() ==
             "evaluator::open: limits.target: expected no more than 16, what the attention reads, "
             "got 32");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoder_kinds_test
