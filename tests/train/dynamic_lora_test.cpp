// SPDX-License-Identifier: MIT
// Low-rank deltas that a router chooses for each token: every parameter by central differences, one
// expert as lora, and the choice written out.

#include "support/adapters.hpp"

namespace test::dynamic_lora_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
template <index Experts, index Rank, index Top>
using routed = ln::adapted<small, ln::dynamic_lora<Experts, Rank, Top>>;

template <class M>
double loss_of(const ln::packed<M, double>& p) {
  const auto data = decoder_data<small>();
  auto e = ln::evaluator<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(e);
  return e->loss(data.view()).nats;
}

template <class A>
void check(const ln::lora_options& how, double dropout = 0) {
  adapted_pair<A> p(how);
  BOOST_TEST(loss_of(ln::pack(p.adapter)) == loss_of(p.base));
  randomize(p.adapter, 2);
  check_weights(p.adapter, decoder_data<small>(), dropout, 0, 3);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(dynamic_loras)

BOOST_AUTO_TEST_CASE(gradients) {
  check<routed<3, 2, 2>>({.alpha = 3});
  check<routed<3, 2, 1>>({.alpha = 3, .rslora = true, .dropout = 0.25}, 0.25);
  check<routed<2, 1, 2>>({});
}

BOOST_AUTO_TEST_CASE(one_expert_is_lora) {
  ln::weights<small, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto one = ln::adapt<ln::dynamic_lora<1, 2, 1>>(base, {.alpha = 3});
  auto plain = ln::adapt<ln::lora<2>>(base, {.alpha = 3});
  BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(plain));
  randomize(*one, 2);
  one->visit([&](const ln::parameter_path& from, const ln::tensor_info& info, const auto& leaf) {
    plain->visit([&](const ln::parameter_path& to, const ln::tensor_info&, auto& other) {
      if (to.str() == from.str()) std::copy_n(values_of(leaf), info.size(), values_of(other));
    });
  });
  BOOST_TEST(loss_of(ln::pack(*one)) == loss_of(ln::pack(*plain)));
}

// Gates of a row by hand: the two largest probabilities, the first where they are equal.
BOOST_AUTO_TEST_CASE(choices) {
  using gates = ln::detail::expert_gates<4, 2>;
  double scores[] = {1, 3, 2, 3};
  gates::choose(scores);
  const double sum = std::exp(1 - 3.0) + 1 + std::exp(2 - 3.0) + 1;
  const double want[] = {-std::exp(1 - 3.0) / sum, 1 / sum, -std::exp(2 - 3.0) / sum, 1 / sum};
  for (int e = 0; e < 4; ++e) BOOST_TEST(std::abs(scores[e] - want[e]) <= 1e-15);
  double equal[] = {5, 5, 5, 5};
  gates::choose(equal);
  BOOST_TEST(gates::chosen(equal[0]));
  BOOST_TEST(gates::chosen(equal[1]));
  BOOST_TEST(!gates::chosen(equal[2]));
  double x[] = {1, 2, 3, 4, 5, 6, 7, 8};
  gates::apply(scores, 2, x);
  BOOST_TEST(x[0] == 0);
  BOOST_TEST(x[3] == 4 * scores[1]);
  BOOST_TEST(x[7] == 8 * scores[3]);
}

// On codes: steps change the adapter alone, with the same bits on any number of threads, and a
// sequence of a session has the logits of the evaluator.
BOOST_AUTO_TEST_CASE(training_and_sessions) {
  using Q = coded_decoder;
  using A = ln::adapted<Q, ln::dynamic_lora<3, 2, 2>>;
  const auto base = random_codes();
  const auto one =
      ln::pack(check_adapter_training<A>(base, {.rate = 1e-2, .steps = 30, .most = 0.9}));
  const auto data = decoder_data<small>(3, 6);
  auto e = ln::evaluator<A>::open(one, {.target = 6});
  auto s = ln::session<Q>::open(base, {.batch = 2, .target = 6});
  BOOST_REQUIRE(e && s && s->set_adapter(1, one));
  std::vector<float> want(at(6 * Q::vocabulary));
  (void)e->loss({data.inputs.data(), data.labels.data(), 1, 6}, want);
  std::vector<token> twice(data.inputs.begin(), data.inputs.begin() + 6);
  twice.insert(twice.end(), data.inputs.begin(), data.inputs.begin() + 6);
  const auto got = s->feed(twice, 2, {});
  BOOST_REQUIRE(!got.empty());
  for (std::size_t i = 0; i < at(Q::vocabulary); ++i)
    BOOST_TEST(std::abs(got[at(Q::vocabulary) + i] - want[5 * at(Q::vocabulary) + i]) <=
               2e-4 * (1 + std::abs(want[5 * at(Q::vocabulary) + i])));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::dynamic_lora_test
