// SPDX-License-Identifier: MIT
// Low-rank deltas that one router chooses for all layers of a token: every parameter by central
// differences, one expert as lora, a choice that is merged into the base, and sessions whose tokens
// keep their gates.

#include "support/adapters.hpp"

namespace test::lora_switch_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using learned = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                            ln::ffn::gelu_tanh, ln::bias::all>;
template <class M, index Experts, index Rank, index Top, class Targets = ln::all_linear>
using routed = ln::adapted<M, ln::lora_switch<Experts, Rank, Top, Targets>>;

template <class M>
double loss_of(const ln::packed<M, double>& p, const ln::decoder_batch& b, int threads = 1) {
  auto e = ln::evaluator<M, double>::open(
      p, {.batch = b.batch, .target = b.length, .threads = threads, .min_flops_per_thread = 0});
  LINNET_REQUIRE_OK(e);
  return e->loss(b).nats;
}

template <class A>
void check(const ln::lora_options& how, double dropout = 0) {
  adapted_pair<A> p(how);
  const auto data = decoder_data<A>();
  BOOST_TEST(loss_of(ln::pack(p.adapter), data.view()) == loss_of(p.base, data.view()));
  randomize(p.adapter, 2);
  check_weights(p.adapter, data, dropout, 0, 3);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(lora_switches)

BOOST_AUTO_TEST_CASE(gradients) {
  check<routed<small, 3, 2, 2>>({.alpha = 3});
  check<routed<learned, 3, 2, 1>>({.alpha = 3, .rslora = true, .dropout = 0.25}, 0.25);
  check<routed<small, 2, 1, 2, ln::target_modules<"o", "v">>>({});
  check<routed<small, 2, 1, 1, ln::target_modules<"up", "gate", "down">>>({});
}

BOOST_AUTO_TEST_CASE(sizes) {
  using A = routed<small, 3, 2, 2>;
  static_assert(A::routed.first == 3 && A::routed.columns == 8);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"o", "v">>::routed.first == 1);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"up", "gate">>::routed.first == 2);
  static_assert(routed<small, 2, 1, 2, ln::target_modules<"down">>::routed.first == 1);
  static_assert(routed<learned, 2, 1, 2>::routed.first == 3);
  static_assert(A::parameters() == 3 * 8 + ln::adapted<small, ln::lora<6>>::parameters());
}

BOOST_AUTO_TEST_CASE(one_expert_is_lora) {
  ln::weights<small, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto one = ln::adapt<ln::lora_switch<1, 2, 1>>(base, {.alpha = 3});
  auto plain = ln::adapt<ln::lora<2>>(base, {.alpha = 3});
  BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(plain));
  randomize(*one, 2);
  one->visit([&](const ln::parameter_path& from, const ln::tensor_info& info, const auto& leaf) {
    plain->visit([&](const ln::parameter_path& to, const ln::tensor_info&, auto& other) {
      if (to.str() == from.str()) std::copy_n(values_of(leaf), info.size(), values_of(other));
    });
  });
  const auto data = decoder_data<small>();
  BOOST_TEST(loss_of(ln::pack(*one), data.view()) == loss_of(ln::pack(*plain), data.view()));
}

// Where all tokens of a text are the same, all have the gates of that token's embedding behind the
// first norm. The deltas of such a choice are merged into the base's weights, as lora's are.
BOOST_AUTO_TEST_CASE(a_choice_is_merged) {
  constexpr index experts = 3, rank = 2, d = small::d;
  ln::weights<small, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto adapter = ln::adapt<ln::lora_switch<experts, rank, 2>>(base, {.alpha = 3});
  LINNET_REQUIRE_OK(adapter);
  randomize(*adapter, 2);
  const auto packed = ln::pack(*adapter);
  const double* scale = nullptr;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto& leaf) {
    if (at.str() == "blocks.0.attention.norm.weight") scale = values_of(leaf);
  });
  BOOST_REQUIRE(scale != nullptr);
  std::vector<std::vector<double>> seen;
  for (token t = 0; t < 6; ++t) {
    // The gates of the token, by hand.
    const double* const x = w.tree().embedding.data + t * d;
    double square = 0, scores[experts], sum = 0;
    for (index j = 0; j < d; ++j) square += x[j] * x[j];
    for (index e = 0; e < experts; ++e) {
      scores[e] = 0;
      for (index j = 0; j < d; ++j)
        scores[e] += adapter->tree().router.data[e * d + j] * x[j] * scale[j] /
                     std::sqrt(square / d + small::shape.eps);
      sum += scores[e] = std::exp(scores[e]);
    }
    std::vector<double> gates(experts);
    const auto least = std::min_element(scores, scores + experts) - scores;
    for (index e = 0; e < experts; ++e) gates[at(e)] = e == least ? 0 : scores[e] / sum;
    seen.push_back(gates);
    // lora of all experts' ranks: A as it is, B by the gates; its scale is that of all ranks.
    auto merged = ln::adapt<ln::lora<experts * rank>>(base, {.alpha = 3 * experts});
    LINNET_REQUIRE_OK(merged);
    adapter->visit(
        [&](const ln::parameter_path& from, const ln::tensor_info& info, const auto& leaf) {
          merged->visit([&](const ln::parameter_path& to, const ln::tensor_info&, auto& other) {
            if (to.str() != from.str()) return;
            const bool b = from.parent->name == "lora_B";
            for (index i = 0; i < info.size(); ++i)
              values_of(other)[i] =
                  values_of(leaf)[i] * (b ? gates[at(i % (experts * rank) / rank)] : 1);
          });
        });
    auto sums = w.clone();
    LINNET_REQUIRE_OK(ln::merge(sums, *merged));
    const std::vector<token> text(5, t), labels = tokens(5, small::vocabulary, 3);
    const ln::decoder_batch batch{text.data(), labels.data(), 1, 5};
    const double want = loss_of(ln::pack(sums), batch);
    BOOST_TEST(std::abs(loss_of(packed, batch) - want) <= 1e-12 * want);
    BOOST_TEST(std::abs(loss_of(base, batch) - want) > 1e-3);
  }
  BOOST_TEST((seen[0] != seen[1] && seen[1] != seen[2]));
  // All texts at once, on three threads.
  std::vector<token> all, labels;
  double want = 0;
  for (token t = 0; t < 6; ++t) {
    const std::vector<token> text(5, t), of = tokens(5, small::vocabulary, 3);
    want += loss_of(packed, {text.data(), of.data(), 1, 5});
    all.insert(all.end(), text.begin(), text.end());
    labels.insert(labels.end(), of.begin(), of.end());
  }
  BOOST_TEST(std::abs(loss_of(packed, {all.data(), labels.data(), 6, 5}, 3) - want) <=
             1e-12 * want);
}

// Three sequences, two of them with unlike adapters, have the evaluator's logits of each text: in
// parts of any length, on any number of threads, behind a fork and in a paged cache.
BOOST_AUTO_TEST_CASE(sessions) {
  using one = routed<small, 3, 2, 2>;
  using two = routed<small, 2, 1, 1, ln::target_modules<"up", "gate", "down">>;
  constexpr index n = 7, words = small::vocabulary;
  adapted_pair<one> p(ln::lora_options{.alpha = 6});
  auto second = ln::adapt<two::method>(p.base, {.alpha = 5});
  LINNET_REQUIRE_OK(second);
  randomize(p.adapter, 2);
  randomize(*second, 3);
  const auto first = ln::pack(p.adapter);
  const auto other = ln::pack(*second);
  std::vector<token> texts;  // [3, n]
  std::vector<double> want;  // [3, n, words]
  const auto judge = [&](const auto& packed) {
    using M = typename std::remove_cvref_t<decltype(packed)>::model;
    const auto text = tokens(n, words, 40 + texts.size()), labels = tokens(n, words, 3);
    std::vector<double> logits(at(n * words));
    auto e = ln::evaluator<M, double>::open(packed, {.target = n});
    LINNET_REQUIRE_OK(e);
    (void)e->loss({text.data(), labels.data(), 1, n}, logits);
    texts.insert(texts.end(), text.begin(), text.end());
    want.insert(want.end(), logits.begin(), logits.end());
  };
  judge(first);
  judge(other);
  judge(p.base);

  for (const index chunk : {1, 3, 7})
    for (const int threads : {1, 3})
      for (const index blocks : {0, 3}) {
        const ln::limits l{.batch = 3,
                           .target = n,
                           .chunk = chunk,
                           .kv_blocks = blocks,
                           .threads = threads,
                           .min_flops_per_thread = 0,
                           .max_logits = chunk};
        auto s = ln::session<small, double>::open(p.base, l);
        auto gates = ln::switch_gates<one, double>::open(first, l);
        auto of_other = ln::switch_gates<two, double>::open(other, l);
        BOOST_REQUIRE(s && gates && of_other);
        BOOST_TEST(gates->rows() == 3 * chunk);
        BOOST_REQUIRE(s->set_adapter(0, *gates) && s->set_adapter(1, *of_other));
        double most = 0;
        for (index from = 0; from < n; from += chunk) {
          const index part = std::min(chunk, n - from);
          std::vector<token> fed;
          for (index b = 0; b < 3; ++b)
            fed.insert(fed.end(), texts.begin() + b * n + from,
                       texts.begin() + b * n + from + part);
          const auto got = s->feed_all(fed, 3, {});
          BOOST_REQUIRE(std::ssize(got) == 3 * part * words);
          for (index b = 0; b < 3; ++b)
            for (index i = 0; i < part * words; ++i)
              most = std::max(most, std::abs(got[at(b * part * words + i)] -
                                             want[at((b * n + from) * words + i)]));
        }
        BOOST_TEST(most <= 1e-12);
        // Sequence 2 goes on where 0 was before its last token, with the adapter of that.
        BOOST_REQUIRE((s->truncate(n - 1, 0) && s->fork(0, 2) && s->truncate(n - 1, 1)));
        const std::vector<token> last{texts[at(n - 1)], texts[at(2 * n - 1)], texts[at(n - 1)]};
        const auto got = s->feed(last, 3, {});
        BOOST_REQUIRE(std::ssize(got) == 3 * words);
        for (index i = 0; i < words; ++i)
          for (const index b : {0, 1, 2})
            BOOST_TEST(std::abs(got[at(b * words + i)] -
                                want[at(((b == 1) * n + n - 1) * words + i)]) <= 1e-12);
      }
}

BOOST_AUTO_TEST_CASE(refused_by_sessions) {
  using A = routed<small, 3, 2, 2>;
  adapted_pair<A> p, other;
  const auto mine = ln::pack(p.adapter), theirs = ln::pack(other.adapter);
  const ln::limits l{.batch = 2, .target = 8, .chunk = 4, .max_logits = 3};
  auto s = ln::session<small, double>::open(p.base, l);
  LINNET_REQUIRE_OK(s);
  const auto refused = [&](const ln::packed<A, double>& from, const ln::limits& of,
                           ln::refusal why) {
    auto gates = ln::switch_gates<A, double>::open(from, of);
    LINNET_REQUIRE_OK(gates);
    BOOST_TEST(!s->set_adapter(0, *gates));
    BOOST_TEST(s->last_refusal() == ln::to_string(why));
  };
  refused(mine, {.batch = 2, .target = 8, .chunk = 3}, ln::refusal::few_gates);
  refused(mine, {.target = 7}, ln::refusal::few_gates);
  refused(theirs, l, ln::refusal::other_base);
  auto gates = ln::switch_gates<A, double>::open(mine, l);
  LINNET_REQUIRE_OK(gates);
  BOOST_REQUIRE(s->set_adapter(0, *gates));
  const ln::limits none{.batch = 0};
  const auto wrong = ln::switch_gates<A, double>::open(mine, none);
  BOOST_TEST(!wrong);
  BOOST_TEST(wrong.error().what == "limits.batch");
  // Layers that check drafts have no gates of them.
  auto drafts = ln::self_speculative<small, double>::open(*s, 1, 2);
  LINNET_REQUIRE_OK(drafts);
  const std::vector<token> prompt{1, 2};
  const auto nobody = [](token) { BOOST_ERROR("no token was to come"); };
  BOOST_TEST(drafts->generate(prompt, ln::greedy{}, nobody, {.tokens = 3}) == 0);
  BOOST_TEST(drafts->last_refusal() == ln::to_string(ln::refusal::switch_drafts));
  BOOST_REQUIRE(s->clear_adapter(0));
  BOOST_TEST(drafts->generate(prompt, ln::greedy{}, [](token) {}, {.tokens = 3}) == 3);
}

// On codes: steps change the adapter alone, with the same bits on any number of threads, also where
// layers are computed again.
BOOST_AUTO_TEST_CASE(training) {
  using A = routed<coded_decoder, 3, 2, 2>;
  const auto base = random_codes();
  (void)check_adapter_training<A>(base,
                                  {.rate = 1e-2, .steps = 30, .most = 0.9, .recompute = true});
  // Layer dropout leaves tokens out of some layers.
  auto adapter = ln::adapt<A::method>(base);
  LINNET_REQUIRE_OK(adapter);
  const auto data = decoder_data<A>();
  auto train = ln::trainer<A>::open(*adapter, data.limits(), {}, {.layer_dropout = {.rate = 0.1}});
  LINNET_REQUIRE_OK(train);
  BOOST_TEST(ln::is_nan(train->step(data.view())));
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::switch_layer_dropout));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::lora_switch_test
