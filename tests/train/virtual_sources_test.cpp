// SPDX-License-Identifier: MIT
// Virtual tokens before the texts of encoders, and before the sources and targets of a T5. Every
// parameter by central differences; real tokens in their place; lengths that differ.

#include "support/adapters.hpp"
#include "support/encoders.hpp"

namespace test::virtual_sources_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using masked = ln::encoder<tiny_encoder_shape>;
using classifier = masked::with_head<ln::head::sequence_classification<3>>;
using ln::sentence_pooling;
template <sentence_pooling Pooling>
using pooled = masked::with_head<ln::head::linear_classification<3, Pooling>>;
using contrasted = masked::with_head<ln::head::contrastive<sentence_pooling::first>>;
constexpr index front = 3, length = 5, batch = 2;
template <class M>
using prompted = ln::adapted<M, ln::prompt_tuning<front>>;
template <class M>
using prefixed = ln::adapted<M, ln::prefix_tuning<front>>;

template <class M>
auto texts(index count = batch, index longest = length) {
  if constexpr (M::encodes)
    return t5_data<M>(count, longest, longest - 1);
  else
    return encoder_data<M>(count, longest);
}
template <class A>
void check_gradient(double dropout = 0, index count = batch) {
  adapted_pair<A> p;
  randomize(p.adapter, 2);
  check_weights(p.adapter, texts<A>(count), dropout);
}

/// All logits of a batch.
template <class M>
std::vector<double> logits_of(const ln::packed<M, double>& p, const typename M::batch& b,
                              const ln::limits& l, index rows) {
  std::vector<double> logits(at(rows * M::vocabulary));
  auto e = ln::evaluator<M, double>::open(p, l);
  LINNET_REQUIRE_OK(e);
  BOOST_TEST(ln::is_finite(e->loss(b, logits).nats));
  return logits;
}
double worst(std::span<const double> a, std::span<const double> b) {
  BOOST_REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = (std::max)(most, std::abs(a[i] - b[i]));
  return most;
}

/// [sequences, length] numbers with `first` before each sequence.
std::vector<token> behind(std::span<const token> first, std::span<const token> all, index each) {
  std::vector<token> whole;
  for (index b = 0; b * each < std::ssize(all); ++b) {
    whole.insert(whole.end(), first.begin(), first.end());
    whole.insert(whole.end(), all.begin() + b * each, all.begin() + (b + 1) * each);
  }
  return whole;
}
/// Texts of an encoder with the same tokens before each, of type 0.
template <class M>
encoder_tokens longer(const encoder_tokens& of, std::span<const token> begin) {
  encoder_tokens all = of;
  const std::vector<token> zero(begin.size(), 0), none(begin.size(), ln::ignored);
  all.length = of.length + std::ssize(begin);
  all.inputs = behind(begin, of.inputs, of.length);
  all.types = behind(zero, of.types, of.length);
  if (!of.per_sequence) all.labels = behind(none, of.labels, of.length);
  for (index& n : all.lengths) n += std::ssize(begin);
  return all;
}

/// The soft tokens that embeddings of real ones are give an encoder's head what those give it.
template <class M>
void check_embeddings() {
  const auto begin = tokens(front, 11, 1);
  adapted_pair<prompted<M>> p(ln::prompt_options{.start = ln::prompt_start::text, .text = begin});
  const auto rest = texts<M>(), whole = longer<M>(rest, begin);
  constexpr index row = M::vocabulary;
  const index rows = M::label_per_sequence ? batch : batch * whole.length;
  const auto want = logits_of(p.base, whole.view(), whole.limits(), rows);
  const auto got = logits_of(ln::pack(p.adapter), rest.view(), rest.limits(),
                             M::label_per_sequence ? batch : batch * length);
  if constexpr (M::label_per_sequence) {
    BOOST_TEST(worst(got, want) <= 1e-12);
  } else {
    for (index b = 0; b < batch; ++b) {
      const auto valid = at(rest.lengths[at(b)] * row);
      BOOST_TEST(worst(std::span(got).subspan(at(b * length * row), valid),
                       std::span(want).subspan(at((b * whole.length + front) * row), valid)) <=
                 1e-12);
    }
  }
}

/// The keys and values of the first tokens of a sequence, as an attention_tap is shown them.
template <class M>
struct keys_and_values {
  std::vector<double> all;  // [front, layers, 2, kv]
  index layers, kv, skip, calls = 0;
  static void take(void* self, const ln::ops::execution& on,
                   const ln::ops::attention_call<double>& a,
                   const ln::ops::attention_gradient<double>*) {
    auto& to = *static_cast<keys_and_values*>(self);
    if (on.threads.rank() != 0) return;
    // Of a T5: the encoder's layers, then by turns the decoder's own attention and the other.
    const index call = to.calls++ - to.skip;
    if (call < 0 || (M::encodes && call % 2 == 1)) return;
    const index layer = M::encodes ? call / 2 : call;
    for (index t = 0; t < front; ++t)
      for (index j = 0; j < to.kv; ++j) {
        double* const row = to.all.data() + (t * to.layers + layer) * 2 * to.kv;
        row[j] = a.k.data[t * to.kv + j];
        row[to.kv + j] = a.v.data[t * to.kv + j];
      }
  }
};
/// Those of a batch of one sequence, in a model without an adapter.
template <class M>
std::vector<double> keys_of(const ln::packed<M, double>& base, const typename M::batch& b,
                            const ln::limits& l, index layers, index kv, index skip) {
  keys_and_values<M> seen{std::vector<double>(at(front * layers * 2 * kv)), layers, kv, skip};
  const ln::ops::attention_tap<double> tap{&seen, &keys_and_values<M>::take};
  std::vector<std::byte> memory(
      at(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total() + 64));
  void* aligned = memory.data();
  std::size_t space = memory.size();
  BOOST_REQUIRE(std::align(64, memory.size() - 64, aligned, space));
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, aligned);
  ln::ops::execution on;
  on.attention = &tap;
  (void)M::template loss<double, ln::storage_of<M, double>>(base.tree(), nullptr, b, work.work, on);
  return seen.all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(virtual_sources)

BOOST_AUTO_TEST_CASE(gradients) {
  check_gradient<prompted<t5>>(0.25);
  check_gradient<prefixed<t5>>(0.25);
  check_gradient<prompted<masked>>(0.25);
  check_gradient<prefixed<masked>>(0.25);
  check_gradient<prompted<classifier>>();
  check_gradient<prefixed<classifier>>();
  check_gradient<prompted<pooled<sentence_pooling::first>>>();
  check_gradient<prompted<pooled<sentence_pooling::mean>>>();
  check_gradient<prompted<contrasted>>(0, 4);  // two pairs
}

BOOST_AUTO_TEST_CASE(embeddings_are_tokens) {
  check_embeddings<masked>();
  check_embeddings<classifier>();
  check_embeddings<pooled<sentence_pooling::first>>();
  // Before sources of unlike lengths.
  const auto begin = tokens(front, 11, 1);
  adapted_pair<prompted<t5>> p(ln::prompt_options{.start = ln::prompt_start::text, .text = begin});
  const auto rest = texts<t5>();
  auto whole = rest;
  whole.source_length += front;
  whole.source = behind(begin, rest.source, rest.source_length);
  for (index& n : whole.lengths) n += front;
  const index rows = batch * rest.target_length;
  BOOST_TEST(worst(logits_of(ln::pack(p.adapter), rest.view(), rest.limits(), rows),
                   logits_of(p.base, whole.view(), whole.limits(), rows)) <= 1e-12);
}

// The keys and values of a text's first tokens are a prefix that stands for them: in an encoder
// those that the whole text gives, in a T5 those of the targets' first tokens.
BOOST_AUTO_TEST_CASE(keys_are_tokens) {
  adapted_pair<prefixed<masked>> p;
  const auto begin = tokens(front, 11, 1);
  const auto rest = texts<masked>(1), whole = longer<masked>(rest, begin);
  constexpr index row = masked::vocabulary;
  const auto keys = keys_of(p.base, whole.view(), whole.limits(), 2, 6, 0);
  std::copy(keys.begin(), keys.end(), p.adapter.tree().prefix);
  const auto want = logits_of(p.base, whole.view(), whole.limits(), whole.length);
  BOOST_TEST(worst(logits_of(ln::pack(p.adapter), rest.view(), rest.limits(), length),
                   std::span(want).last(at(length * row))) <= 1e-12);

  adapted_pair<prefixed<t5>> q;
  auto target = texts<t5>(1);
  // Token t of a target reads label t - 1; the first one reads the start token.
  const index rows = target.target_length;
  auto longer_target = target;
  longer_target.labels = tokens(front - 1, 11, 5);
  longer_target.labels.push_back(t5::start);
  longer_target.labels.insert(longer_target.labels.end(), target.labels.begin(),
                              target.labels.end());
  longer_target.target_length += front;
  const auto seen = keys_of(q.base, longer_target.view(), longer_target.limits(), 2, 4, 2);
  std::copy(seen.begin(), seen.end(), q.adapter.tree().prefix);
  const auto all =
      logits_of(q.base, longer_target.view(), longer_target.limits(), longer_target.target_length);
  BOOST_TEST(worst(logits_of(ln::pack(q.adapter), target.view(), target.limits(), rows),
                   std::span(all).last(at(rows * t5::vocabulary))) <= 1e-12);
}

// Sequences with virtual tokens before their sources or their targets, and one without, side by
// side in a session: the logits of whole texts.
BOOST_AUTO_TEST_CASE(sessions) {
  adapted_pair<prompted<t5>> soft;
  auto made = ln::adapt<ln::prefix_tuning<front>>(soft.base);
  LINNET_REQUIRE_OK(made);
  randomize(soft.adapter, 2);
  randomize(*made, 3);
  const auto prompt = ln::pack(soft.adapter);
  const auto prefix = ln::pack(*made);
  const auto data = texts<t5>(3);
  const index steps = data.target_length, row = t5::vocabulary;
  const auto whole = [&](const auto& p) {
    return logits_of(p, data.view(), data.limits(), 3 * steps);
  };
  const std::vector<double> want[] = {whole(prompt), whole(soft.base), whole(prefix)};
  for (const index blocks : {0, 3}) {
    auto s = ln::session<t5, double>::open(
        soft.base,
        {.batch = 3, .source = length + front, .target = steps + front, .kv_blocks = blocks});
    LINNET_REQUIRE_OK(s);
    BOOST_REQUIRE((s->set_adapter(0, prompt) && s->set_adapter(2, prefix)));
    BOOST_TEST(s->capacity() == steps);
    for (int again = 0; again < 2; ++again) {
      BOOST_REQUIRE_MESSAGE(s->encode(data.source, 3, data.lengths), s->last_refusal());
      for (index t = 0; t < steps; ++t) {
        std::vector<token> next(3, t5::start);
        for (index b = 0; b < 3 && t > 0; ++b)
          if (const token before = data.labels[at(b * steps + t - 1)]; before != ln::ignored)
            next[at(b)] = before;
        const auto got = s->feed(next, 3, {});
        BOOST_REQUIRE_MESSAGE(!got.empty(), s->last_refusal());
        for (index b = 0; b < 3; ++b)
          BOOST_TEST(worst(got.subspan(at(b * row), at(row)),
                           std::span(want[b]).subspan(at((b * steps + t) * row), at(row))) <=
                     1e-12);
      }
      BOOST_TEST(s->position(2) == steps);
      const token more[] = {1, 1, 1};
      BOOST_TEST(s->feed(more, 3, {}).empty());
    }
    // A source that has no room behind them.
    const auto longer = tokens(length + 1, 11, 6);
    BOOST_TEST(!s->encode(longer));
    BOOST_TEST(s->last_refusal() == to_string(ln::refusal::over_source));
    s->reset();
    BOOST_REQUIRE(s->clear_adapter(0));
    BOOST_TEST(s->encode(longer));
  }
}

// Three threads give the bits of one, and only the adapter trains.
BOOST_AUTO_TEST_CASE(any_number_of_threads) {
  const auto check = [&]<class A>(std::type_identity<A>) {
    const auto data = texts<A>(3, 6);
    const auto run = [&](int threads) {
      ln::weights<typename A::base_model> w;
      randomize(w);
      const auto base = ln::pack(w);
      auto made = ln::adapt<typename A::method>(base);
      LINNET_REQUIRE_OK(made);
      auto train = ln::trainer<A>::open(*made, data.limits(threads), {}, {.dropout = 0.2});
      LINNET_REQUIRE_OK(train);
      for (int i = 0; i < 3; ++i) (void)train->step(data.view());
      BOOST_TEST(same_bytes(base, ln::pack(w)));
      return std::move(*made);
    };
    BOOST_TEST(same_bytes(run(1), run(3)));
  };
  check(std::type_identity<prompted<t5>>());
  check(std::type_identity<prefixed<classifier>>());
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<masked> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto made = ln::adapt<ln::prompt_tuning<front>>(base);
  LINNET_REQUIRE_OK(made);
  using trainer = ln::trainer<prompted<masked>>;
  BOOST_TEST(message(trainer::open(*made, {.target = 30})) ==
             "trainer::open: limits.target: expected no more than 29, the model's context less the "
             "virtual tokens, got 30");
  const auto few = texts<masked>(1, 30);
  auto open = trainer::open(*made, {.threads = 1});
  LINNET_REQUIRE_OK(open);
  BOOST_TEST(!ln::is_finite(open->evaluate(few.view()).nats));
  ln::weights<t5> v;
  randomize(v);
  const auto other = ln::pack(v);
  auto soft = ln::adapt<ln::prompt_tuning<front>>(other);
  LINNET_REQUIRE_OK(soft);
  BOOST_TEST(message(ln::trainer<prompted<t5>>::open(*soft, {.target = 3})) ==
             "trainer::open: limits.source: expected at least 1 source token, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::virtual_sources_test
