// SPDX-License-Identifier: MIT
// Sequences that continue where others are, and the logits of every token fed.

#include "support/decoding.hpp"

namespace test::fork_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape>;
using gpt2 = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                         ln::ffn::gelu_tanh, ln::bias::all>;

// States that are summaries, groups of tokens, and a ring that is used again.
using mamba =
    ln::decoder<tiny_decoder_shape, ln::mixer::mamba<3, 3>, ln::ffn::skip, ln::position::none>;
using linear = ln::decoder<tiny_decoder_shape, ln::attention::linear<>>;
using rwkv4 = ln::rwkv4<tiny_rwkv7_shape>;
using rwkv7 = ln::rwkv7<tiny_rwkv7_shape>;
using hashed = ln::decoder<tiny_decoder_shape, ln::attention::lsh<2, 2>>;
using routed = ln::decoder<tiny_decoder_shape, ln::attention::routing<3, 2>>;
using mixture = ln::decoder<tiny_decoder_shape, ln::depths::mixture_of_depths<0.5>>;
using prefixed = ln::decoder<tiny_decoder_shape, ln::attention::prefix>;
using window = ln::decoder<tiny_decoder_shape, ln::attention::sliding_window<3>>;

/// Random calls on a batch, each result compared with the same text read anew.
template <class M, index Capacity = 12, index Chunk = 0>
struct random_calls {
  static constexpr bool encodes = M::encodes;
  static constexpr index batch = 4, capacity = Capacity;
  ln::packed<M, double> p = random_packed<M, double>(3);
  ln::session<M, double> s =
      opened(p, {.batch = batch, .source = 7, .target = capacity, .chunk = Chunk});
  anew<M, double> read{p, 7, capacity};
  ln::random_stream random{ln::seed{11}};
  struct sequence {
    std::vector<token> source, text;
    index longest = 0;  ///< since nothing was left of it
  };
  std::vector<sequence> all{at(batch)};
  long forks = 0, feeds = 0;

  index below(index n) { return random.below(static_cast<std::uint32_t>(n)); }
  std::vector<token> some(index n) { return tokens(n, M::vocabulary, random.bits()); }

  void start() {
    s.reset();
    for (auto& a : all) a.text.clear(), a.longest = 0;
    if constexpr (encodes) {
      const index sources = 1 + below(batch), wide = 2 + below(6);
      std::vector<token> padded = some(sources * wide);
      std::vector<index> lengths;
      for (index b = 0; b < sources; ++b) {
        lengths.push_back(1 + below(wide));
        all[at(b)].source.assign(padded.begin() + b * wide,
                                 padded.begin() + b * wide + lengths.back());
      }
      BOOST_REQUIRE(s.encode(padded, sources, lengths));
      for (index b = sources; b < batch; ++b) fork(0, b);
    }
  }
  void fork(index from, index to) {
    BOOST_REQUIRE(s.fork(from, to));
    all[at(to)] = all[at(from)];
    ++forks;
  }
  /// Expected logits of sequence b.
  std::vector<double> expected(const sequence& a) {
    std::span<double> l;
    if constexpr (encodes) {
      // `anew` feeds the start token first, so the text has to begin with it.
      l = read(a.source, std::span(a.text).subspan(1));
    } else {
      l = read(a.text, {});
    }
    return {l.begin(), l.end()};
  }
  void feed() {
    const index count = 1 + below(batch), wide = 1 + below(3);
    for (index b = 0; b < count; ++b)
      if (std::ssize(all[at(b)].text) + wide > capacity) return;
    std::vector<token> more = some(count * wide);
    std::vector<index> lengths;
    for (index b = 0; b < count; ++b) {
      if (encodes && all[at(b)].text.empty()) more[at(b * wide)] = 0;  // the start token
      lengths.push_back(1 + below(wide));
      for (index i = 0; i < lengths.back(); ++i) all[at(b)].text.push_back(more[at(b * wide + i)]);
      all[at(b)].longest = (std::max)(all[at(b)].longest, std::ssize(all[at(b)].text));
    }
    const auto logits = s.feed(more, count, lengths);
    BOOST_REQUIRE(logits.size() == at(count * M::vocabulary));
    for (index b = 0; b < count; ++b) {
      const auto& text = all[at(b)].text;
      BOOST_REQUIRE(s.position(b) == std::ssize(text));
      BOOST_TEST(std::equal(text.begin(), text.end(), s.fed(b).begin(), s.fed(b).end()));
      BOOST_TEST(distance(logits.subspan(at(b * M::vocabulary), at(M::vocabulary)),
                          expected(all[at(b)])) <= same_result<double>);
    }
    ++feeds;
  }
  /// Exactly what is behind the longest text by no more than can be taken back.
  void truncate(sequence& a, index b, index length) {
    const bool can =
        length <= std::ssize(a.text) && (length == 0 || a.longest - length <= s.max_truncation());
    BOOST_TEST(s.truncate(length, b) == can);
    if (!can) return;
    a.text.resize(at(length));
    if (length == 0) a.longest = 0;
  }
  void run(int rounds = 40) {
    for (int round = 0; round < rounds; ++round) {
      start();
      for (index i = 0; i < 2 * capacity; ++i) {
        const index what = below(4);
        if (what == 0) {
          fork(below(batch), below(batch));
        } else if (what == 1) {
          const index b = below(batch);
          const index far = std::ssize(all[at(b)].text) - below(8);
          if constexpr (M::can_truncate)
            truncate(all[at(b)], b, below(8) == 0 ? 0 : (std::max)(far, index{0}));
        } else {
          feed();
        }
      }
    }
    BOOST_TEST(forks > 100);
    BOOST_TEST(feeds > 100);
    BOOST_TEST(!s.fork(0, batch));
    BOOST_TEST(!s.fork(-1, 0));
  }
};

/// feed_all() gives for each token what feed() gives after it.
template <class M, class T>
void check_feed_all(int threads) {
  const auto p = random_packed<M, T>(4);
  auto s = opened(p, {.batch = 3,
                      .source = 7,
                      .target = 20,
                      .threads = threads,
                      .min_flops_per_thread = 0,
                      .max_logits = 5});
  auto one = opened(p, {.source = 7, .target = 20});
  const auto source = tokens(6, M::vocabulary, 1);
  const index lengths[] = {5, 3, 1};
  const auto more = tokens(15, M::vocabulary, 2);
  const auto start = [&](auto& session) {
    if constexpr (M::encodes) {
      BOOST_REQUIRE(session.encode(source));
      for (index b = 1; b < session.planned().batch; ++b) BOOST_REQUIRE(session.fork(0, b));
    } else {
      session.reset();
    }
  };
  start(s);
  BOOST_REQUIRE(!s.feed(tokens(6, M::vocabulary, 3), 3, {}).empty());
  const auto logits = s.feed_all(more, 3, lengths);
  BOOST_REQUIRE(logits.size() == at(15 * M::vocabulary));
  for (index b = 0; b < 3; ++b) {
    start(one);
    const auto before = tokens(6, M::vocabulary, 3);
    (void)one.feed(std::span(before).subspan(at(2 * b), 2));
    for (index i = 0; i < lengths[b]; ++i)
      BOOST_TEST(distance(logits.subspan(at((5 * b + i) * M::vocabulary), at(M::vocabulary)),
                          one.feed({&more[at(5 * b + i)], 1})) <= same_result<T>);
    BOOST_TEST(s.position(b) == 2 + lengths[b]);
  }
  // One token; as many as planned, not more; and no more than there is room for.
  BOOST_TEST(s.feed_all(std::span(more).first(1)).size() == at(M::vocabulary));
  BOOST_TEST(s.feed_all(std::span(more).first(6)).empty());
  BOOST_TEST(s.position() == 8);
  BOOST_TEST(!s.feed_all(std::span(more).first(5)).empty());
  BOOST_TEST(!s.feed_all(std::span(more).first(5)).empty());
  BOOST_TEST(s.feed_all(std::span(more).first(5)).empty());
  BOOST_TEST(one.feed_all(std::span(more).first(2)).empty());
}

/// A fork of a text that differs in its last token gives the bits that the other gives.
template <class M>
void check_twins() {
  const auto p = random_packed<M, float>(3);
  auto s = opened(p, {.batch = 2, .target = 12});
  const token prompts[] = {1, 2, 3, 4, 1, 2, 3, 9}, next[] = {5, 5};
  BOOST_REQUIRE(!s.feed(prompts, 2, {}).empty());
  BOOST_REQUIRE(s.fork(0, 1));
  const auto logits = s.feed(next, 2, {});
  BOOST_REQUIRE(!logits.empty());
  BOOST_TEST(distance(logits.first(at(M::vocabulary)), logits.last(at(M::vocabulary))) == 0);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(forks)

BOOST_AUTO_TEST_CASE(t5_forks) { random_calls<t5>().run(); }
BOOST_AUTO_TEST_CASE(decoder_forks) { random_calls<decoder>().run(); }
BOOST_AUTO_TEST_CASE(gpt2_forks) { random_calls<gpt2>().run(); }
BOOST_AUTO_TEST_CASE(forks_of_states) {
  random_calls<mamba>().run();
  random_calls<linear>().run();
  random_calls<rwkv4>().run();
  random_calls<rwkv7>().run();
}
BOOST_AUTO_TEST_CASE(forks_of_groups) {
  random_calls<hashed, 24>().run();
  random_calls<routed, 24>().run();
}
BOOST_AUTO_TEST_CASE(forks_of_chosen_tokens) { random_calls<mixture, 24>().run(); }
BOOST_AUTO_TEST_CASE(forks_of_rings) { random_calls<window, 90, 3>().run(10); }

// Sequences without a source are not run against what an earlier one left.
BOOST_AUTO_TEST_CASE(sequences_without_a_source) {
  const auto p = random_packed<t5, float>(3);
  auto s = opened(p, {.batch = 3, .source = 7, .target = 9});
  const auto source = tokens(7, t5::vocabulary, 1);
  const std::vector<token> start(3, 0);
  BOOST_REQUIRE(s.encode(source));
  BOOST_TEST(s.feed(std::span(start).first(2), 2, {}).empty());
  BOOST_TEST(s.feed(start, 3, {}).empty());
  BOOST_TEST(s.fork(0, 1));
  BOOST_TEST(s.feed(std::span(start).first(2), 2, {}).size() == at(2 * t5::vocabulary));
}

BOOST_AUTO_TEST_CASE(forks_of_codes) {
  check_twins<decoder::with_cache<ln::kv::int8>>();
  check_twins<decoder::with_cache<ln::kv::f16>>();
}
// What a prefix holds depends on all of it, so none of it is shared; nor does it come in parts.
BOOST_AUTO_TEST_CASE(forks_of_prefixes) {
  check_twins<prefixed>();
  const auto p = random_packed<prefixed, float>(3);
  auto s = opened(p, {.target = 12, .chunk = 3});
  BOOST_TEST(s.prefill(tokens(4, prefixed::vocabulary, 1)).empty());
  BOOST_TEST(s.position() == 0);
  BOOST_REQUIRE(!s.prefill(tokens(3, prefixed::vocabulary, 1)).empty());
  BOOST_TEST(!s.truncate(2));  // into the prefix
  BOOST_TEST(s.truncate(3));
  BOOST_TEST(!s.prefill(tokens(4, prefixed::vocabulary, 1)).empty());
}

BOOST_AUTO_TEST_CASE(logits_of_every_token) {
  check_feed_all<t5, double>(1);
  check_feed_all<decoder, double>(1);
  check_feed_all<decoder, float>(2);
}
BOOST_AUTO_TEST_CASE(logits_are_planned_for) {
  const auto p = random_packed<decoder, float>();
  const auto none = ln::session<decoder>::open(p, {.max_logits = 0});
  BOOST_REQUIRE(!none);
  BOOST_TEST(none.error().message() ==
             "session::open: limits.max_logits: expected at least 1, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::fork_test
