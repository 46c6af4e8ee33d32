// Decoding through the key-value cache equals running the whole sequence at once: token by token,
// in chunks, and in batches of sequences of different lengths.

#include "support/scoring.hpp"

namespace test {

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

/// Sequences with the logits of all their positions, computed without a cache. For T5 the inputs
/// are the start token and the labels but the last; each sequence has a source of its own.
template <class M, class T>
struct sequences {
  static constexpr bool encodes = M::family == ln::model_family::t5;
  static constexpr index batch = 3;
  std::vector<token> source, inputs;
  std::vector<index> lengths{7, 3, 6};
  std::vector<T> logits;

  explicit sequences(const ln::packed<M, T>& p) {
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
  void start(ln::session<M, T>& s, index b) const {
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
ln::session<M, T> open(const ln::packed<M, T>& p, index batch, int threads = 1) {
  auto s = ln::session<M, T>::open(
      p, {.batch = batch, .source = 7, .target = length, .threads = threads, .grain = 0});
  BOOST_REQUIRE(static_cast<bool>(s));
  return *std::move(s);
}

/// Feeds one sequence in pieces and compares the logits after each piece.
template <class M, class T>
void check_pieces(const sequences<M, T>& all, ln::session<M, T>& s, index b,
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
  BOOST_TEST(position == length);
  BOOST_TEST(worst <= same_result<T>);
}

template <class M, class T>
void check_cache() {
  const auto p = random_packed<M, T>();
  const sequences<M, T> all(p);
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

// Taking tokens back and feeding others equals never having fed them.
BOOST_AUTO_TEST_CASE(truncated_cache) {
  const auto p = random_packed<llama, float>();
  const sequences<llama, float> all(p);
  auto s = open(p, 1);
  (void)s.feed(all.input(0, 0, 20));
  (void)s.feed(all.input(1, 0, 9));
  s.truncate(20);
  BOOST_TEST(s.position() == 20);
  s.truncate(25);  // longer than what there is: nothing happens
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

// A recurrent state cannot forget its last tokens, and its sessions do not say they could.
template <class M>
concept truncates = requires(ln::session<M> s) {
  s.truncate(1);
};
static_assert(truncates<llama> && truncates<t5> && !truncates<rwkv4> && !truncates<rwkv7> &&
              !truncates<t5_channel_mix>);

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
