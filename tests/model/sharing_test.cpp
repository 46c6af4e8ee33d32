// SPDX-License-Identifier: MIT
// Two sessions on one constant model in two threads, each the same as alone.

#include "support/scoring.hpp"

namespace test::sharing_test {

namespace {
using t5 = ln::quantized<ln::t5<tiny_t5_shape>, ln::storage::int8>;
using decoder = ln::decoder<tiny_decoder_shape>;

/// What a session of its own generates after the prompt.
template <class M>
std::vector<token> generated(const ln::packed<M>& p, const std::vector<token>& prompt,
                             int threads) {
  std::vector<token> all;
  auto s = ln::session<M>::open(p, {.source = 16,
                                    .target = 24,
                                    .threads = threads,
                                    .min_flops_per_thread = 0,
                                    .run_on = std_threads()});
  if (!s) return all;
  ln::sampler sample({.temperature = 1, .seed = 5});
  s->generate(prompt, sample, [&](token t) { all.push_back(t); });
  return all;
}

template <class M>
void check_two_threads(const ln::packed<M>& p) {
  const auto one = tokens(5, M::vocabulary, 1), two = tokens(7, M::vocabulary, 2);
  const auto alone_one = generated(p, one, 1), alone_two = generated(p, two, 1);
  BOOST_TEST(alone_one.size() > 10u);
  BOOST_TEST((alone_one != alone_two));
  std::vector<token> with_one, with_two;
  std::thread first([&] { with_one = generated(p, one, 1); });
  std::thread second([&] { with_two = generated(p, two, 2); });
  first.join();
  second.join();
  BOOST_TEST(with_one == alone_one, boost::test_tools::per_element());
  BOOST_TEST(with_two == alone_two, boost::test_tools::per_element());
}
}  // namespace

BOOST_AUTO_TEST_SUITE(sharing)

BOOST_AUTO_TEST_CASE(two_sessions_on_one_model, *boost::unit_test::label("tsan")) {
  ln::weights<ln::t5<tiny_t5_shape>> w;
  randomize(w);
  check_two_threads(ln::pack(ln::quantize<ln::storage::int8>(w)));
  check_two_threads(random_packed<decoder, float>());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sharing_test
