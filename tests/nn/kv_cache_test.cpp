// SPDX-License-Identifier: MIT
// The key-value cache in 4 bits: keys by channel, values by token, the newest keys as they are.

#include "support/test.hpp"

namespace test::kv_cache_test {

namespace {

constexpr index heads = 2, h = 5, batch = 2, block = ln::simd::token_block;
constexpr index text = 13 * block;  // tokens of each sequence
using key_buffer = ln::detail::kv_buffer4<heads, h, true>;
using value_buffer = ln::detail::kv_buffer4<heads, h, false>;

/// Keys and values of some tokens, cached.
struct cached {
  index capacity, first, near;
  std::vector<float> k = normal<float>(batch * text * heads * h, 1),
                     v = normal<float>(batch * text * heads * h, 2);
  ln::memory_block memory;
  mutable std::vector<index> past;
  key_buffer keys;
  value_buffer values;

  explicit cached(index capacity_, index first_ = 0, index near_ = 1 << 20)
      : capacity(capacity_), first(first_), near(near_), memory(plan(nullptr, 0)) {
    plan(memory.data(), memory.size());
  }
  index plan(void* at, index bytes) {
    ln::arena counter, given(at, bytes);
    ln::arena& state = at ? given : counter;
    keys.plan(state, batch, capacity, first, near, 0);
    values.plan(state, batch, capacity, first, near, 0);
    return state.peak();
  }
  const float* key(index b, index j, index head) const {
    return k.data() + ((b * text + j) * heads + head) * h;
  }
  const float* value(index b, index j, index head) const {
    return v.data() + ((b * text + j) * heads + head) * h;
  }
  /// What a call that brings tokens from number `from` on reads of the keys.
  auto call_keys(index from) const {
    past.assign(batch, from);
    auto all = keys.rows({});
    all.fresh = key(0, from, 0), all.fresh_length = text, all.past = past.data();
    return all;
  }
  /// One call: tokens [from, to).
  void put(index from, index to) {
    const auto all_k = call_keys(from);
    const auto all_v = values.rows({});
    for (index b = 0; b < batch; ++b)
      for (index head = 0; head < heads; ++head) {
        for (index j = from; j < to; ++j) {
          if ((j + 1) % block == 0) keys.close_block(all_k, b, head, j);
          values.put(all_v, b, head, j, value(b, j, head));
        }
        keys.keep_newest(all_k, b, head, to - from);
      }
  }
  /// What the caches give for token j to a query in block `view`.
  std::vector<float> got(bool key_side, index b, index j, index head, index view = -1) const {
    std::vector<float> x(h);
    const ln::ops::kv_rows<ln::ops::int4_code> all = key_side ? keys.rows({}) : values.rows({});
    all.load(b, head, j, all.of(b, head).place(j), h, x.data(), 1, view);
    return x;
  }
  /// Tokens [from, to) of a text of `length`: half a scale off at most, newest keys exact.
  void check(index from, index to, index open) const {
    for (index b = 0; b < batch; ++b)
      for (index head = 0; head < heads; ++head)
        for (index j = from; j < to; ++j) {
          const auto key_got = got(true, b, j, head, open), value_got = got(false, b, j, head);
          float most = 0;
          for (index c = 0; c < h; ++c) most = (std::max)(most, std::abs(value(b, j, head)[c]));
          for (index c = 0; c < h; ++c) {
            BOOST_TEST(distance_of(value_got[at(c)], value(b, j, head)[c]) <= most / 14 * 1.0001);
            float channel = 0;
            for (index u = j / block * block; u < j / block * block + block; ++u)
              channel = (std::max)(channel, std::abs(key(b, u, head)[c]));
            const double off = distance_of(key_got[at(c)], key(b, j, head)[c]);
            if (j / block == open)
              BOOST_TEST(off == 0);
            else
              BOOST_TEST(off <= channel / 14 * 1.0001);
          }
        }
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(kv_cache)

BOOST_AUTO_TEST_CASE(half_a_scale) {
  cached c(200);
  c.put(0, 150);
  c.check(0, 150, 4);
  double off = 0;
  for (index j = 0; j < 128; ++j)
    off = (std::max)(off, distance(c.got(true, 1, j, 1), std::span(c.key(1, j, 1), h)));
  BOOST_TEST(off > 0.01);  // something was rounded
  // 4 bits a number, a scale for 32 keys or a head of values, and the open block.
  BOOST_TEST(c.memory.size() <= batch * 224 * heads * (h / 2.0 + h * 4 / 32.0 + 3 + 4) +
                                    batch * heads * 2 * block * h * 4 + 4 * ln::alignment);
}
// What is not finite stays so for all that it shares a scale with; tiny numbers make no others.
BOOST_AUTO_TEST_CASE(not_finite_and_tiny) {
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u}) {
    cached c(200);
    const auto put = [&](std::vector<float>& x, index j) {  // channel 3 of head 1 of sequence 0
      std::memcpy(&x[at((j * heads + 1) * h + 3)], &bits, sizeof bits);
    };
    put(c.k, 40);
    put(c.v, 41);
    c.put(0, 65);  // closes the second block of keys
    for (index j = 0; j < 64; ++j) {
      const auto k = c.got(true, 0, j, 1), v = c.got(false, 0, j, 1);
      for (index i = 0; i < h; ++i) {
        BOOST_TEST(ln::is_finite(k[at(i)]) == !(j >= 32 && i == 3));
        BOOST_TEST(ln::is_finite(v[at(i)]) == (j != 41));
      }
      BOOST_TEST(ln::is_finite(magnitude(c.got(true, 0, j, 0))));
    }
  }
  cached c(200);
  for (float& x : c.k) x *= 1e-40f;
  for (float& x : c.v) x = x > 0 ? 1e-45f : -1e-45f;
  c.put(0, 65);
  for (index j = 0; j < 64; ++j)
    for (const bool key_side : {true, false})
      BOOST_TEST(magnitude(c.got(key_side, 1, j, 1)) <= 1e-38);
}
// Tokens are taken back into a block that was rounded, and others follow: nothing tells that the
// first were ever there.
BOOST_AUTO_TEST_CASE(taken_back) {
  cached c(200), plain(200);
  c.put(0, 75);
  c.put(75, 107);
  for (index b = 0; b < batch; ++b)
    for (cached* const some : {&c, &plain})
      for (index j = 90; j < text; ++j)
        for (index i = 0; i < heads * h; ++i) some->k[at((b * text + j) * heads * h + i)] *= -3;
  c.put(90, 93);
  c.put(93, 130);
  plain.put(0, 130);
  for (index b = 0; b < batch; ++b)
    for (index j = 0; j < 130; ++j)
      for (const index view : {-1, 3, 4})
        BOOST_TEST(same_bits(c.got(true, b, j, 1, view), plain.got(true, b, j, 1, view)));
  BOOST_TEST(!same_bits(plain.got(true, 0, 127, 1, 3), plain.got(true, 0, 127, 1, 4)));
}
// A call of any length reads the keys of its first block, which it shares with earlier calls.
BOOST_AUTO_TEST_CASE(long_calls) {
  cached c(200);
  c.put(0, 5);
  const auto all = c.call_keys(5);
  std::vector<float> x(h);
  for (index j = 0; j < 130; ++j) {
    all.load(1, 1, j, j, h, x.data(), 1, j / block);
    BOOST_TEST(same_bits(x, std::span(c.key(1, j, 1), h)));
  }
}
BOOST_AUTO_TEST_CASE(rings) {
  cached c(390, 3, 40);
  BOOST_TEST(c.keys.places.ring == 64);
  c.put(0, 390);
  c.check(0, 3, 12);
  c.check(390 - 40, 390, 12);
}
BOOST_AUTO_TEST_CASE(copies) {
  cached c(200);
  c.put(0, 77);
  c.keys.copy(0, 1, 0, 77);
  c.values.copy(0, 1, 0, 77);
  for (index head = 0; head < heads; ++head)
    for (index j = 0; j < 77; ++j) {
      for (const index view : {-1, 1, 2})
        BOOST_TEST(same_bits(c.got(true, 1, j, head, view), c.got(true, 0, j, head, view)));
      BOOST_TEST(same_bits(c.got(false, 1, j, head), c.got(false, 0, j, head)));
    }
}
// Attention over codes is attention over what they stand for.
BOOST_AUTO_TEST_CASE(attention) {
  cached c(200);
  c.put(0, 110);
  std::vector<float> k, v;
  for (index b = 0; b < batch; ++b)
    for (index j = 0; j < 110; ++j)
      for (index head = 0; head < heads; ++head) {
        const auto x = c.got(true, b, j, head, 3), y = c.got(false, b, j, head);
        k.insert(k.end(), x.begin(), x.end());
        v.insert(v.end(), y.begin(), y.end());
      }
  // All keys together, and in tiles.
  for (const index tile : {ln::ops::attention_keys, ln::simd::token_block})
    for (const index queries : {1, 14}) {  // in one block of tokens
      const std::vector<index> past(batch, 110 - queries);
      const auto q = normal<float>(batch * queries * heads * h, 3);
      const auto run = [&](const auto& keys, const auto& values) {
        using Code = std::remove_cvref_t<decltype(*keys.data)>;
        std::vector<float> out(q.size());
        ln::ops::attention_call<float, Code> call{};
        call.batch = batch, call.queries = queries, call.keys = 200;
        call.heads = heads, call.kv_heads = heads, call.h = h;
        call.window.after = 0, call.scale = 0.5f, call.q = q.data(), call.out = out.data();
        call.k = keys, call.v = values, call.past = past.data();
        call.scratch_size =
            ln::ops::attention_scratch(queries, call.keys, h, call.window, false, true, tile);
        std::vector<float> scratch(at(call.scratch_size));
        call.scratch = scratch.data(), call.tile = tile;
        ln::ops::attention<float, Code>({{}, ln::simd::best()}, call);
        return out;
      };
      const auto want = run(ln::ops::kv_rows<float>{k.data(), 110, heads * h, h},
                            ln::ops::kv_rows<float>{v.data(), 110, heads * h, h});
      const auto have = run(c.call_keys(110 - queries), c.values.rows({}));
      BOOST_TEST(distance(have, want) <= 2e-6);
    }
}

// What attention has to copy before it reads is planned for.
template <class T, ln::kv_code Code>
void check_gathered() {
  for (const index first : {0, 5})
    for (const index recent : {20, 300})
      for (const index blocks : {0, 4}) {
        ln::detail::kv_buffer<T, Code, 2, 3> buffer;
        ln::arena counter;
        buffer.plan(counter, 1, 200, first, recent, blocks);
        const std::int32_t table[8] = {};
        BOOST_TEST(buffer.gathered() == !(std::is_same_v<T, typename decltype(buffer)::code> &&
                                          buffer.rows({table, 8}).plain()));
      }
}
BOOST_AUTO_TEST_CASE(gathered_rows) {
  check_gathered<float, ln::kv_code::exact>();
  check_gathered<float, ln::kv_code::bf16>();
  check_gathered<float, ln::kv_code::f16>();
  check_gathered<float, ln::kv_code::int8>();
  check_gathered<double, ln::kv_code::int8>();
}

// Half precision ends at 65504: finite numbers beyond become that, in the cache and in training.
BOOST_AUTO_TEST_CASE(numbers_beyond_half_precision) {
  constexpr float most = 65504, huge = std::numeric_limits<float>::max(),
                  infinity = std::numeric_limits<float>::infinity();
  constexpr index width = 7;
  const float x[2][width] = {{65504, 65519, 65520, 1e6f, -1e6f, huge, -huge},
                             {infinity, -infinity, 0x1p-24f, 0x1p-26f, -65520, 1, 0}};
  const float want[2][width] = {{most, most, most, most, -most, most, -most},
                                {infinity, -infinity, 0x1p-24f, 0, -most, 1, 0}};
  ln::detail::kv_buffer<float, ln::kv_code::f16, 2, width> buffer;
  ln::arena counter;
  buffer.plan(counter, 1, 3, 0, 1 << 20, 0);
  ln::memory_block memory(counter.peak());
  ln::arena state(memory.data(), memory.size());
  buffer.plan(state, 1, 3, 0, 1 << 20, 0);
  for (const auto level : levels()) {
    const ln::ops::execution on{{}, level};
    buffer.put(on, buffer.rows({}), 0, 2, x[0]);
    float read[width], trained[2][width];
    std::copy_n(x[0], 2 * width, trained[0]);
    buffer.fake(on, 1, trained[0]);
    for (index head = 0; head < 2; ++head) {
      buffer.rows({}).load(0, head, 2, 2, width, read, 1, 0);
      BOOST_TEST(same_bits(std::span<const float>(read), std::span<const float>(want[head])));
      BOOST_TEST(same_bits(std::span<const float>(trained[head]), std::span<const float>(read)));
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::kv_cache_test
