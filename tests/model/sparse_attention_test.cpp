// SPDX-License-Identifier: MIT
// Sparse and low-rank kinds of attention in whole models: gradients, sessions, refusals.

#include "support/scoring.hpp"

namespace test::sparse_attention_test {

namespace {
namespace attention = ln::attention;
template <class Kind>
using t5_with = ln::t5<tiny_t5_shape, ln::encoder_stack<Kind>>;
using hashed = ln::decoder<tiny_decoder_shape, attention::lsh<3, 2>>;
using short_sources = t5_with<attention::linformer<3, 7>>;

/// Decoding with an encoder of this kind equals scoring, also for a second source.
template <class M>
void check_session() {
  const auto p = random_packed<M, double>();
  t5_tokens data(2, 7, 4, M::vocabulary);
  data.lengths = {7, 5};
  const auto logits = logits_of(p, data);
  auto s = ln::session<M, double>::open(p, {.batch = 1, .source = 7, .target = 4});
  BOOST_REQUIRE(static_cast<bool>(s));
  for (index b = 0; b < 2; ++b) {
    BOOST_REQUIRE(s->encode(std::span(data.source).subspan(at(b * 7), at(data.lengths[at(b)]))));
    for (index i = 0; i < 4; ++i) {
      const token before = i == 0 ? M::start : data.labels[at(b * 4 + i - 1)];
      BOOST_TEST(distance(s->feed({&before, 1}), row_of<M>(logits, b * 4 + i)) <= 1e-12);
    }
  }
}
}  // namespace

BOOST_AUTO_TEST_SUITE(sparse_attention)

BOOST_AUTO_TEST_CASE(linformer) { check_model<short_sources>(t5_data<short_sources>()); }
BOOST_AUTO_TEST_CASE(nystrom) {
  using model = t5_with<attention::nystrom<3, 3>>;
  check_model<model>(t5_data<model>());
}
BOOST_AUTO_TEST_CASE(longformer) {
  using model = t5_with<attention::longformer<2, 1>>;
  check_model<model>(t5_data<model>(), 0.2);
}
BOOST_AUTO_TEST_CASE(lsh) {
  using model = t5_with<attention::lsh<2, 2>>;
  check_model<model>(t5_data<model>(), 0.2);
  check_session<model>();
}
BOOST_AUTO_TEST_CASE(routing) {
  using model = t5_with<attention::routing<2, 3>>;
  check_model<model>(t5_data<model>());
  check_session<model>();
}
BOOST_AUTO_TEST_CASE(lsh_in_a_decoder) { check_model<hashed>(decoder_data<hashed>(2, 7)); }

// Sources longer than the projections are refused, not cut.
BOOST_AUTO_TEST_CASE(linformer_has_a_longest_source) {
  const auto p = random_packed<short_sources, float>();
  const auto s = ln::session<short_sources>::open(p, {.source = 8, .target = 2});
  BOOST_REQUIRE(!s);
  BOOST_TEST(s.error().message() ==
             "session::open: limits.source: expected no more than 7, what the encoder's attention "
             "reads, got 8");
  BOOST_TEST(static_cast<bool>(ln::session<short_sources>::open(p, {.source = 7, .target = 2})));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sparse_attention_test
