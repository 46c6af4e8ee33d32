// SPDX-License-Identifier: MIT
// Mixture of depths in whole models: gradients, sessions, what looks ahead and what does not.

#include <cmath>

#include "support/decoding.hpp"

namespace test::mixture_of_depths_test {

namespace {

namespace depths = ln::depths;
namespace zoo = ln::zoo;

template <class... Policies>
using tiny = ln::decoder<tiny_decoder_shape, Policies...>;
constexpr auto by_router = depths::decision::router, by_predictor = depths::decision::predictor;
using routed = tiny<depths::mixture_of_depths<0.5, 2, by_router, 0.0>>;
using weighted = tiny<depths::mixture_of_depths<0.5, 2, by_router, 0.3>>;
using predicted = tiny<depths::mixture_of_depths<0.5, 1, by_predictor, 0.3>, ln::position::learned,
                       ln::norm::layer_norm, ln::bias::all>;

/// Four layers of which the second and the fourth are routed.
constexpr ln::decoder_shape four_layers = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 4;
  return s;
}();
using deep = ln::decoder<four_layers, depths::mixture_of_depths<0.5>>;
using five = ln::decoder<[] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 5;
  return s;
}(),
                         depths::mixture_of_depths<0.5>>;

// Presets: a router of d_model numbers for every second block, and half of the blocks' work.
static_assert(zoo::stlm_10m_mod::parameters() == zoo::stlm_10m::parameters() + 9 * 128 &&
              zoo::stlm_10m_mod::parameters() == 9'977'728);
static_assert(zoo::stlm_50m_mod::parameters() == zoo::stlm_50m::parameters() + 5 * 512 &&
              zoo::stlm_50m_mod::parameters() == 55'891'456);
constexpr index stlm_block(index tokens) {  // of stlm_50m
  return tokens * 2 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1536) + 4 * tokens * tokens * 512;
}
constexpr index stlm_head(index tokens) { return 2 * tokens * 512 * 50257; }
static_assert(zoo::stlm_50m::flops(1, 512) == 10 * stlm_block(512) + stlm_head(512));
static_assert(zoo::stlm_50m_mod::flops(1, 512) ==
              5 * (stlm_block(512) + stlm_block(64) + 2 * 512 * 512) + stlm_head(512));
static_assert(routed::can_truncate && !routed::evicts);
// The order of policies makes no second type, and no policy of depth is depths::all.
static_assert(std::is_same_v<tiny<ln::ffn::relu, depths::mixture_of_depths<>>,
                             tiny<depths::mixture_of_depths<0.125, 2>, ln::ffn::relu>>);
static_assert(std::is_same_v<tiny<depths::all>, tiny<>>);

/// Logits of [batch, length] tokens by an evaluator.
template <class M, class T>
std::vector<T> scored(const ln::packed<M, T>& p, const decoder_tokens& data, int threads = 1) {
  return logits_of(p, data.view(), data.limits(threads));
}
/// Predictors of random weights that say yes to some tokens and no to others.
template <class M, class T>
ln::packed<M, T> some_packed() {
  ln::weights<M, T> w;
  randomize(w, 3);
  return ln::pack(w);
}

/// How many of the tokens enter each routed block, without a look ahead.
template <class M>
std::vector<index> entering(const ln::packed<M, double>& p, const decoder_tokens& data) {
  const ln::limits l = data.limits();
  ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total());
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, memory.data()).work;
  ln::ops::execution on{ln::team{}, ln::simd::best()};
  // Blocks share memory, so that only the last one's counts remain.
  (void)M::template loss<double, ln::storage::f64>(p.tree(), nullptr, data.view(), work, on);
  const auto& last = work.stack.others.back();
  return {last.counts, last.counts + data.batch};
}

/// A session fed in parts of any size, alone or among others, gives what an evaluator gives.
template <class M>
void check_session() {
  constexpr index length = 24;
  const auto p = some_packed<M, double>();
  const decoder_tokens data(3, length, M::vocabulary, 5);
  index entered = 0;
  for (const index n : entering(p, data)) entered += n;
  BOOST_TEST(entered > length / 2);
  BOOST_TEST(entered < 3 * length - length / 2);
  const auto logits = scored(p, data);
  for (const index part : {index{1}, index{2}, index{5}, length}) {
    auto s = opened(p, {.batch = 3,
                        .target = length,
                        .threads = 2,
                        .min_flops_per_thread = 0,
                        .max_logits = part});
    for (index t = 0; t < length; t += part) {
      const index wide = std::min(part, length - t);
      std::vector<token> more;
      for (index b = 0; b < 3; ++b)
        for (index i = 0; i < wide; ++i) more.push_back(data.inputs[at(b * length + t + i)]);
      const auto fed = s.feed_all(more, 3, {});
      BOOST_REQUIRE(fed.size() == at(3 * wide * M::vocabulary));
      for (index b = 0; b < 3; ++b)
        for (index i = 0; i < wide; ++i)
          BOOST_TEST(distance(fed.subspan(at((b * wide + i) * M::vocabulary), at(M::vocabulary)),
                              row_of<M>(logits, b * length + t + i)) <= 1e-12,
                     "parts of " << part << ", token " << t + i << " of " << b);
    }
    // Taken back and told otherwise, by another sequence that continues here.
    const auto next = tokens(8, M::vocabulary, 6);
    for (const index left : {length - 8, index{7}, index{0}}) {
      BOOST_REQUIRE(s.truncate(left, 1));
      auto other = opened(p, {.target = length});
      const auto begin = std::span(data.inputs).subspan(at(length), at(left));
      if (left > 0) BOOST_REQUIRE(!other.feed(begin).empty());
      BOOST_REQUIRE(s.fork(1, 0));
      BOOST_TEST(distance(s.feed(next), other.feed(next)) <= 1e-12);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_of_depths)

BOOST_AUTO_TEST_CASE(gradients) {
  check_model<routed>(decoder_data<routed>(2, 7));
  check_model<routed>(decoder_data<routed>(2, 7), 0.25);
}

// The whole of what training follows, by central differences: the loss of the language model, and
// 0.3 times the cross-entropy of the router, which is not in the loss that is reported.
BOOST_AUTO_TEST_CASE(gradients_of_both_losses) {
  using M = weighted;
  using S = ln::storage::f64;
  const decoder_tokens data(2, 7, M::vocabulary);
  const ln::limits l = data.limits();
  ln::weights<M, double> w;
  randomize(w);
  ln::packed<M, double> p;
  ln::gradients<M, double> g;
  ln::detail::attach_rows<M>(w, p);
  ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::training).total());
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::training, memory.data()).work;
  const ln::ops::execution on{ln::team{}, ln::simd::best()};
  const auto run = [&](auto* gradients) {
    ln::detail::pack_into(on, w, p);
    return M::template loss<double, S>(p.tree(), gradients, data.view(), work, on).nats;
  };
  const double reported = run(&g.tree());
  const auto both = [&] {
    double sum = run(static_cast<M::params<ln::form::gradient<double>>*>(nullptr));
    const auto& block = work.stack.others[0];
    for (index b = 0; b < 2; ++b) {
      double entropy = 0;
      for (index t = 0; t < 7; ++t) entropy += std::log1p(std::exp(block.r[b * 7 + t]));
      BOOST_REQUIRE(block.counts[b] == 4);
      for (index i = 0; i < 4; ++i) entropy -= block.r[b * 7 + block.chosen[b * 4 + i]];
      sum += 0.3 * entropy;
    }
    return sum;
  };
  BOOST_TEST(both() > reported + 0.1);
  ln::gradient_report report;
  ln::detail::compare_parameters(w, g, 1e-5, report, both);
  BOOST_TEST(report.passed(), text_of(report));
  BOOST_TEST(report.entries == M::parameters());
  // What is reported is what a model without the other loss reports.
  ln::weights<routed, double> v;
  randomize(v);
  auto plain = ln::trainer<routed, ln::adamw, double>::open(v, l);
  BOOST_REQUIRE(static_cast<bool>(plain));
  BOOST_TEST(distance_of(plain->evaluate(data.view()).nats, reported) <= 1e-12);
}

BOOST_AUTO_TEST_CASE(sessions) {
  check_session<deep>();
  check_session<predicted>();
}

// An evaluator never looks ahead: later tokens change no bit of earlier logits. Training does.
BOOST_AUTO_TEST_CASE(what_looks_ahead) {
  using M = deep;
  constexpr index length = 12;
  ln::weights<M, double> w;
  randomize(w, 3);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, {.target = length});
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto p = ln::pack(w);
  decoder_tokens data(1, length, M::vocabulary, 2);
  const auto trained = [&] {
    std::vector<double> logits(at(length * M::vocabulary));
    (void)train->evaluate(data.view(), logits);
    return logits;
  };
  const auto first = scored(p, data), seen = trained();
  index differ = 0;
  for (token last = 0; last < M::vocabulary; ++last) {
    for (index t = 6; t < length; ++t) data.inputs[at(t)] = (last + static_cast<token>(t)) % 11;
    const auto head = [](const std::vector<double>& x) {
      return std::span(x).first(at(6 * M::vocabulary));
    };
    BOOST_TEST(same_bits(head(first), head(scored(p, data))));
    differ += !same_bits(head(seen), head(trained()));
  }
  BOOST_TEST(differ > 0);
}

// Training takes the same steps on any number of threads, and its routers come to agree with what
// was chosen, so that an evaluator sees what training sees.
BOOST_AUTO_TEST_CASE(training) {
  using M = ln::decoder<four_layers, depths::mixture_of_depths<0.25, 2, by_router, 0.1>>;
  const decoder_tokens data(2, 16, M::vocabulary, 2);
  const auto trained = [&](int threads) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{1});
    auto t = ln::trainer<M>::open(w, data.limits(threads), {}, {.dropout = 0.1});
    BOOST_REQUIRE(static_cast<bool>(t));
    for (int i = 0; i < 10; ++i) (void)t->step(data.view());
    return w;
  };
  const auto one = trained(1);
  for (const int threads : {2, 3}) BOOST_TEST(same_bytes(one, trained(threads)));
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  auto t = ln::trainer<M>::open(w, data.limits(), {.rate = ln::schedule::constant(0.01)});
  BOOST_REQUIRE(static_cast<bool>(t));
  const double before = t->evaluate(data.view()).mean();
  for (int i = 0; i < 300; ++i) (void)t->step(data.view());
  const double after = t->evaluate(data.view()).mean();
  auto e = ln::evaluator<M>::open(t->current(), data.limits());
  BOOST_REQUIRE(static_cast<bool>(e));
  BOOST_TEST(after < 0.2 * before);
  BOOST_TEST(e->loss(data.view()).mean() < 0.25 * before);
}

// Caches in fewer bits hold the chosen tokens as they would all.
BOOST_AUTO_TEST_CASE(caches_in_fewer_bits) {
  const auto last = [](auto model, std::span<const token> text, index part) {
    using M = typename decltype(model)::type;
    ln::weights<M> w;
    randomize(w, 3);
    const auto p = ln::pack(w);
    auto s = opened(p, {.target = 64});
    std::span<float> logits;
    for (; !text.empty(); text = text.subspan(at(part))) logits = s.feed(text.first(at(part)));
    return std::vector<float>(logits.begin(), logits.end());
  };
  const auto text = tokens(60, 11, 4);
  const auto exact = last(std::type_identity<deep>{}, text, 60);
  const auto check = [&](auto model, double bound) {
    const auto whole = last(model, text, 60);
    BOOST_TEST(distance(exact, whole) <= bound * magnitude(exact));
    BOOST_TEST(distance(exact, whole) > 0);
    for (const index part : {1, 6})
      BOOST_TEST(distance(last(model, text, part), whole) <= 1e-5 * magnitude(exact));
  };
  check(std::type_identity<deep::with_cache<ln::kv::int8>>{}, 0.05);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = some_packed<routed, float>();
  const auto s = ln::session<routed>::open(p, {.target = 32, .kv_blocks = 4});
  BOOST_REQUIRE(!s);
  BOOST_TEST(
      s.error().message() ==
      "session::open: limits.kv_blocks: expected 0, as a mixture of depths is not paged, got "
      "4");
}

// Files say what the mixture is, but not how its router was trained.
BOOST_AUTO_TEST_CASE(metadata) {
  const auto depth_of = [](const std::vector<ln::detail::key_value>& all) {
    for (const auto& one : all)
      if (one.key == "depths") return one.value;
    return std::string("none");
  };
  BOOST_TEST(depth_of(ln::detail::metadata_of<tiny<depths::mixture_of_depths<>>>()) ==
             "mixture<0.125, 2, router>");
  BOOST_TEST(depth_of(ln::detail::metadata_of<predicted>()) == "mixture<0.5, 1, predictor>");
  BOOST_TEST(depth_of(ln::detail::metadata_of<weighted>()) ==
             depth_of(ln::detail::metadata_of<routed>()));
  BOOST_TEST(depth_of(ln::detail::metadata_of<tiny<>>()) == "none");
}

// Blocks are named by their place in the stack, routed or not.
BOOST_AUTO_TEST_CASE(names) {
  std::string routers;
  index blocks = 0;
  ln::each_tensor<five>([&](const ln::parameter_path& where, const ln::tensor_info&) {
    const std::string name = where.str();
    if (name.ends_with("router.weight")) routers += name + ' ';
    if (name == "blocks." + std::to_string(blocks) + ".attention.norm.weight") ++blocks;
  });
  BOOST_TEST(routers == "blocks.1.router.weight blocks.3.router.weight ");
  BOOST_TEST(blocks == 5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mixture_of_depths_test
