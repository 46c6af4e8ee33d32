// SPDX-License-Identifier: MIT
// Key-value memory in blocks that sequences share: the same bits as memory of their own, whatever
// is fed, forked and taken back, and no block is lost (Kwon et al. 2023).

#include "support/decoding.hpp"

namespace test::paged_test {

namespace {

using decoder = ln::decoder<tiny_decoder_shape>;
using coded = decoder::with_cache<ln::kv::int8>;
using hashed = decoder::with_attention<ln::attention::lsh<8, 2>>;
using t5 = ln::t5<tiny_t5_shape>;
constexpr index batch = 4, capacity = 120, blocks = 7, block = ln::simd::token_block;

/// Blocks that texts need if none is shared.
index blocks_for(index tokens) { return (tokens + block - 1) / block; }

template <class M>
struct twins {
  ln::packed<M, float> p = random_packed<M, float>(3);
  ln::limits l{.batch = batch, .source = 7, .target = capacity};
  ln::session<M> own = opened(p, l);
  ln::session<M> paged = opened(p, with_blocks(l));
  ln::random_stream random{ln::seed{11}};
  long refused = 0, shared = 0;

  static ln::limits with_blocks(ln::limits limits) {
    limits.kv_blocks = blocks;
    return limits;
  }
  index below(index n) { return random.below(static_cast<std::uint32_t>(n)); }

  void start() {
    own.reset();
    paged.reset();
    BOOST_REQUIRE(paged.free_blocks() == blocks);
    if constexpr (M::encodes) {
      const auto source = tokens(2 * 7, M::vocabulary, random.bits());
      const std::vector<index> lengths{7, 3};
      for (auto* s : {&own, &paged}) {
        BOOST_REQUIRE(s->encode(source, 2, lengths));
        for (index b = 2; b < batch; ++b) BOOST_REQUIRE(s->fork(b % 2, b));
      }
    }
  }
  void feed() {
    const index count = 1 + below(batch), wide = 1 + below(random.bits() % 4 ? 3 : 40);
    const auto more = tokens(count * wide, M::vocabulary, random.bits());
    std::vector<index> lengths, before;
    for (index b = 0; b < count; ++b) {
      if (own.position(b) + wide > capacity) return;
      lengths.push_back(1 + below(wide));
      before.push_back(paged.position(b));
    }
    const index room = paged.free_blocks();
    const auto answer = paged.feed(more, count, lengths);
    if (answer.empty()) {  // no room: nothing has happened
      ++refused;
      index most = 0;
      for (index b = 0; b < count; ++b) {
        BOOST_TEST(paged.position(b) == before[at(b)]);
        most += 1 + blocks_for(before[at(b)] + lengths[at(b)]) - blocks_for(before[at(b)]);
      }
      BOOST_TEST(paged.free_blocks() == room);
      BOOST_TEST(room < most);
    } else {
#if defined(__FAST_MATH__)  // the edge of a product may be summed otherwise in another layout
      BOOST_TEST(distance(answer, own.feed(more, count, lengths)) <= same_result<float>);
#else
      BOOST_TEST(same_bits(answer, own.feed(more, count, lengths)));
#endif
    }
  }
  void step() {
    const index what = below(20), a = below(batch), b = below(batch);
    if (what == 0) {
      start();
    } else if (what < 4) {
      BOOST_TEST(own.fork(a, b));
      BOOST_TEST(paged.fork(a, b));
    } else if (what < 7) {
      const index length = below(own.position(a) + 1);
      BOOST_TEST(own.truncate(length, a));
      BOOST_TEST(paged.truncate(length, a));
    } else {
      feed();
    }
    index alone = 0, longest = 0;
    for (index i = 0; i < batch; ++i) {
      BOOST_REQUIRE(own.position(i) == paged.position(i));
      alone += blocks_for(own.position(i));
      longest = (std::max)(longest, blocks_for(own.position(i)));
    }
    const index used = blocks - paged.free_blocks();
    BOOST_TEST(used <= alone);
    BOOST_TEST(used >= longest);
    shared += used < alone;
  }
  void run(int steps) {
    start();
    for (int i = 0; i < steps; ++i) step();
    BOOST_TEST(refused > 0);
    BOOST_TEST(shared > 0);
    for (index b = 0; b < batch; ++b) BOOST_TEST(paged.truncate(0, b));
    BOOST_TEST(paged.free_blocks() == blocks);
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(paged)

BOOST_AUTO_TEST_CASE(equals_own_memory) { twins<decoder>().run(500); }
BOOST_AUTO_TEST_CASE(equals_own_memory_of_codes) {
  twins<coded>().run(300);
  twins<decoder::with_cache<ln::kv::f16>>().run(300);
}
BOOST_AUTO_TEST_CASE(equals_own_memory_of_groups) { twins<hashed>().run(300); }
BOOST_AUTO_TEST_CASE(equals_own_memory_beside_sources) { twins<t5>().run(300); }

// Of the sequences that share a block and write into it, the last one needs no copy of it, unless
// somebody else reads it.
BOOST_AUTO_TEST_CASE(copies_are_counted_exactly) {
  const auto p = random_packed<decoder, float>(3);
  const auto two = tokens(2, decoder::vocabulary, 5), three = tokens(3, decoder::vocabulary, 6);
  for (const index pool : {1, 2, 3}) {
    auto s = opened(p, {.batch = 3, .target = capacity, .kv_blocks = pool});
    BOOST_REQUIRE(!s.prefill(two).empty());
    BOOST_REQUIRE(s.fork(0, 1));
    BOOST_TEST(s.feed(two, 2, {}).empty() == (pool < 2));
    s.reset();
    BOOST_REQUIRE(!s.prefill(two).empty());
    BOOST_REQUIRE((s.fork(0, 1) && s.fork(0, 2)));
    BOOST_TEST(s.feed(two, 2, {}).empty() == (pool < 3));
    s.reset();
    BOOST_REQUIRE(!s.prefill(two).empty());
    BOOST_REQUIRE((s.fork(0, 1) && s.fork(0, 2)));
    BOOST_TEST(s.feed(three, 3, {}).empty() == (pool < 3));
    BOOST_TEST(s.free_blocks() == (pool < 3 ? pool - 1 : 0));
  }
}

// Speculation writes as many tokens as the blocks hold, one at a time where drafts have no room.
BOOST_AUTO_TEST_CASE(speculation_fills_the_blocks) {
  const auto p = random_packed<decoder, float>(1), q = random_packed<decoder, float>(2);
  auto target = opened(p, {.target = 50, .kv_blocks = 1, .max_logits = 5});
  for (const auto* const weights : {&p, &q}) {
    auto draft = opened(*weights, {.target = 50});
    auto fast = ln::speculative<decoder, decoder>::open(target, draft, 4);
    BOOST_REQUIRE(static_cast<bool>(fast));
    for (index n = 1; n < 6; ++n) {
      const auto prompt = tokens(n, decoder::vocabulary, 7);
      std::vector<token> plain, text;
      target.generate(prompt, ln::greedy{}, [&](token t) { plain.push_back(t); });
      fast->generate(prompt, ln::greedy{}, [&](token t) { text.push_back(t); });
      BOOST_TEST(std::ssize(plain) == block - n + 1);
      BOOST_TEST(text == plain, boost::test_tools::per_element());
    }
  }
}

// The memory is what the blocks are, however many sequences and however long.
BOOST_AUTO_TEST_CASE(memory_is_the_blocks) {
  const auto state = [](index sequences, index target, index count) {
    return ln::detail::plan_for<decoder, float>(
               {.batch = sequences, .target = target, .chunk = 8, .kv_blocks = count},
               ln::purpose::decoding)
        .state;
  };
  const index values = 2 * decoder::shape.layers * decoder::shape.kv_heads * decoder::self.d_kv;
  BOOST_TEST(state(4, 64, 9) - state(4, 64, 5) == 4 * block * values * 4);
  BOOST_TEST(state(4, 64, 9) - state(4, 32, 9) == 32 * decoder::self.d_kv * 4);  // rotary table
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::paged_test
