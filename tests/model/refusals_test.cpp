// SPDX-License-Identifier: MIT
// What does not fit is refused: limits and weights with an error that names the field, batches and
// tokens with NaN, nothing, or false, and never with a crash.

#include "support/scoring.hpp"

namespace test::refusals_test {

namespace {
using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape, ln::position::learned>;
using ln::refusal;

bool refused(const ln::loss_sum& l) { return !ln::is_finite(l.nats) && l.tokens == 0; }

/// An objective that accepts nothing.
struct accepts_none : ln::cross_entropy_objective {
  template <class Model>
  bool accepts(const typename Model::batch&, const ln::limits&) const {
    return false;
  }
};
}  // namespace

BOOST_AUTO_TEST_SUITE(refusals)

BOOST_AUTO_TEST_CASE(limits_that_make_no_sense) {
  const auto p = random_packed<t5, float>();
  const auto q = random_packed<decoder, float>();
  const auto message = [](const auto& result) {
    return result ? std::string("accepted") : result.error().message();
  };
  BOOST_TEST(message(ln::session<t5>::open(p, {.batch = 0, .source = 1, .target = 1})) ==
             "session::open: limits.batch: expected at least 1, got 0");
  BOOST_TEST(message(ln::session<t5>::open(p, {.source = 1, .target = 1, .threads = 0})) ==
             "session::open: limits.threads: expected 1 <= threads <= 65536, got 0");
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = 8, .chunk = -1})) ==
             "session::open: limits.chunk: expected at least 0 (0 for limits.target), got -1");
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = 8, .chunk = 2, .max_logits = 3})) ==
             "session::open: limits.max_logits: expected no more than 2, limits.chunk, got 3");
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = 8, .kv_blocks = -1})) ==
             "session::open: limits.kv_blocks: expected at least 0 (0: none shared), got -1");
  BOOST_TEST(message(ln::evaluator<t5>::open(p, {.target = 1})) ==
             "evaluator::open: limits.source: expected at least 1 source token, got 0");
  BOOST_TEST(message(ln::evaluator<t5>::open(p, {.source = 1})) ==
             "evaluator::open: limits.target: expected at least 1 target token, got 0");
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = -1}))
                 .starts_with("session::open: limits.target"));
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = 65})) ==
             "session::open: limits.target: expected no more than 64, the model's context, got 65");
  BOOST_TEST(message(ln::session<decoder>::open(q, {.target = 64})) == "accepted");
  ln::weights<decoder> w;
  BOOST_TEST(message(ln::trainer<decoder>::open(w, {.target = 8}, {}, {.dropout = 1}))
                 .starts_with("trainer::open: training_options.dropout"));
  BOOST_TEST(message(ln::trainer<decoder>::open(w, {.batch = -3}))
                 .starts_with("trainer::open: limits.batch"));
}

// More memory than there is: an error, not an exception and not a crash.
BOOST_AUTO_TEST_CASE(out_of_memory) {
  const auto p = random_packed<t5, float>();
  ln::weights<t5> w;
  const ln::limits absurd{.batch = 100'000'000, .source = 100'000, .target = 100'000};
  const auto s = ln::session<t5>::open(p, absurd);
  const auto e = ln::evaluator<t5>::open(p, absurd);
  const auto t = ln::trainer<t5>::open(w, absurd);
  BOOST_REQUIRE(!s);
  BOOST_REQUIRE(!e);
  BOOST_REQUIRE(!t);
  BOOST_TEST((s.error().code == ln::errc::out_of_memory));
  BOOST_TEST((e.error().code == ln::errc::out_of_memory));
  BOOST_TEST((t.error().code == ln::errc::out_of_memory));
}

// Batches that are too large or hold tokens outside the vocabulary: NaN, and no step.
BOOST_AUTO_TEST_CASE(batches_that_do_not_fit) {
  ln::weights<t5> w;
  randomize(w);
  const auto before = w.clone();
  const t5_tokens good(2, 5, 4, t5::vocabulary);
  auto train = ln::trainer<t5>::open(w, good.limits(), {}, {.patience = 100});
  const auto p = ln::pack(w);
  auto score = ln::evaluator<t5>::open(p, good.limits());
  const auto check = [&](refusal why, auto&& change) {
    t5_tokens data = good;
    ln::t5_batch b = data.view();
    change(data, b);
    const std::string_view what = ln::to_string(why);
    BOOST_TEST(refused(score->loss(b)), what);
    BOOST_TEST(score->last_refusal() == what);
    BOOST_TEST(refused(train->accumulate(b)), what);
    BOOST_TEST(train->last_refusal() == what);
    BOOST_TEST(!refused(train->evaluate(good.view())));
    BOOST_TEST(train->last_refusal().empty());
    BOOST_TEST(refused(train->evaluate(b)), what);
    BOOST_TEST(train->last_refusal() == what);
    BOOST_TEST(!ln::is_finite(train->step(b)), what);
    BOOST_TEST(train->last_refusal() == what);
    BOOST_TEST(train->steps() == 0, what);
    BOOST_TEST(!refused(score->loss(good.view())));
    BOOST_TEST(score->last_refusal().empty());
  };
  using data = t5_tokens;
  using batch = ln::t5_batch;
  check(refusal::batch_below_one, [](data&, batch& b) { b.batch = 0; });
  check(refusal::batch_over_limit, [](data&, batch& b) { b.batch = 3; });
  check(refusal::over_source, [](data&, batch& b) { b.source_length = 6; });
  check(refusal::no_tokens, [](data&, batch& b) { b.source_length = 0; });
  check(refusal::over_target, [](data&, batch& b) { b.target_length = 5; });
  check(refusal::no_tokens, [](data&, batch& b) { b.target_length = 0; });
  check(refusal::length_below_one, [](data& d, batch&) { d.lengths[1] = 0; });
  check(refusal::length_over_padded, [](data& d, batch&) { d.lengths[1] = 6; });
  check(refusal::token_outside_vocabulary, [](data& d, batch&) { d.source[9] = t5::vocabulary; });
  check(refusal::token_outside_vocabulary, [](data& d, batch&) { d.source[9] = -1; });
  check(refusal::token_outside_vocabulary, [](data& d, batch&) { d.source[9] = ln::ignored; });
  check(refusal::label_outside_vocabulary, [](data& d, batch&) { d.labels[7] = t5::vocabulary; });
  check(refusal::label_outside_vocabulary, [](data& d, batch&) { d.labels[7] = -2; });
  check(refusal::null_source, [](data&, batch& b) { b.source = nullptr; });
  check(refusal::null_labels, [](data&, batch& b) { b.labels = nullptr; });
  // Logits behind the end of a span are not written; none at all are wanted by an empty one.
  std::vector<float> logits(at(2 * 4 * t5::vocabulary));
  const auto some = std::span(logits).first(logits.size() - 1);
  BOOST_TEST(refused(score->loss(good.view(), some)));
  BOOST_TEST(score->last_refusal() == ln::to_string(refusal::short_logits));
  BOOST_TEST(refused(train->evaluate(good.view(), some)));
  BOOST_TEST(train->last_refusal() == ln::to_string(refusal::short_logits));
  BOOST_TEST(std::ranges::count(logits, 0.0f) == std::ssize(logits));
  BOOST_TEST(!refused(score->loss(good.view(), std::span(logits))));
  BOOST_TEST(!refused(train->evaluate(good.view(), std::span(logits))));
  BOOST_TEST(same_bytes(w, before));
  BOOST_TEST(ln::is_finite(train->step(good.view())));
  BOOST_TEST(train->steps() == 1);
}

BOOST_AUTO_TEST_CASE(decoder_batches_that_do_not_fit) {
  const auto p = random_packed<decoder, float>();
  const decoder_tokens good(2, 5, decoder::vocabulary);
  auto score = ln::evaluator<decoder>::open(p, good.limits());
  const auto check = [&](refusal why, auto&& change) {
    decoder_tokens data = good;
    ln::decoder_batch b = data.view();
    change(data, b);
    BOOST_TEST(refused(score->loss(b)), ln::to_string(why));
    BOOST_TEST(score->last_refusal() == ln::to_string(why));
  };
  using data = decoder_tokens;
  using batch = ln::decoder_batch;
  check(refusal::batch_over_limit, [](data&, batch& b) { b.batch = 3; });
  check(refusal::over_target, [](data&, batch& b) { b.length = 6; });
  check(refusal::null_tokens, [](data&, batch& b) { b.tokens = nullptr; });
  check(refusal::null_labels, [](data&, batch& b) { b.labels = nullptr; });
  const std::vector<index> prefixes{1, 6};
  check(refusal::prefix_unknown, [&](data&, batch& b) { b.prefixes = prefixes.data(); });
  for (const std::vector<index>& starts : {std::vector<index>{0, 0, 1, 0, 0, 0, 0, 0, 0, 0},
                                           {0, 0, 2, 2, 0, 0, 0, 0, 0, 0},
                                           {0, 0, 2, 2, 2, 1, 1, 1, 1, 1},
                                           {0, 0, 3, 3, 3, 0, 0, 0, 0, 0}})
    check(refusal::documents_unordered, [&](data&, batch& b) { b.documents = starts.data(); });
  check(refusal::no_tokens, [](data&, batch& b) { b.length = 0; });
  check(refusal::token_outside_vocabulary,
        [](data& d, batch&) { d.inputs[9] = decoder::vocabulary; });
  check(refusal::token_outside_vocabulary, [](data& d, batch&) { d.inputs[0] = ln::ignored; });
  check(refusal::label_outside_vocabulary,
        [](data& d, batch&) { d.labels[9] = decoder::vocabulary; });
  BOOST_TEST(ln::is_finite(score->loss(good.view()).nats));
  BOOST_TEST(score->last_refusal().empty());
  std::vector<ln::loss_sum> losses(1);
  BOOST_TEST(!score->exit_losses(good.view(), losses));
  BOOST_TEST(score->last_refusal() == ln::to_string(refusal::wrong_losses));
  losses.resize(2);
  BOOST_TEST(score->exit_losses(good.view(), losses));
  BOOST_TEST(score->last_refusal().empty());
  BOOST_TEST(refused(score->loss(good.view(), accepts_none{})));
  BOOST_TEST(score->last_refusal() == ln::to_string(refusal::objective));

  using prefixed = ln::decoder<tiny_decoder_shape, ln::attention::prefix>;
  const auto q = random_packed<prefixed, float>();
  auto other = ln::evaluator<prefixed>::open(q, good.limits());
  auto b = good.view();
  b.prefixes = prefixes.data();
  BOOST_TEST(refused(other->loss(b)));
  BOOST_TEST(other->last_refusal() == ln::to_string(refusal::prefix_outside));
  const std::vector<index> documents(10, 0), none{0, 0};
  b.prefixes = none.data(), b.documents = documents.data();
  BOOST_TEST(refused(other->loss(b)));
  BOOST_TEST(other->last_refusal() == ln::to_string(refusal::documents_with_prefix));
}

// No check of gradients reads or writes beyond what was planned.
BOOST_AUTO_TEST_CASE(checks_of_batches_that_do_not_fit) {
  ln::weights<decoder, double> w;
  randomize(w);
  const decoder_tokens good(1, 2, decoder::vocabulary), longer(1, 3, decoder::vocabulary);
  const auto report = ln::check_model_gradients(w, longer.view(), good.limits());
  BOOST_TEST(!report.passed());
  BOOST_TEST(report.entries == 0);
  BOOST_TEST(report.tensor == ln::to_string(refusal::over_target));
  BOOST_TEST(ln::check_model_gradients(w, good.view(), good.limits()).passed());
}

// Sessions take nothing that does not fit, and stay usable.
BOOST_AUTO_TEST_CASE(tokens_that_do_not_fit) {
  const auto p = random_packed<t5, float>();
  auto s = ln::session<t5>::open(p, {.batch = 2, .source = 5, .target = 4});
  const std::vector<token> some{1, 2, 3, 4}, large{1, t5::vocabulary}, negative{-1, 1}, six(6, 1);
  const std::vector<index> both{2, 2}, zero{2, 0}, three{2, 3};
  BOOST_TEST(s->feed(some).empty());  // nothing is encoded yet
  BOOST_TEST(!s->encode(std::span<const token>{}));
  BOOST_TEST(!s->encode(six));
  BOOST_TEST(!s->encode(large));
  BOOST_TEST(!s->encode(some, 2, zero));
  BOOST_TEST(!s->encode(some, 2, three));
  BOOST_TEST(!s->encode(some, 3, both));
  BOOST_TEST(!s->encode(some, 0, both));
  BOOST_TEST(!s->encode(some, 2, std::span(both).first(1)));
  BOOST_TEST(s->feed(some).empty());
  BOOST_TEST(s->generate(six, ln::greedy{}, [](token) {}) == 0);
  BOOST_TEST(s->encode(some, 2, both));
  BOOST_TEST(s->feed(std::span<const token>{}).empty());
  BOOST_TEST(s->feed(negative).empty());
  BOOST_TEST(s->feed(large, 2, {}).empty());
  BOOST_TEST(s->feed(six).empty());
  BOOST_TEST(s->feed(some, 2, zero).empty());
  BOOST_TEST(s->feed(some, 2, three).empty());
  BOOST_TEST(s->feed(some, 3, {}).empty());
  BOOST_TEST(s->position(0) == 0);
  BOOST_TEST(s->feed(some, 2, both).size() == 2u * t5::vocabulary);
  BOOST_TEST(s->feed(six, 2, {}).empty());  // three more than the two that fit
  BOOST_TEST(s->position(1) == 2);
  BOOST_TEST(s->capacity() == 4);

  const auto q = random_packed<decoder, float>();
  auto d = ln::session<decoder>::open(q, {.target = 4});
  BOOST_TEST(d->generate(std::span<const token>{}, ln::greedy{}, [](token) {}) == 0);
  BOOST_TEST(d->generate(large, ln::greedy{}, [](token) {}) == 0);
  BOOST_TEST(d->generate(six, ln::greedy{}, [](token) {}) == 0);
  BOOST_TEST(d->generate(some, ln::greedy{}, [](token) {}) == 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::refusals_test
