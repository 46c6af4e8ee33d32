// SPDX-License-Identifier: MIT
// Inputs of few bits for some tokens: which they are, and that products read them so, in evaluators
// and in both directions of training.

#include "support/data.hpp"
#include "support/models.hpp"
#include "support/resumed.hpp"

namespace test::token_adaptive_test {

namespace {

namespace st = ln::storage;
using eight = ln::compute::int8;

constexpr ln::decoder_shape one_layer{.d_model = 16,
                                      .d_ff = 24,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .layers = 1,
                                      .vocabulary = 11,
                                      .context = 16};
using model = ln::decoder<one_layer>;
// Each token with few bits: 8 where queries, keys and values and the head read, 4 elsewhere.
using whole = st::with_compute<st::int8, eight>;
using four = st::with_compute<st::int8, ln::compute::int4>;
using by_hand = st::per_role<whole, st::attention_o<four>, st::ffn_gate<four>, st::ffn_up<four>,
                             st::ffn_down<four>>;
using q8 = ln::quantized<model, st::int8, eight>;
using q4 = ln::quantized<model, by_hand>;

constexpr index batch = 2, length = 9;
constexpr ln::limits limits{.batch = batch, .target = length};

struct texts {
  std::vector<ln::token> inputs = tokens(batch * length, 11, 3),
                         labels = tokens(batch * length, 11, 4);
  ln::decoder_batch view() const { return {inputs.data(), labels.data(), batch, length}; }
};

template <class M>
ln::token_adaptive<M> choice(const ln::token_adaptive_options& how) {
  auto made = ln::token_adaptive<M>::open(limits, how);
  LINNET_REQUIRE_OK(made);
  return std::move(*made);
}
template <class W, class... Objective>
double loss_of(const W& w, Objective&&... from) {
  const auto p = ln::pack(w);
  auto scoring = ln::evaluator<typename W::model>::open(p, limits);
  LINNET_REQUIRE_OK(scoring);
  const texts some;
  return scoring->loss(some.view(), from...).nats;
}

BOOST_AUTO_TEST_SUITE(token_adaptive)

BOOST_AUTO_TEST_CASE(tokens_are_chosen_by_rank_or_threshold) {
  const std::vector<double> scores{3, -1, 2, -1, 0};
  const auto chosen = [&](const ln::token_adaptive_options& how) {
    std::vector<index> order(5);
    std::vector<float> to(5, -1);
    ln::detail::choose_tokens(5, scores.data(), how, order.data(), 7, to.data());
    std::string text;
    for (const float x : to) text += x == 7.0f ? '4' : x == 0.0f ? '8' : '?';
    return text;
  };
  BOOST_TEST(chosen({.share = 0}) == "88888");
  BOOST_TEST(chosen({.share = 0.3}) == "84888");  // of equal ones the first
  BOOST_TEST(chosen({.share = 0.5}) == "84848");
  BOOST_TEST(chosen({.share = 0.7}) == "84844");
  BOOST_TEST(chosen({.share = 1}) == "44444");
  BOOST_TEST(chosen({.ranks = false, .threshold = 0}) == "84848");
  BOOST_TEST(chosen({.ranks = false, .threshold = 2.5}) == "84444");
}

BOOST_AUTO_TEST_CASE(scores_are_those_of_the_first_key) {
  constexpr index heads = 4, kv_heads = 2, h = 3, n = heads * h, kv = kv_heads * h;
  auto q = normal<float>(batch * length * n, 1);
  const auto k = normal<float>(batch * length * kv, 2);
  ln::ops::attention_call<float> a{};
  a.batch = batch, a.queries = a.keys = length;
  a.heads = heads, a.kv_heads = kv_heads, a.h = h;
  a.scale = 0.25f;
  a.q = q.data();
  a.k = {k.data(), length, kv, h};
  std::vector<double> scores(at(batch * length));
  ln::detail::score_tokens({}, a, scores.data());
  for (index b = 0; b < batch; ++b)
    for (index t = 0; t < length; ++t) {
      double sum = 0;
      for (index head = 0; head < heads; ++head)
        for (index i = 0; i < h; ++i)
          sum += 0.25 * static_cast<double>(q[at((b * length + t) * n + head * h + i)]) *
                 static_cast<double>(k[at(b * length * kv + head / 2 * h + i)]);
      BOOST_TEST(std::abs(scores[at(b * length + t)] - sum) < 1e-12);
    }
  // Of a document it is the document's.
  const std::vector<index> documents{0, 0, 0, 0, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  const auto alone = scores;
  a.documents = documents.data();
  ln::detail::score_tokens({}, a, scores.data());
  double second = 0;
  for (index i = 0; i < n; ++i)
    second += 0.25 * static_cast<double>(q[at(7 * n + i)]) *
              static_cast<double>(k[at(4 * kv + i / h / 2 * h + i % h)]);
  BOOST_TEST(std::abs(scores[7] - second) < 1e-12);
  BOOST_TEST(scores[3] == alone[3]);
  BOOST_TEST(scores[13] == alone[13]);
  a.documents = nullptr;
  // Scores are ordered, whatever a model gives.
  q[at(3 * n)] = std::numeric_limits<float>::quiet_NaN();
  ln::detail::score_tokens({}, a, scores.data());
  BOOST_TEST(scores[3] == std::numeric_limits<double>::lowest());
}

BOOST_AUTO_TEST_CASE(evaluators_round_as_chosen) {
  ln::weights<model> w;
  randomize(w);
  const auto plain = ln::quantize<st::int8, eight>(w);
  const double all8 = loss_of(plain), all4 = loss_of(ln::quantize<by_hand>(w));
  BOOST_TEST(loss_of(plain, choice<q8>({.share = 0})) == all8);
  BOOST_TEST(loss_of(plain, choice<q8>({.share = 1})) == all4);
  BOOST_TEST(loss_of(plain, choice<q8>({.ranks = false, .threshold = 1e9})) == all4);
  const double half = loss_of(plain, choice<q8>({.share = 0.5}));
  BOOST_TEST(half != all8);
  BOOST_TEST(half != all4);
  BOOST_TEST(loss_of(plain, choice<q8>({.share = 1, .bits = 7})) != all4);
}

/// A model under a name that the library does not know, whose layers are counted as `exits`.
template <class M>
struct own : M {
  template <class S>
  using with_storage = own<typename M::template with_storage<S>>;
};
BOOST_AUTO_TEST_CASE(takes_models_from_outside) {
  ln::weights<model> w;
  randomize(w);
  ln::weights<own<model>> o;
  randomize(o);
  BOOST_TEST((loss_of(ln::quantize<st::int8, eight>(o), choice<own<q8>>({.share = 0.5})) ==
              loss_of(ln::quantize<st::int8, eight>(w), choice<q8>({.share = 0.5}))));
}

// Documents packed in a row choose as if each had a row of its own.
BOOST_AUTO_TEST_CASE(documents_choose_for_themselves) {
  ln::weights<model> w;
  randomize(w);
  const auto p = ln::pack(ln::quantize<st::int8, eight>(w));
  auto scoring = ln::evaluator<q8>::open(p, limits);
  LINNET_REQUIRE_OK(scoring);
  auto half = choice<q8>({.share = 0.5});
  texts some;
  const std::vector<index> documents{0, 0, 0, 0, 4, 4, 4, 4, 4};
  const auto logits_of = [&](ln::decoder_batch b) {
    std::vector<float> logits(at(b.length * 11));
    BOOST_TEST(ln::is_finite(scoring->loss(b, half, logits).nats));
    return logits;
  };
  ln::decoder_batch packed{some.inputs.data(), some.labels.data(), 1, length};
  packed.documents = documents.data();
  const auto together = logits_of(packed);
  const auto own = logits_of({some.inputs.data() + 4, some.labels.data() + 4, 1, 5});
  BOOST_TEST(same_bits(std::span(together).subspan(4 * 11), std::span(own)));
  // So another token in the first changes nothing of the second.
  some.inputs[0] = (some.inputs[0] + 1) % 11;
  const auto other = logits_of(packed);
  BOOST_TEST(same_bits(std::span(together).subspan(4 * 11), std::span(other).subspan(4 * 11)));
  BOOST_TEST(!same_bits(together, other));
}

/// Weights after two steps, with fake quantization to `S`.
template <class S, class... Objective>
ln::weights<model> trained(int threads, Objective&&... from) {
  ln::weights<model> w;
  randomize(w);
  auto l = limits;
  l.threads = threads;
  if (threads > 1) l.run_on = std_threads();
  using trainer = ln::trainer<model, ln::adamw, float, S>;
  auto train = trainer::open(w, l, {.rate = ln::schedule::constant(1e-2)});
  LINNET_REQUIRE_OK(train);
  const texts some;
  for (int step = 0; step < 2; ++step) BOOST_TEST(ln::is_finite(train->step(some.view(), from...)));
  return w;
}

BOOST_AUTO_TEST_CASE(training_rounds_as_chosen_in_both_directions) {
  using fake8 = ln::compute::fake_quantized<st::int8, eight>;
  using fake4 = ln::compute::fake_quantized<by_hand>;
  const auto all8 = trained<fake8>(1), all4 = trained<fake4>(1);
  BOOST_TEST(same_bytes(trained<fake8>(1, choice<model>({.share = 0})), all8));
  BOOST_TEST(same_bytes(trained<fake8>(1, choice<model>({.share = 1})), all4));
  const auto half = trained<fake8>(1, choice<model>({.share = 0.5}));
  BOOST_TEST(!same_bytes(half, all8));
  BOOST_TEST(!same_bytes(half, all4));
  BOOST_TEST(same_bytes(trained<fake8>(3, choice<model>({.share = 0.5})), half));
}

// A run that goes on in other objects has the same bits, with products that read the choice.
BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  using fake8 = ln::compute::fake_quantized<st::int8, eight>;
  ln::weights<model> w;
  randomize(w);
  check_resumed<fake8>(w, decoder_tokens(batch, length, 11),
                       [](const ln::limits&) { return choice<model>({.share = 0.5}); });
}

BOOST_AUTO_TEST_CASE(stands_around_distilled_attention) {
  using fake8 = ln::compute::fake_quantized<st::int8, eight>;
  using distilled = ln::attention_distillation<model, model>;
  ln::weights<model> w;
  randomize(w, 2);
  const auto p = ln::pack(w);
  const auto teacher = [&] {
    auto made = distilled::open(p, limits);
    LINNET_REQUIRE_OK(made);
    return std::move(*made);
  };
  const auto around = [&](double share) {
    auto made = ln::token_adaptive<model, distilled>::open(limits, {.share = share}, teacher());
    LINNET_REQUIRE_OK(made);
    return trained<fake8>(1, *made);
  };
  const auto alone = trained<fake8>(1, teacher());
  BOOST_TEST(same_bytes(around(0), alone));
  BOOST_TEST(!same_bytes(around(0.5), alone));
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
  const auto why = [](const auto& made) { return message(made); };
  BOOST_TEST(
      why(ln::token_adaptive<model>::open(limits, {.share = 1.5})) ==
      "token_adaptive::open: token_adaptive_options.share: expected 0 <= share <= 1, got 1.5");
  BOOST_TEST(why(ln::token_adaptive<model>::open(limits, {.bits = 8})).find("bits") !=
             std::string::npos);
  using linear = ln::decoder<one_layer, ln::attention::linear<>>;
  BOOST_TEST(why(ln::token_adaptive<linear>::open(limits)) ==
             "token_adaptive::open: model: expected softmax attention over all tokens in each "
             "layer, such as attention::full, got 0 of 1 layers with it");
  auto small = choice<q8>({});
  const texts some;
  auto longer = some.view();
  longer.batch = 3;
  BOOST_TEST(ln::to_string(small.refuses<q8>(longer, limits)) ==
             ln::to_string(ln::refusal::objective));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::token_adaptive_test
