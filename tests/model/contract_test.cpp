// SPDX-License-Identifier: MIT
// The contract of layers and models: who follows it, and a model from outside of the library that
// says no more than it asks.

#include "support/models.hpp"
#include "support/scoring.hpp"

namespace test::contract_test {

namespace {

using decoder = ln::decoder<tiny_decoder_shape>;

static_assert(ln::decoding_model<decoder>);
static_assert(ln::decoding_model<decoder, double>);
static_assert(ln::decoding_model<decoder::with_storage<ln::storage::int4<>>>);
static_assert(ln::decoding_model<ln::t5<tiny_t5_shape>>);
static_assert(ln::decoding_model<ln::byte_pooled<tiny_decoder_shape>>);
static_assert(!ln::language_model<ln::linear<4, 4>> && !ln::language_model<int>);
static_assert(ln::layer<ln::linear<4, 6>> && ln::layer<decoder::blocks, double, ln::storage::f64>);
static_assert(!ln::layer<decoder> && !ln::layer<int>);
struct forward_only : ln::linear<4, 4> {
  void backward() = delete;
};
static_assert(ln::trainable_layer<decoder::blocks> && ln::layer<forward_only> &&
              !ln::trainable_layer<forward_only>);

constexpr ln::thought_shape thoughts{.vocabulary = 11, .context = 8};
static_assert(ln::decoding_model<ln::next_thought<thoughts>>);
struct scores_alone : ln::next_thought<thoughts> {
  void step() = delete;
};
static_assert(ln::language_model<scores_alone> && !ln::decoding_model<scores_alone>);

/// A decoder behind another name, with no member that the contract does not ask for.
template <class S = ln::storage::f32>
struct stranger : ln::model_defaults {
  using inner = decoder::with_storage<S>;
  using storage = S;
  using batch = ln::decoder_batch;
  template <class Other>
  using with_storage = stranger<Other>;
  static constexpr index vocabulary = inner::vocabulary;
  static constexpr bool causal = true;
  template <class Form>
  using params = typename inner::template params<Form>;
  template <class T>
  using workspace = typename inner::template workspace<T>;

  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    inner::visit(f, at, p...);
  }
  template <class T>
  static constexpr workspace<T> plan(ln::planner& m, const ln::limits& l, ln::purpose use) {
    return inner::template plan<T>(m, l, use);
  }
  template <class Workspace>
  static void prepare(Workspace& w, const ln::limits& l) {
    inner::prepare(w, l);
  }
  static bool accepts(const batch& b, const ln::limits& l) { return inner::accepts(b, l); }
  template <class T, class Store, class Criterion>
  static ln::loss_sum loss(const params<ln::form::packed<T, Store>>& p,
                           params<ln::form::gradient<T>>* dp, const batch& b, workspace<T>& w,
                           const ln::ops::execution& on, const ln::loss_call<T>& call,
                           const Criterion& criterion) {
    return inner::template loss<T, Store>(p, dp, b, w, on, call, criterion);
  }
  template <class T, class Store>
  static void step(const params<ln::form::packed<T, Store>>& p, const ln::step_call& call,
                   workspace<T>& w, const ln::ops::execution& on) {
    inner::template step<T, Store>(p, call, w, on);
  }
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const ln::state_part& part) {
    inner::copy_state(w, from, to, part);
  }
  static constexpr index longest(const ln::limits& l) { return inner::longest(l); }
  static constexpr index flops(index batch_size, index length) {
    return inner::flops(batch_size, length);
  }
  static constexpr ln::limits_refusal check_limits(const ln::limits& l) {
    return l.target == 13 ? ln::limits_refusal{"limits.target", "no unlucky number", l.target}
                          : inner::check_limits(l);
  }
  template <class F>
  static void describe(F&& f) {
    f("name", "stranger");
    f("half", 0.5);
  }
};
using outside = stranger<>;
static_assert(ln::decoding_model<outside> && ln::decoding_model<stranger<ln::storage::int8>>);

/// What a model makes of a course, and says then in f32 and in int8.
template <class M>
struct findings {
  std::vector<double> losses;
  std::vector<token> said, said_int8;
};
template <class M>
findings<M> study() {
  findings<M> found;
  const auto data = decoder_tokens(2, 8, M::vocabulary);
  ln::weights<M> w;
  ln::initialize(w, ln::seed{3});
  auto train = ln::trainer<M>::open(w, {.batch = 2, .target = 8}, {}, {.dropout = 0.1});
  BOOST_REQUIRE(static_cast<bool>(train));
  for (int i = 0; i < 3; ++i) found.losses.push_back(train->step(data.view()));
  const auto say = [&](const auto& weights, std::vector<token>& said) {
    using model = typename std::remove_cvref_t<decltype(weights)>::model;
    const auto packed = ln::pack(weights);
    auto scored = ln::evaluator<model>::open(packed, {.batch = 2, .target = 8});
    BOOST_REQUIRE(static_cast<bool>(scored));
    found.losses.push_back(scored->loss(data.view()).nats);
    auto s = ln::session<model>::open(packed, {.batch = 2, .target = 16, .kv_blocks = 4});
    BOOST_REQUIRE(static_cast<bool>(s));
    const token prompt[] = {1, 2, 3};
    s->generate(prompt, ln::greedy{}, [&](token t) { said.push_back(t); }, {.tokens = 6});
    BOOST_TEST(s->fork(0, 1));
    const token pair[] = {1, 1};
    const auto logits = s->feed(pair, 2, {});
    BOOST_REQUIRE(logits.size() == 2 * std::size_t(M::vocabulary));
    BOOST_TEST(
        std::equal(logits.begin(), logits.begin() + M::vocabulary, logits.begin() + M::vocabulary));
  };
  say(w, found.said);
  say(ln::quantize<ln::storage::int8>(w), found.said_int8);
  return found;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(contract)

BOOST_AUTO_TEST_CASE(a_model_from_outside_gives_the_same_numbers) {
  const auto want = study<decoder>();
  const auto got = study<outside>();
  BOOST_TEST(got.losses == want.losses, boost::test_tools::per_element());
  BOOST_TEST(want.losses.size() == 5);
  BOOST_TEST(!want.said.empty());
  BOOST_TEST(got.said == want.said, boost::test_tools::per_element());
  BOOST_TEST(got.said_int8 == want.said_int8, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(it_has_its_own_rules_for_limits) {
  ln::packed<outside> p;
  BOOST_TEST(ln::session<outside>::open(p, {.target = 13}).error().message() ==
             "session::open: limits.target: expected no unlucky number, got 13");
  BOOST_TEST(ln::evaluator<outside>::open(p, {.target = 13}).error().message() ==
             "evaluator::open: limits.target: expected no unlucky number, got 13");
  BOOST_TEST(static_cast<bool>(ln::evaluator<outside>::open(p, {.target = 12})));
}

// Its accepts() gives no reason, so the refusal has none.
BOOST_AUTO_TEST_CASE(it_may_refuse_batches_without_a_reason) {
  const auto data = decoder_tokens(2, 8, outside::vocabulary);
  const auto p = random_packed<outside, float>();
  auto scored = ln::evaluator<outside>::open(p, {.batch = 1, .target = 8});
  BOOST_REQUIRE(static_cast<bool>(scored));
  BOOST_TEST(!ln::is_finite(scored->loss(data.view()).nats));
  BOOST_TEST(scored->last_refusal() == ln::to_string(ln::refusal::batch));
}

BOOST_AUTO_TEST_CASE(without_early_exits_it_trains_none) {
  ln::weights<outside> w;
  BOOST_TEST(ln::trainer<outside>::open(w, {.target = 8}, {}, {.early_exits = {.scale = 0.5}})
                 .error()
                 .message() ==
             "trainer::open: training_options.early_exits.scale: expected 0, as this model has no "
             "early exits, got 0.5");
}

BOOST_AUTO_TEST_CASE(a_layer_runs_alone) {
  ln::layer_runner<ln::linear<3, 2>> alone({.length = 1, .training = true});
  BOOST_REQUIRE(alone.valid());
  const float w[] = {1, 2, 3, 4, 5, 6}, x[] = {1, 10, 100}, dy[] = {1, -1};
  std::copy_n(w, 6, alone.weights.tree().weight.data);
  ln::context<float> ctx;
  ctx.length = 1;
  float y[2] = {}, dx[] = {1000, 1000, 1000};
  alone.forward(x, y, ctx);
  BOOST_TEST((y[0] == 0 && y[1] == 0));  // nothing is packed yet
  alone.pack();
  for (int twice = 0; twice < 2; ++twice) {
    alone.forward(x, y, ctx);
    alone.backward(x, dy, dx, ctx);
  }
  BOOST_TEST((y[0] == 321 && y[1] == 654));
  BOOST_TEST((dx[0] == 994 && dx[1] == 994 && dx[2] == 994));
  const float* const dw = alone.gradients.tree().weight;
  BOOST_TEST((dw[0] == 2 && dw[2] == 200 && dw[3] == -2 && dw[5] == -200));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::contract_test
