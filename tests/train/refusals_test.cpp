// SPDX-License-Identifier: MIT
// Loops over a trainer's steps end, whatever they are given, and the trainer says why.

#include <functional>

#include "support/data.hpp"
#include "support/scoring.hpp"

namespace test::refusals_test {

namespace {

using M = ln::decoder<tiny_decoder_shape>;
using train_type = ln::trainer<M>;

/// The loop of docs/training.md, cut off after more calls than any trainer may take.
template <class Call>
index calls_of_loop(train_type& train, const Call& call) {
  index calls = 0;
  while (!train.stopped() && train.steps() < 20 && calls < 1000) {
    call(train);
    ++calls;
  }
  return calls;
}

/// An objective that accepts nothing.
struct accepts_none : ln::cross_entropy_objective {
  template <class Model>
  bool accepts(const typename Model::batch&, const ln::limits&) const {
    return false;
  }
};
/// An objective that gives its reason, and needs no accepts() beside it.
struct refuses_all {
  template <class Model>
  static ln::refusal refuses(const typename Model::batch&, const ln::limits&) {
    return ln::refusal::not_taught;
  }
  template <class Batch>
  static auto token_loss(const ln::ops::execution& on, const Batch& b) {
    return ln::cross_entropy_objective::token_loss(on, b);
  }
};
/// None: nobody could ask it whether it serves a batch.
struct asks_nobody {
  template <class Batch>
  static auto token_loss(const ln::ops::execution& on, const Batch& b) {
    return ln::cross_entropy_objective::token_loss(on, b);
  }
};
static_assert(ln::objective<accepts_none, M> && ln::objective<refuses_all, M> &&
              ln::objective<const refuses_all&, M> && !ln::objective<asks_nobody, M>);

}  // namespace

BOOST_AUTO_TEST_SUITE(refused_batches)

BOOST_AUTO_TEST_CASE(no_loop_runs_for_ever) {
  const decoder_tokens good(2, 8, M::vocabulary);
  decoder_tokens outside = good, unlabelled = good;
  outside.labels[5] = static_cast<token>(M::vocabulary);
  std::fill(unlabelled.labels.begin(), unlabelled.labels.end(), ln::ignored);
  const decoder_tokens longer(2, 9, M::vocabulary);
  const auto with = [](const auto& data) {
    return [&](train_type& t) {
      const double nats = t.step(data.view());
      BOOST_TEST((!ln::is_finite(nats) || nats == 0));
    };
  };
  struct kind {
    ln::refusal why;
    bool refused, stops_at_once;
    std::function<void(train_type&)> call;
  };
  const kind kinds[] = {
      {ln::refusal::label_outside_vocabulary, true, false, with(outside)},
      {ln::refusal::over_target, true, false, with(longer)},
      {ln::refusal::over_target, true, false,
       [&](train_type& t) { (void)t.accumulate(longer.view()); }},
      {ln::refusal::objective, true, false,
       [&](train_type& t) { (void)t.step(good.view(), accepts_none{}); }},
      {ln::refusal::not_taught, true, false,
       [&](train_type& t) { (void)t.step(good.view(), refuses_all{}); }},
      {ln::refusal::no_label, false, false, with(unlabelled)},
      {ln::refusal::no_label, false, false, [](train_type& t) { t.update(); }},
      {ln::refusal::not_finite, false, true,
       [&](train_type& t) {
         (void)t.accumulate(good.view());
         t.gradient().tree().norm.weight[0] = std::numeric_limits<float>::infinity();
         t.update();
       }},
      {ln::refusal::options, true, false,
       [&](train_type& t) {
         t.optimizer().beta1 = 1;
         (void)t.step(good.view());
       }},
  };
  for (const auto policy : {ln::bad_step::skip, ln::bad_step::stop})
    for (const index patience : {1, 7, 100})
      for (const kind& k : kinds) {
        ln::weights<M> w;
        randomize(w);
        const auto before = w.clone();
        auto train =
            train_type::open(w, good.limits(), {}, {.if_not_finite = policy, .patience = patience});
        BOOST_REQUIRE(static_cast<bool>(train));
        BOOST_TEST(train->last_refusal().empty());
        const index calls = calls_of_loop(*train, k.call);
        const bool at_once = policy == ln::bad_step::stop && k.stops_at_once;
        BOOST_TEST(calls == (at_once ? 1 : patience), ln::to_string(k.why));
        BOOST_TEST(train->stopped());
        BOOST_TEST(train->last_refusal() == ln::to_string(k.why));
        BOOST_TEST(train->refused() == (k.refused ? calls : 0));
        BOOST_TEST(train->skipped() == (k.refused ? 0 : calls));
        BOOST_TEST(train->steps() == 0);
        BOOST_TEST(same_bytes(w, before));
        // It refuses all else, without counting it, until it is started again.
        BOOST_TEST(ln::is_finite(train->evaluate(good.view()).nats));
        BOOST_TEST(ln::is_nan(train->step(good.view())));
        BOOST_TEST(train->last_refusal() == ln::to_string(k.why));
        BOOST_TEST(train->refused() == (k.refused ? calls : 0));
        train->optimizer() = {};
        LINNET_REQUIRE_OK(train->resume(train->progress()));
        BOOST_TEST(!train->stopped());
        BOOST_TEST(train->refused() == 0);
        BOOST_TEST(train->step(good.view()) > 0);
        BOOST_TEST(train->steps() == 1);
        BOOST_TEST(train->last_refusal().empty());
      }
}

// A step between them begins the count of those in a row anew.
BOOST_AUTO_TEST_CASE(in_a_row) {
  const decoder_tokens good(2, 8, M::vocabulary), longer(2, 9, M::vocabulary);
  ln::weights<M> w;
  randomize(w);
  auto train = train_type::open(w, good.limits(), {}, {.patience = 3});
  for (int i = 0; i < 4; ++i) {
    (void)train->step(longer.view());
    (void)train->step(longer.view());
    BOOST_TEST(train->step(good.view()) > 0);
  }
  BOOST_TEST(!train->stopped());
  BOOST_TEST(train->refused() == 8);
  BOOST_TEST(train->steps() == 4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::refusals_test
