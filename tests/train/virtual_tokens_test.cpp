// SPDX-License-Identifier: MIT
// Adapters that put virtual tokens before texts: soft tokens and prefixes of keys and values. Every
// parameter by central differences; real tokens in their place; what trains and what does not.

#include "support/adapters.hpp"
#include "support/resumed.hpp"

namespace test::virtual_tokens_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using learned = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                            ln::ffn::gelu_tanh, ln::bias::all>;
template <class M>
using prompted = ln::adapted<M, ln::prompt_tuning<3>>;
template <class M>
using prefixed = ln::adapted<M, ln::prefix_tuning<3>>;

/// A base with an adapter of random numbers.
template <class A>
struct pair : adapted_pair<A> {
  pair() { randomize(this->adapter, 2); }
};

/// All logits of a batch.
template <class M>
std::vector<double> logits_of(const ln::packed<M, double>& p, const ln::decoder_batch& b) {
  std::vector<double> logits(at(b.batch * b.length * M::vocabulary));
  auto e = ln::evaluator<M, double>::open(p, {.batch = b.batch, .target = b.length});
  LINNET_REQUIRE_OK(e);
  BOOST_TEST(ln::is_finite(e->loss(b, logits).nats));
  return logits;
}

template <class A>
void check_gradient(double dropout = 0) {
  pair<A> p;
  check_weights(p.adapter, decoder_data<A>(), dropout);
}

constexpr index front = 3, length = 5, sequences = 2;

/// Texts that all begin with the same three tokens, and the same texts without them.
struct texts {
  std::vector<token> whole, rest;
  texts() {
    const auto begin = tokens(front, small::vocabulary, 1);
    rest = tokens(sequences * length, small::vocabulary, 2);
    for (index b = 0; b < sequences; ++b) {
      whole.insert(whole.end(), begin.begin(), begin.end());
      whole.insert(whole.end(), rest.begin() + b * length, rest.begin() + (b + 1) * length);
    }
  }
  ln::decoder_batch whole_view() const {
    return {whole.data(), whole.data(), sequences, front + length};
  }
  ln::decoder_batch rest_view() const { return {rest.data(), rest.data(), sequences, length}; }
};
/// Virtual tokens give the texts behind them the logits that real tokens give them.
template <class A>
void check_stands_for(const ln::weights<A, double>& adapter,
                      const ln::packed<typename A::base_model, double>& base) {
  const texts t;
  const auto want = logits_of(base, t.whole_view());
  const auto got = logits_of(ln::pack(adapter), t.rest_view());
  constexpr index row = small::vocabulary;
  double worst = 0;
  for (index b = 0; b < sequences; ++b)
    for (index i = 0; i < length * row; ++i)
      worst = (std::max)(worst, std::abs(got[at(b * length * row + i)] -
                                         want[at((b * (front + length) + front) * row + i)]));
  BOOST_TEST(worst <= 1e-12, worst);
}

/// The keys and values of the first tokens of a text, as an attention_tap is shown them.
struct keys_and_values {
  using M = small;
  std::vector<double> all;  // [front, layers, 2, kv]
  index layer = 0;
  static void take(void* self, const ln::ops::execution& on,
                   const ln::ops::attention_call<double>& a,
                   const ln::ops::attention_gradient<double>*) {
    auto& to = *static_cast<keys_and_values*>(self);
    if (on.threads.rank() != 0) return;
    constexpr index kv = M::self.kv_heads * M::self.d_kv;
    for (index t = 0; t < front; ++t)
      for (index j = 0; j < kv; ++j) {
        double* const row = to.all.data() + (t * M::shape.layers + to.layer) * 2 * kv;
        row[j] = a.k.data[t * kv + j];
        row[kv + j] = a.v.data[t * kv + j];
      }
    ++to.layer;
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(virtual_tokens)

BOOST_AUTO_TEST_CASE(gradients) {
  check_gradient<prompted<small>>();
  check_gradient<prompted<learned>>(0.25);
  check_gradient<prefixed<small>>();
  check_gradient<prefixed<learned>>(0.25);
}

BOOST_AUTO_TEST_CASE(embeddings_are_tokens) {
  const auto check = []<class A>(pair<A> p) {
    const auto begin = tokens(front, small::vocabulary, 1);
    auto made =
        ln::adapt<typename A::method>(p.base, {.start = ln::prompt_start::text, .text = begin});
    LINNET_REQUIRE_OK(made);
    check_stands_for(*made, p.base);
  };
  check(pair<prompted<small>>());
  check(pair<prompted<learned>>());
}

// The keys and values of real tokens, with the rotations of their places, are a prefix that stands
// for them.
BOOST_AUTO_TEST_CASE(keys_are_tokens) {
  pair<prefixed<small>> p;
  const texts t;
  keys_and_values seen{std::vector<double>(at(prefixed<small>::parameters()))};
  const ln::ops::attention_tap<double> tap{&seen, &keys_and_values::take};
  const ln::limits l{.batch = sequences, .target = front + length};
  std::vector<std::byte> memory(
      at(ln::detail::plan_for<small, double>(l, ln::purpose::scoring).total() + 64));
  void* aligned = memory.data();
  std::size_t space = memory.size();
  BOOST_REQUIRE(std::align(64, memory.size() - 64, aligned, space));
  auto work = ln::detail::place_workspace<small, double>(l, ln::purpose::scoring, aligned);
  ln::ops::execution on;
  on.attention = &tap;
  (void)small::loss<double, ln::storage_of<small, double>>(p.base.tree(), nullptr, t.whole_view(),
                                                           work.work, on);
  BOOST_TEST(seen.layer == small::shape.layers);
  std::copy(seen.all.begin(), seen.all.end(), p.adapter.tree().prefix);
  check_stands_for(p.adapter, p.base);
}

// Gradients and moments are of the virtual tokens alone.
BOOST_AUTO_TEST_CASE(memory) {
  static_assert(prompted<small>::parameters() == 3 * 8);
  static_assert(prefixed<small>::parameters() == 3 * 2 * 2 * 4);
  static_assert(ln::gradients<prompted<small>>::bytes() == ln::round_up(4 * 3 * 8, 64));
  constexpr ln::limits l{.batch = 2, .target = 5}, more{.batch = 2, .target = 8};
  constexpr index extra = ln::trainer<prompted<small>>::footprint(l) -
                          3 * ln::gradients<prompted<small>>::bytes() -
                          ln::packed<prompted<small>>::bytes() -
                          ln::detail::plan_for<small, float>(more, ln::purpose::training).total();
  static_assert(extra > 0 && extra <= 4096);
}

// Steps change the virtual tokens alone, with the same bits on any number of threads, and a run
// that is copied goes on.
BOOST_AUTO_TEST_CASE(training) {
  using Q = coded_decoder;
  const auto codes = random_codes(), before = codes.clone();
  const auto check = [&]<class A>(std::type_identity<A>) {
    using trainer = ln::trainer<A>;
    const auto data = decoder_data<A>(3, 6);
    const ln::adamw fast{.rate = ln::schedule::constant(3e-2)};
    auto whole = ln::adapt<typename A::method>(codes, {}, ln::seed{1});
    auto split = ln::adapt<typename A::method>(codes, {}, ln::seed{2});
    BOOST_REQUIRE(whole && split && !same_bytes(*whole, *split));
    auto one = trainer::open(*whole, data.limits(1), fast);
    auto two = trainer::open(*split, data.limits(3), fast);
    BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(two));
    const double first = one->step(data.view());
    copy_state(*one, *two);
    double last = first;
    for (int i = 0; i < 40; ++i) {
      last = one->step(data.view());
      if (i < 3) BOOST_TEST(two->step(data.view()) == last);
      if (i == 2) BOOST_TEST(same_bytes(*whole, *split));
    }
    BOOST_TEST(last < 0.95 * first, last << " after " << first);
    BOOST_TEST(same_bytes(codes, before));
  };
  check(std::type_identity<prompted<Q>>());
  check(std::type_identity<prefixed<Q>>());
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<learned> w;
  randomize(w);
  const auto base = ln::pack(w);
  const token outside[] = {1, 11};
  BOOST_TEST(message(ln::adapt<ln::prompt_tuning<3>>(
                 base, {.start = ln::prompt_start::text, .text = outside})) ==
             "adapt: prompt_options.text: expected tokens of the vocabulary, got 11");
  BOOST_TEST(message(ln::adapt<ln::prompt_tuning<3>>(base, {.start = ln::prompt_start::text})) ==
             "adapt: prompt_options.text: expected at least one token, got none");
  auto made = ln::adapt<ln::prompt_tuning<3>>(base, {.start = ln::prompt_start::vocabulary});
  LINNET_REQUIRE_OK(made);
  using trainer = ln::trainer<prompted<learned>>;
  BOOST_TEST(message(trainer::open(*made, {.target = 62})) ==
             "trainer::open: limits.target: expected no more than 61, the model's context less the "
             "virtual tokens, got 62");
  // Without a target, texts have what the context leaves.
  auto open = trainer::open(*made, {.threads = 1});
  LINNET_REQUIRE_OK(open);
  const auto fits = tokens(61, 11, 1), over = tokens(62, 11, 1);
  BOOST_TEST(ln::is_finite(open->evaluate({fits.data(), fits.data(), 1, 61}).nats));
  BOOST_TEST(!ln::is_finite(open->evaluate({over.data(), over.data(), 1, 62}).nats));
  ln::weights<prompted<learned>> nobodys;
  BOOST_TEST(message(trainer::open(nobodys, {.target = 5})) ==
             "trainer::open: weights: expected an adapter that adapt() gave its base, got one "
             "without a base");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::virtual_tokens_test
