// SPDX-License-Identifier: MIT
// Decoding through the key-value cache equals running the whole sequence at once: token by token,
// in chunks, and in batches of sequences of different lengths.

#include "support/scoring.hpp"

namespace test::cache_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using llama = ln::decoder<tiny_decoder_shape, ln::tie::untied>;
using gpt2 = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                         ln::ffn::gelu_tanh, ln::bias::all>;
using sinusoidal = ln::decoder<tiny_decoder_shape, ln::position::sinusoidal, ln::ffn::relu>;
using rwkv4 = ln::rwkv4<tiny_decoder_shape>;
using rwkv7 = ln::rwkv7<tiny_rwkv7_shape>;
using t5_channel_mix = ln::t5<tiny_t5_shape, ln::ffn::rwkv4_channel_mix>;
constexpr index length = 58;  // more than one block of attention rows

// Models that forget: rings of 32 or 64 tokens that are used again, text longer than the context.
using window = ln::decoder<tiny_decoder_shape, ln::attention::sliding_window<7>>;
using window_int8 = window::with_cache<ln::kv::int8>;
using sinks = ln::decoder<tiny_decoder_shape, ln::attention::sinks<3, 6>, ln::position::rope_half>;
using t5_window = ln::t5<tiny_t5_shape, ln::attention::sliding_window<4>>;
using t5_sinks = ln::t5<tiny_t5_shape, ln::decoder_stack<ln::attention::sinks<1, 5>>>;
constexpr index long_length = 150, chunk = 9;

// Groups of tokens: with online grouping, sessions and whole sequences agree.
template <ln::decoder_shape Shape, class Kind>
using grouped = ln::decoder<Shape, Kind, ln::tie::untied>;
inline constexpr ln::decoder_shape one_layer = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 1;
  return s;
}();
using lsh = ln::attention::lsh<4, 3>;
using routing = ln::attention::routing<5, 6>;
using hashed = grouped<tiny_decoder_shape, lsh>;
using hashed_frozen = grouped<tiny_decoder_shape, lsh::online>;
using one_hashed = grouped<one_layer, lsh>;
using one_hashed_frozen = grouped<one_layer, lsh::online>;
using routed = grouped<tiny_decoder_shape, routing>;
using routed_frozen = grouped<tiny_decoder_shape, routing::online>;
using t5_hashed = ln::t5<tiny_t5_shape, ln::decoder_stack<lsh>>;
using t5_hashed_frozen = ln::t5<tiny_t5_shape, ln::decoder_stack<lsh::online>>;

/// Sequences with the logits of all their positions, computed without a cache. For T5 the inputs
/// are the start token and the labels but the last; each sequence has a source of its own.
template <class M, class T>
struct sequences {
  static constexpr bool encodes = M::encodes;
  static constexpr index batch = 3;
  index length;
  std::vector<token> source, inputs;
  std::vector<index> lengths{7, 3, 6};
  std::vector<T> logits;

  explicit sequences(const ln::packed<M, T>& p, index length_ = cache_test::length)
      : length(length_) {
    if constexpr (encodes) {
      t5_tokens data(batch, 7, length, M::vocabulary);
      data.lengths = lengths;
      source = data.source;
      for (index i = 0; i < batch * length; ++i)
        inputs.push_back(i % length == 0                         ? M::start
                         : data.labels[at(i - 1)] == ln::ignored ? 0
                                                                 : data.labels[at(i - 1)]);
      logits = logits_of(p, data);
    } else {
      const decoder_tokens data(batch, length, M::vocabulary);
      inputs = data.inputs;
      logits = logits_of(p, data);
    }
  }
  std::span<const token> input(index b, index first, index count) const {
    return std::span(inputs).subspan(at(b * length + first), at(count));
  }
  /// The logits that follow `position` tokens of sequence b.
  std::span<const T> after(index b, index position) const {
    return row_of<M>(logits, b * length + position - 1);
  }
  /// Starts a session on sequence b alone, or on all of them (-1).
  template <class Session>
  void start(Session& s, index b) const {
    if constexpr (encodes) {
      if (b < 0)
        BOOST_REQUIRE(s.encode(source, batch, lengths));
      else
        BOOST_REQUIRE(s.encode(std::span(source).subspan(at(b * 7), at(lengths[at(b)]))));
    } else {
      s.reset();
    }
  }
};

template <class M, class T>
ln::session<M, T> open(const ln::packed<M, T>& p, index batch, index target = length,
                       index most = 0) {
  auto s = ln::session<M, T>::open(
      p, {.batch = batch, .source = 7, .target = target, .chunk = most, .min_flops_per_thread = 0});
  BOOST_REQUIRE(static_cast<bool>(s));
  return *std::move(s);
}

/// Feeds one sequence in pieces and compares the logits after each piece.
template <class M, class T, class Session>
void check_pieces(const sequences<M, T>& all, Session& s, index b,
                  const std::vector<index>& pieces) {
  all.start(s, b);
  index position = 0;
  double worst = 0;
  for (const index piece : pieces) {
    const auto logits = s.feed(all.input(b, position, piece));
    position += piece;
    worst = (std::max)(worst, distance(logits, all.after(b, position)));
    BOOST_TEST(s.position() == position);
  }
  BOOST_TEST(position == all.length);
  BOOST_TEST(worst <= same_result<T>);
}

/// `Whole` computes without a cache what M does with one.
template <class M, class T, class Whole = M>
void check_cache() {
  const auto p = random_packed<M, T>();
  const sequences<Whole, T> all(random_packed<Whole, T>());
  auto s = open(p, 1);
  check_pieces(all, s, 0, std::vector<index>(length, 1));
  check_pieces(all, s, 1, {length});
  check_pieces(all, s, 2, {5, 3, 1, 1, 20, 28});
  check_pieces(all, s, 2, {1, 49, 1, 7});

  // Three sequences at once: padded prompts of lengths 5, 1 and 9, then single tokens, then a
  // padded chunk again. Padding tokens are arbitrary.
  auto together = open(p, 3);
  all.start(together, -1);
  std::vector<index> position(3, 0);
  const auto feed = [&](const std::vector<index>& counts) {
    const index wide = *std::max_element(counts.begin(), counts.end());
    std::vector<token> padded(at(3 * wide), token{2});
    for (index b = 0; b < 3; ++b) {
      const auto piece = all.input(b, position[at(b)], counts[at(b)]);
      std::copy(piece.begin(), piece.end(), padded.begin() + b * wide);
      position[at(b)] += counts[at(b)];
    }
    const auto logits = together.feed(padded, 3, counts);
    BOOST_REQUIRE(logits.size() == at(3 * M::vocabulary));
    for (index b = 0; b < 3; ++b)
      BOOST_TEST(distance(logits.subspan(at(b * M::vocabulary), at(M::vocabulary)),
                          all.after(b, position[at(b)])) <= same_result<T>);
  };
  feed({5, 1, 9});
  for (int i = 0; i < 4; ++i) feed({1, 1, 1});
  feed({2, 7, 1});
  feed({30, 12, 40});
  feed({1, 1, 1});
  BOOST_TEST(together.position(1) == position[1]);
}

/// The same through a ring, whose memory does not grow with the text.
template <class M, class T>
void check_ring() {
  const auto state = [](index target) {
    return ln::detail::plan_for<M, T>({.batch = 3, .source = 7, .target = target, .chunk = chunk},
                                      ln::purpose::decoding)
        .state;
  };
  BOOST_TEST(state(long_length) == state(1'000'000));
  const auto p = random_packed<M, T>();
  const sequences<M, T> all(p, long_length);
  auto s = open(p, 3, long_length, chunk);
  check_pieces(all, s, 0, std::vector<index>(long_length, 1));
  std::vector<index> pieces(long_length / chunk, chunk);
  pieces.push_back(long_length % chunk);
  check_pieces(all, s, 1, pieces);
  BOOST_TEST(s.feed(all.input(0, 0, chunk + 1)).empty());  // more than a chunk

  // Taking back a chunk and feeding it again finds all that it needs; more is refused.
  all.start(s, 2);
  for (index i = 0; i < 130; ++i) (void)s.feed(all.input(2, i, 1));
  BOOST_TEST(!s.truncate(130 - chunk - 1));
  BOOST_TEST(s.truncate(130 - chunk));
  BOOST_TEST(distance(s.feed(all.input(2, 130 - chunk, chunk)), all.after(2, 130)) <=
             same_result<T>);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cache)

BOOST_AUTO_TEST_CASE(t5_double) { check_cache<t5, double>(); }
BOOST_AUTO_TEST_CASE(t5_float) { check_cache<t5, float>(); }
BOOST_AUTO_TEST_CASE(llama_double) { check_cache<llama, double>(); }
BOOST_AUTO_TEST_CASE(llama_float) { check_cache<llama, float>(); }
BOOST_AUTO_TEST_CASE(gpt2_float) { check_cache<gpt2, float>(); }
BOOST_AUTO_TEST_CASE(sinusoidal_float) { check_cache<sinusoidal, float>(); }
BOOST_AUTO_TEST_CASE(t5_channel_mix_double) { check_cache<t5_channel_mix, double>(); }
BOOST_AUTO_TEST_CASE(rwkv4_double) { check_cache<rwkv4, double>(); }
BOOST_AUTO_TEST_CASE(rwkv4_float) { check_cache<rwkv4, float>(); }
BOOST_AUTO_TEST_CASE(rwkv7_double) { check_cache<rwkv7, double>(); }
BOOST_AUTO_TEST_CASE(rwkv7_float) { check_cache<rwkv7, float>(); }

// Who meets whom is decided as tokens come.
BOOST_AUTO_TEST_CASE(online_groups) {
  check_cache<hashed, double, hashed_frozen>();
  check_cache<hashed, float, hashed_frozen>();
  check_cache<routed, double, routed_frozen>();
  check_cache<routed_frozen, double>();
  check_cache<t5_hashed, double, t5_hashed_frozen>();
}
// Their keys and values can be codes.
BOOST_AUTO_TEST_CASE(frozen_groups_of_codes) {
  const auto check = []<class M, class Whole>(double error) {
    const sequences<Whole, float> all(random_packed<Whole, float>());
    const auto p = random_packed<M, float>();
    auto s = open(p, 1);
    for (const std::vector<index>& pieces :
         {std::vector<index>(length, 1), {length}, {5, 3, 1, 1, 20, 28}}) {
      s.reset();
      index position = 0;
      double worst = 0;
      for (const index piece : pieces) {
        const auto logits = s.feed(all.input(0, position, piece));
        position += piece;
        worst = (std::max)(worst, distance(logits, all.after(0, position)));
      }
      BOOST_TEST(worst <= error * magnitude(all.logits));
      BOOST_TEST(worst >= error * magnitude(all.logits) / 1000);  // something was rounded
    }
  };
  // Hashes of the second layer may differ, those of the first do not.
  check.operator()<one_hashed::with_cache<ln::kv::bf16>, one_hashed_frozen>(8.0 / 512);
  check.operator()<one_hashed::with_cache<ln::kv::f16>, one_hashed_frozen>(8.0 / 4096);
  check.operator()<one_hashed::with_cache<ln::kv::int8>, one_hashed_frozen>(8.0 / 254);
  check.operator()<one_hashed::with_cache<ln::kv::int4>, one_hashed_frozen>(8.0 / 14);
}
// A session hashes into the buckets of as many tokens as it is planned for, like training of texts
// of that length.
BOOST_AUTO_TEST_CASE(buckets_are_planned_for) {
  const auto p = random_packed<hashed, double>();
  const sequences<hashed_frozen, double> shorter(random_packed<hashed_frozen, double>(), 30),
      longer(random_packed<hashed_frozen, double>());
  auto s = open(p, 1, 30), other = open(p, 1);
  const auto text = longer.input(0, 0, 30);
  const auto more = other.feed(text);
  BOOST_TEST(distance(s.feed(shorter.input(0, 0, 30)), shorter.after(0, 30)) <=
             same_result<double>);
  BOOST_TEST(distance(more, longer.after(0, 30)) <= same_result<double>);
  s.reset();
  BOOST_TEST(distance(s.feed(text), more) > 1e-3);
}
// What they keep, by hand: keys of each query head, values of each group, two numbers a round. Also
// the last token of each bucket, and how many tokens there are.
BOOST_AUTO_TEST_CASE(memory_of_frozen_groups) {
  const auto state = []<class M>(index batch) {
    return ln::detail::plan_for<M, float>({.batch = batch, .target = 64}, ln::purpose::decoding)
        .state;
  };
  const auto grows = [&]<class M>() {
    return state.template operator()<M>(8) - state.template operator()<M>(4);
  };
  // Two layers of 4 heads of 2, in pairs; 3 rounds. Full attention keeps keys and values of pairs.
  BOOST_TEST(grows.operator()<hashed>() - grows.operator()<llama>() ==
             4 * 2 * 4 *
                 (64 * (4 * 2 + 2 * 2 + 2 * 4 * 3 - 2 * 2 * 2) +
                  4 * 3 * (ln::ops::bucket_count(64, 4) + 1)));
}

BOOST_AUTO_TEST_CASE(rings_of_windows) {
  check_ring<window, double>();
  check_ring<window, float>();
  check_ring<t5_window, double>();
}
BOOST_AUTO_TEST_CASE(rings_of_sinks) {
  check_ring<sinks, double>();
  check_ring<t5_sinks, double>();
}
// Rotary positions behind the context are computed as they come, like those of its table.
BOOST_AUTO_TEST_CASE(positions_beyond_the_context) {
  static constexpr ln::decoder_shape longer = [] {
    ln::decoder_shape s = tiny_decoder_shape;
    s.context = long_length;
    return s;
  }();
  using all_in_the_table = ln::decoder<longer, ln::attention::sliding_window<7>>;
  static_assert(window::context_length < long_length);
  const sequences<window, double> beyond(random_packed<window, double>(), long_length);
  const sequences<all_in_the_table, double> table(random_packed<all_in_the_table, double>(),
                                                  long_length);
  BOOST_TEST(distance(beyond.logits, table.logits) <= same_result<double>);
}
// Without a ring: the window is shorter than the text, but the chunk is not.
BOOST_AUTO_TEST_CASE(windows_without_rings) {
  check_cache<window, double>();
  check_cache<sinks, double>();
}
// Rings of codes: the same rounding, wherever a token lies.
BOOST_AUTO_TEST_CASE(rings_of_codes) {
  const auto p = random_packed<window_int8, float>();
  const sequences<window_int8, float> all(p, long_length);
  auto ring = open(p, 1, long_length, chunk), straight = open(p, 1, long_length);
  for (index i = 0; i < long_length; ++i)
    BOOST_TEST(same_bits(ring.feed(all.input(0, i, 1)), straight.feed(all.input(0, i, 1))));
}
// In 4 bits: fed in any pieces, taken back and forked, near what exact memory gives.
BOOST_AUTO_TEST_CASE(keys_and_values_as_int4) {
  using M = llama::with_cache<ln::kv::int4>;
  const sequences<llama, float> all(random_packed<llama, float>());
  const auto p = random_packed<M, float>();
  const double size = magnitude(all.logits);
  auto s = open(p, 2);
  for (const std::vector<index>& pieces :
       {std::vector<index>(length, 1), {length}, {5, 3, 1, 1, 20, 28}}) {
    s.reset();
    index position = 0;
    for (const index piece : pieces) {
      const auto logits = s.feed(all.input(0, position, piece));
      position += piece;
      // Half a scale is 1/14 of the largest: a few of these, as above.
      BOOST_TEST(distance(logits, all.after(0, position)) <= 8.0 / 14 * size);
    }
  }
  const index left = length - s.max_truncation();
  BOOST_TEST(left == length - 32);
  BOOST_TEST(!s.truncate(left - 1));
  BOOST_REQUIRE(s.truncate(left));
  BOOST_TEST(s.fork(0, 1));
  const auto more = all.input(0, left, 9);
  std::vector<token> twice(more.begin(), more.end());
  twice.insert(twice.end(), more.begin(), more.end());
  const auto logits = s.feed(twice, 2, {});
  BOOST_TEST(same_bits(logits.first(at(M::vocabulary)), logits.last(at(M::vocabulary))));
  BOOST_TEST(distance(logits.first(at(M::vocabulary)), all.after(0, left + 9)) <= 8.0 / 14 * size);
  const auto paged = ln::session<M>::open(p, {.target = 8, .kv_blocks = 3});
  BOOST_REQUIRE(!paged);
  BOOST_TEST(paged.error().message() ==
             "session::open: limits.kv_blocks: expected 0, as kv::int4 is not paged, got 3");
}
// A ring holds what every row of a piece looks at, where window and piece fill blocks but for one.
BOOST_AUTO_TEST_CASE(rows_of_pieces_in_rings) {
  using M = llama::with_attention<ln::attention::sliding_window<7>>;
  const auto p = random_packed<M, float>();
  const auto text = tokens(54, M::vocabulary, 5);
  auto ring = ln::session<M>::open(p, {.target = 200, .chunk = 27, .max_logits = 27});
  auto one = ln::session<M>::open(p, {.target = 54});
  for (index done = 0; done < 54; done += 27) {
    const auto rows = ring->feed_all(std::span(text).subspan(at(done), 27));
    BOOST_REQUIRE(!rows.empty());
    for (index i = 0; i < 27; ++i)
      BOOST_TEST(
          distance(rows.subspan(at(i * M::vocabulary), at(M::vocabulary)),
                   one->feed(std::span(text).subspan(at(done + i), 1))) <= same_result<float>,
          done + i);
  }
}
// A query sees its own block of keys as they were given and rounds earlier ones, however the text
// is cut: rows of one call are those of many.
BOOST_AUTO_TEST_CASE(int4_in_any_cut) {
  using M = llama::with_cache<ln::kv::int4>;
  const auto p = random_packed<M, float>();
  const auto text = tokens(100, M::vocabulary, 5);
  const ln::limits l{.target = 100, .max_logits = 100};
  auto whole = ln::session<M>::open(p, l), parts = ln::session<M>::open(p, l);
  const auto rows = whole->feed_all(text);
  BOOST_REQUIRE(!rows.empty());
  const index width = M::vocabulary, sizes[] = {1, 29, 2, 33, 1, 1, 30, 3};
  index done = 0;
  for (const index n : sizes) {
    const auto some = parts->feed_all(std::span(text).subspan(at(done), at(n)));
    BOOST_TEST(distance(rows.subspan(at(done * width), at(n * width)), some) <= same_result<float>,
               done);
    done += n;
  }
  BOOST_TEST(done == 100);
}
// A prefix that fills a block is not rounded for its own queries: in one layer the last of them
// sees what it sees without a prefix.
BOOST_AUTO_TEST_CASE(prefix_as_int4) {
  constexpr ln::decoder_shape shape = [] {
    ln::decoder_shape one = tiny_decoder_shape;
    one.layers = 1;
    return one;
  }();
  using plain = ln::decoder<shape, ln::kv::int4>;
  using M = ln::decoder<shape, ln::kv::int4, ln::attention::prefix>;
  const auto p = random_packed<plain, float>();
  const auto q = random_packed<M, float>();
  for (const index n : {5, 31, 32}) {
    const auto text = tokens(n, M::vocabulary, 6);
    auto one = ln::session<plain>::open(p, {.target = 40});
    auto other = ln::session<M>::open(q, {.target = 40});
    BOOST_TEST(distance(one->feed(text), other->feed(text)) <= same_result<float>, n);
  }
}
// Of an encoder's text all keys are rounded, those of its last block, which is short, too.
BOOST_AUTO_TEST_CASE(sources_as_int4) {
  using M = t5::with_cache<ln::kv::int4>;
  const auto exact = random_packed<t5, float>();
  const auto rounded = random_packed<M, float>();
  for (const index n : {5, 32, 45}) {
    const auto source = tokens(n, M::vocabulary, 3);
    const ln::limits l{.source = n, .target = 8};
    auto one = ln::session<t5>::open(exact, l);
    auto other = ln::session<M>::open(rounded, l);
    const auto want = one->reset_and_prefill(source), got = other->reset_and_prefill(source);
    BOOST_REQUIRE(!got.empty());
    BOOST_TEST(distance(want, got) <= 0.1 * magnitude(want), n);
  }
}
// A prefix is seen both ways: its first tokens know its last ones, in a session as in training.
BOOST_AUTO_TEST_CASE(prefix_in_a_session) {
  using M = llama::with_attention<ln::attention::prefix>;
  const auto p = random_packed<M, double>();
  const decoder_tokens data(3, length, M::vocabulary);
  const std::vector<index> prefixes{20, 1, 49};
  auto batch = data.view();
  const auto causal = logits_of(p, batch, data.limits());
  batch.prefixes = prefixes.data();
  const auto logits = logits_of(p, batch, data.limits());
  auto s = open(p, 3);
  for (index b = 0; b < 3; ++b) {
    s.reset();
    const auto text = std::span(data.inputs).subspan(at(b * length), at(length));
    for (index t = 0; t < length; t += t == 0 ? prefixes[at(b)] : 1) {
      const index count = t == 0 ? prefixes[at(b)] : 1, row = b * length + t + count - 1;
      BOOST_TEST(distance(s.feed(text.subspan(at(t), at(count))), row_of<M>(logits, row)) <=
                 same_result<double>);
    }
    BOOST_TEST((distance(row_of<M>(logits, b * length), row_of<M>(causal, b * length)) > 1e-3) ==
               (prefixes[at(b)] > 1));
  }
  const std::vector<index> too_long{20, 1, length + 1};
  batch.prefixes = too_long.data();
  BOOST_TEST(!M::accepts(batch, data.limits()));
  batch.prefixes = prefixes.data();
  BOOST_TEST(!llama::accepts(batch, data.limits()));  // does not take any
}
// A window as wide as the text, or sinks that evict nothing, are full attention.
BOOST_AUTO_TEST_CASE(wide_windows_are_full_attention) {
  const auto same = []<class M, class F>() {
    const sequences<M, double> wide(random_packed<M, double>());
    const sequences<F, double> full(random_packed<F, double>());
    BOOST_TEST(distance(wide.logits, full.logits) <= same_result<double>);
  };
  namespace a = ln::attention;
  same.operator()<llama::with_attention<a::sliding_window<length>>, llama>();
  same.operator()<llama::with_attention<a::sinks<5, length - 5>>, llama>();
  same.operator()<t5::with_attention<a::sliding_window<length>>, t5>();
  same.operator()<t5::with_attention<a::full, a::sinks<1, length - 1>>, t5>();
}

/// Bytes of the key-value cache of the tiny models in storage `Code`, by hand.
template <class M, class Code>
index cache_bytes(index batch, bool scaled) {
  const auto part = [&](index tokens, index heads, index h) {
    const index word = 4 / static_cast<index>(sizeof(Code)), slot = (h + word - 1) / word * word;
    const index codes = batch * tokens * heads * slot * static_cast<index>(sizeof(Code));
    const index scales = scaled ? batch * tokens * heads * 4 : 0;
    return 2 * (ln::round_up(codes, ln::alignment) + ln::round_up(scales, ln::alignment));
  };
  if constexpr (M::encodes)
    return M::shape.decoder_layers *
           (part(length, M::shape.heads, M::shape.d_kv) + part(7, M::shape.heads, M::shape.d_kv));
  else
    return M::shape.layers * part(length, M::shape.kv_heads, M::shape.head_width());
}

/// A cache of codes answers almost as an exact one does, in memory that is smaller as stated.
template <class M, class Cache, class Code>
void check_codes(double error) {
  using coded = typename M::template with_cache<Cache>;
  static_assert(!std::is_same_v<coded, M> && coded::parameters() == M::parameters());
  const sequences<M, float> all(random_packed<M, float>());
  const auto p = random_packed<coded, float>();
  const ln::limits l{.batch = 2, .source = 7, .target = length};
  constexpr bool scaled = sizeof(Code) == 1;
  const index state = ln::detail::plan_for<M, float>(l, ln::purpose::decoding).state;
  const index saved = state - ln::detail::plan_for<coded, float>(l, ln::purpose::decoding).state;
  const index exact = cache_bytes<M, float>(2, false), smaller = cache_bytes<M, Code>(2, scaled);
  BOOST_TEST(saved == exact - smaller);
  const double size = magnitude(all.logits);
  auto s = open(p, 1);
  for (const std::vector<index>& pieces :
       {std::vector<index>(length, 1), {length}, {5, 3, 1, 1, 20, 28}, {1, 49, 1, 7}}) {
    if constexpr (sequences<M, float>::encodes)
      BOOST_REQUIRE(s.encode(std::span(all.source).first(7)));
    else
      s.reset();
    index position = 0;
    double worst = 0;
    for (const index piece : pieces) {
      const auto logits = s.feed(all.input(0, position, piece));
      position += piece;
      worst = (std::max)(worst, distance(logits, all.after(0, position)));
    }
    BOOST_TEST(worst <= error * size);
    BOOST_TEST(worst >= error * size / 1000);  // something was rounded
  }
}

// Half a unit of the last place: 2^-9 of a number in bf16, 2^-12 in f16, 1/254 of a head's largest
// in int8. Two
// layers of attention pass on up to eight of these: of keys, values, and of sharp scores.
BOOST_AUTO_TEST_CASE(keys_and_values_as_bf16) {
  check_codes<llama, ln::kv::bf16, ln::simd::bf16_code>(8.0 / 512);
  check_codes<t5, ln::kv::bf16, ln::simd::bf16_code>(8.0 / 512);
}
BOOST_AUTO_TEST_CASE(keys_and_values_as_f16) {
  check_codes<llama, ln::kv::f16, ln::simd::f16_code>(8.0 / 4096);
  check_codes<t5, ln::kv::f16, ln::simd::f16_code>(8.0 / 4096);
}
BOOST_AUTO_TEST_CASE(keys_and_values_as_int8) {
  check_codes<llama, ln::kv::int8, std::int8_t>(8.0 / 254);
  check_codes<t5, ln::kv::int8, std::int8_t>(8.0 / 254);
}

// Taking tokens back and feeding others equals never having fed them.
BOOST_AUTO_TEST_CASE(truncated_cache) {
  const auto p = random_packed<llama, float>();
  const sequences<llama, float> all(p);
  auto s = open(p, 1);
  (void)s.feed(all.input(0, 0, 20));
  (void)s.feed(all.input(1, 0, 9));
  BOOST_TEST(s.truncate(20));
  BOOST_TEST(s.position() == 20);
  BOOST_TEST(!s.truncate(25));  // longer than what there is: nothing happens
  BOOST_TEST(s.position() == 20);
  const auto logits = s.feed(all.input(0, 20, 5));
  BOOST_TEST(distance(logits, all.after(0, 25)) <= same_result<float>);
}

// A second source or sequence in the same session sees nothing of the first.
template <class M>
void check_new_start() {
  const auto p = random_packed<M, float>();
  const sequences<M, float> all(p);
  auto used = open(p, 1), fresh = open(p, 1);
  check_pieces(all, used, 0, {length});
  all.start(used, 1);
  all.start(fresh, 1);
  for (index i = 0; i < 5; ++i)
    BOOST_TEST(same_bits(used.feed(all.input(1, i, 1)), fresh.feed(all.input(1, i, 1))));
}
BOOST_AUTO_TEST_CASE(sessions_start_anew) {
  check_new_start<t5>();
  check_new_start<rwkv4>();
  check_new_start<rwkv7>();
}

// A recurrent state cannot take back its last tokens, and its models say so.
static_assert(hashed::can_truncate && routed::can_truncate && llama::can_truncate &&
              t5::can_truncate && !rwkv4::can_truncate && !rwkv7::can_truncate &&
              !t5_channel_mix::can_truncate && window::can_truncate && window::evicts &&
              !llama::evicts);

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::cache_test
