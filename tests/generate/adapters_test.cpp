// SPDX-License-Identifier: MIT
// Sessions whose sequences have adapters of their own: each as if it were alone, and as the model
// that base and adapter are together.

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::adapters_test {

namespace {

/// A base with two adapters of unlike ranks and matrices.
template <class M, class S, class Second = ln::target_modules<"q", "o">>
struct shared_base {
  using Q = typename M::template with_storage<S>;
  using first_type = ln::adapted<Q, ln::lora<2>>;
  using second_type = ln::adapted<Q, ln::lora<5, Second>>;
  ln::weights<M> numbers;
  ln::packed<Q> base;
  ln::weights<first_type> first_weights;
  ln::weights<second_type> second_weights;
  ln::packed<first_type> first;
  ln::packed<second_type> second;

  shared_base() {
    randomize(numbers);
    if constexpr (std::is_same_v<S, ln::storage::f32>) {
      base = ln::pack(numbers);
    } else {
      const auto q = ln::quantize<S>(numbers);
      numbers = decoded<M>(q);
      base = ln::pack(q);
    }
    auto a = ln::adapt<ln::lora<2>>(base, {.alpha = 3});
    auto b = ln::adapt<typename second_type::method>(base, {.alpha = 4, .rslora = true});
    BOOST_REQUIRE(static_cast<bool>(a) && static_cast<bool>(b));
    randomize(*a, 2);
    randomize(*b, 3);
    first = ln::pack(*a);
    second = ln::pack(*b);
    first_weights = std::move(*a);
    second_weights = std::move(*b);
  }
  /// Gives sequence `b` adapter `id`; 0 is none.
  bool choose(ln::session<Q>& s, index b, int id) const {
    return id == 0   ? s.clear_adapter(b)
           : id == 1 ? s.set_adapter(b, first)
                     : s.set_adapter(b, second);
  }
  /// The model that the base and adapter `id` are together.
  ln::packed<M> merged(int id) const {
    auto w = numbers.clone();
    if (id == 1) LINNET_REQUIRE_OK(ln::merge(w, first_weights));
    if (id == 2) LINNET_REQUIRE_OK(ln::merge(w, second_weights));
    return ln::pack(w);
  }
};

/// Beside those, adapters that put virtual tokens before texts, change branches and add gated keys:
/// numbers 3 to 6.
template <class M>
struct with_virtual : shared_base<M, ln::storage::f32> {
  using plain = shared_base<M, ln::storage::f32>;
  using prompted = ln::adapted<M, ln::prompt_tuning<3>>;
  using prefixed = ln::adapted<M, ln::prefix_tuning<2>>;
  using narrow = ln::adapted<M, ln::bottleneck<3>>;
  using gated = ln::adapted<M, ln::gated_prefix<3, 1>>;
  ln::packed<prompted> prompt;
  ln::packed<prefixed> prefix;
  ln::packed<narrow> branch;
  ln::packed<gated> keys;

  with_virtual() {
    auto a = ln::adapt<ln::prompt_tuning<3>>(this->base);
    auto b = ln::adapt<ln::prefix_tuning<2>>(this->base);
    BOOST_REQUIRE(static_cast<bool>(a) && static_cast<bool>(b));
    prompt = ln::pack(*a);
    prefix = ln::pack(*b);
    auto c = ln::adapt<ln::bottleneck<3>>(this->base);
    auto e = ln::adapt<ln::llama_adapter<3, 1>>(this->base);
    BOOST_REQUIRE(static_cast<bool>(c) && static_cast<bool>(e));
    randomize(*c, 4);
    randomize(*e, 5);
    branch = ln::pack(*c);
    auto folded = ln::fold(*e);
    LINNET_REQUIRE_OK(folded);
    keys = ln::pack(*folded);
  }
  bool choose(ln::session<M>& s, index b, int id) const {
    return id == 3   ? s.set_adapter(b, prompt)
           : id == 4 ? s.set_adapter(b, prefix)
           : id == 5 ? s.set_adapter(b, branch)
           : id == 6 ? s.set_adapter(b, keys)
                     : plain::choose(s, b, id);
  }
};

constexpr index length = 5, steps = 4;

/// The source or prompt of sequence `b`, and what follows.
std::vector<token> text(index b, index vocabulary) {
  return tokens(length + steps, vocabulary, std::uint64_t(b) + 7);
}

/// Feeds sequences together, those of `which`, with their adapters; all logits of each.
template <class M, class Put>
std::vector<std::vector<float>> feed(ln::session<M>& s, std::span<const index> which, Put&& put) {
  const auto batch = static_cast<index>(which.size());
  std::vector<std::vector<float>> all(which.size());
  for (index i = 0; i < batch; ++i) BOOST_REQUIRE(put(i, which[at(i)]));
  std::vector<token> prompt, next;
  for (const index b : which) {
    const auto whole = text(b, M::vocabulary);
    prompt.insert(prompt.end(), whole.begin(), whole.begin() + length);
  }
  const auto take = [&](std::span<const float> logits) {
    BOOST_REQUIRE_MESSAGE(!logits.empty(), s.last_refusal());
    for (index i = 0; i < batch; ++i) {
      const auto row = logits.subspan(at(i * M::vocabulary), at(M::vocabulary));
      all[at(i)].insert(all[at(i)].end(), row.begin(), row.end());
    }
  };
  if constexpr (M::encodes) {
    const std::vector<index> lengths(which.size(), length);
    BOOST_REQUIRE(s.encode(prompt, batch, lengths));
  } else {
    take(s.feed(prompt, batch, {}));
  }
  for (index t = 0; t < steps; ++t) {
    next.clear();
    for (const index b : which) next.push_back(text(b, M::vocabulary)[at(length + t)]);
    take(s.feed(next, batch, {}));
  }
  return all;
}

template <class M, class S, class Second = ln::target_modules<"q", "o">>
void check(double bound) {
  const shared_base<M, S, Second> b;
  using Q = typename shared_base<M, S, Second>::Q;
  constexpr int ids[] = {1, 2, 0, 1};
  const ln::limits l{.batch = 4,
                     .source = length,
                     .target = length + steps,
                     .threads = 3,
                     .min_flops_per_thread = 0};
  auto many = ln::session<Q>::open(b.base, l);
  BOOST_REQUIRE(static_cast<bool>(many));
  const index everyone[] = {0, 1, 2, 3};
  const auto together = feed<Q>(
      *many, everyone, [&](index i, index which) { return b.choose(*many, i, ids[which]); });
  for (index i = 0; i < 4; ++i) {
    // Codes multiply one row in another order than several: the same bits in a batch of four.
    auto alike = ln::session<Q>::open(b.base, l);
    const auto same = feed<Q>(
        *alike, everyone, [&](index at_row, index) { return b.choose(*alike, at_row, ids[i]); });
    BOOST_TEST(same_bits(together[at(i)], same[at(i)]), "sequence " << i);
    auto one = ln::session<Q>::open(b.base, l);
    const index only[] = {i};
    const auto alone =
        feed<Q>(*one, only, [&](index, index which) { return b.choose(*one, 0, ids[which]); });
    if (S::per_word == 1) BOOST_TEST(same_bits(together[at(i)], alone[0]), "sequence " << i);
    const auto merged = b.merged(ids[i]);
    auto whole = ln::session<M>::open(merged, l);
    const auto expected = feed<M>(*whole, only, [](index, index) { return true; });
    double largest = 0, worst = 0;
    for (std::size_t j = 0; j < expected[0].size(); ++j) {
      largest = (std::max)(largest, std::abs(double{expected[0][j]}));
      worst = (std::max)(worst, std::abs(double{expected[0][j]} - double{alone[0][j]}));
    }
    BOOST_TEST(worst <= bound * largest, worst << " of " << largest << ", sequence " << i);
  }
  BOOST_TEST(!same_bits(together[0], together[1]));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(adapters)

BOOST_AUTO_TEST_CASE(decoder_in_codes) {
  check<ln::decoder<tiny_decoder_shape>, ln::storage::int4<8>>(1e-5);
}
BOOST_AUTO_TEST_CASE(encoder_decoder) { check<ln::t5<tiny_t5_shape>, ln::storage::f32>(1e-5); }
BOOST_AUTO_TEST_CASE(recurrence) {
  check<ln::rwkv4<tiny_decoder_shape>, ln::storage::int8, ln::target_modules<"key", "value">>(1e-5);
}
// Each expert takes as many rows of a sequence as chose it.
BOOST_AUTO_TEST_CASE(experts) {
  check<ln::decoder<tiny_decoder_shape, ln::ffn::experts<3, 2>>, ln::storage::f32>(1e-5);
}

// A fork goes on with its adapter, whatever the other sequence had read with another one.
BOOST_AUTO_TEST_CASE(forks_and_refusals) {
  using M = ln::decoder<tiny_decoder_shape>;
  const shared_base<M, ln::storage::f32> b;
  auto s = ln::session<M>::open(b.base, {.batch = 3, .target = 16});
  BOOST_REQUIRE(s && s->set_adapter(0, b.first) && s->set_adapter(1, b.second));
  const auto words = text(0, M::vocabulary);
  std::vector<token> twice(words.begin(), words.begin() + 4);
  twice.insert(twice.end(), words.begin(), words.begin() + 4);
  BOOST_REQUIRE(!s->feed(twice, 2, {}).empty());
  BOOST_REQUIRE(s->fork(0, 1));
  const token more[] = {words[5], words[5]};
  const auto logits = s->feed(more, 2, {});
  BOOST_REQUIRE(!logits.empty());
  BOOST_TEST(same_bits(logits.first(at(M::vocabulary)), logits.subspan(at(M::vocabulary))));

  BOOST_TEST(!s->set_adapter(0, b.second));
  BOOST_TEST(s->last_refusal() == to_string(ln::refusal::adapter_late));
  BOOST_TEST(!s->clear_adapter(3));
  BOOST_TEST(s->last_refusal() == to_string(ln::refusal::no_sequence));
  s->reset();
  BOOST_TEST(s->clear_adapter(0));
  const shared_base<M, ln::storage::f32> other;
  BOOST_TEST(!s->set_adapter(0, other.first));
  BOOST_TEST(s->last_refusal() == to_string(ln::refusal::other_base));
  ln::packed<shared_base<M, ln::storage::f32>::first_type> nobody;
  BOOST_TEST(!s->set_adapter(0, nobody));
}

// A source that was encoded with another sequence's adapter is not read with one's own.
BOOST_AUTO_TEST_CASE(sources_of_forks) {
  using M = ln::t5<tiny_t5_shape>;
  const shared_base<M, ln::storage::f32> b;
  auto s = ln::session<M>::open(b.base, {.batch = 3, .source = 4, .target = 4});
  BOOST_REQUIRE(s && b.choose(*s, 0, 1) && b.choose(*s, 1, 2) && b.choose(*s, 2, 1));
  const auto source = tokens(12, M::vocabulary, 3);
  const index lengths[] = {4, 4, 4};
  const token starts[] = {M::start, M::start, M::start};
  const auto feed = [&](index first) {
    return !s->feed(std::span(starts).first(at(first)), first, {}).empty();
  };
  for (const bool all : {false, true}) {
    BOOST_REQUIRE(s->encode(source, 3, lengths));
    BOOST_REQUIRE((feed(3) && s->fork(0, 1) && s->fork(0, 2) && feed(3)));
    if (all)
      s->reset();
    else
      BOOST_REQUIRE((s->truncate(0, 1) && s->truncate(0, 2)));
    BOOST_TEST(feed(1));
    BOOST_TEST(!feed(2));
    BOOST_TEST(s->last_refusal() == to_string(ln::refusal::no_source));
    BOOST_REQUIRE(s->fork(2, 1));  // of a like adapter: its source stays
    BOOST_TEST(feed(3));
  }
}

// Hypotheses of a search fork into sequences that have adapters of their own: each has it again for
// its next text, whether by reset() or by truncation.
BOOST_AUTO_TEST_CASE(searches_keep_adapters) {
  using M = ln::decoder<tiny_decoder_shape>;
  const shared_base<M, ln::storage::f32> b;
  const ln::limits l{.batch = 3, .target = 16};
  auto s = ln::session<M>::open(b.base, l);
  auto merged = b.merged(1);
  auto plain = ln::session<M>::open(merged, l);
  BOOST_REQUIRE(s && plain && b.choose(*s, 0, 1) && b.choose(*s, 1, 2));
  const auto words = text(0, M::vocabulary);
  auto search = ln::beam_search<M>::open(*s, {.width = 3});
  auto other = ln::beam_search<M>::open(*plain, {.width = 3});
  BOOST_REQUIRE(search && other);
  const auto found = (*search)(std::span(words).first(4), {.tokens = 5});
  const auto wanted = (*other)(std::span(words).first(4), {.tokens = 5});
  BOOST_REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    BOOST_TEST(std::abs(found[i].log_probability - wanted[i].log_probability) <= 1e-4);
  const auto check = [&] {
    std::vector<token> all;
    for (int i = 0; i < 3; ++i) all.insert(all.end(), words.begin(), words.begin() + 4);
    const auto logits = s->feed(all, 3, {});
    BOOST_REQUIRE(!logits.empty());
    for (index i = 0; i < 3; ++i) {
      auto alone = ln::session<M>::open(b.base, {.target = 16});
      BOOST_REQUIRE(alone && b.choose(*alone, 0, i == 0 ? 1 : i == 1 ? 2 : 0));
      BOOST_TEST(same_bits(logits.subspan(at(i * M::vocabulary), at(M::vocabulary)),
                           alone->feed(std::span(words).first(4), 1, {})),
                 "sequence " << i);
    }
  };
  for (index i = 0; i < 3; ++i) BOOST_REQUIRE(s->truncate(0, i));
  check();
  BOOST_REQUIRE(!(*search)(std::span(words).first(4), {.tokens = 5}).empty());
  s->reset();
  check();
}

/// Logits of a text with an adapter, all at once.
template <class A>
std::vector<float> whole_logits(const ln::packed<A>& p, std::span<const token> words) {
  std::vector<float> logits(words.size() * at(A::vocabulary));
  auto e = ln::evaluator<A>::open(p, {.target = std::ssize(words)});
  LINNET_REQUIRE_OK(e);
  (void)e->loss({words.data(), words.data(), 1, std::ssize(words)}, logits);
  return logits;
}
// Virtual tokens take the first rows of the caches, in parts of a chunk, and nobody else's.
BOOST_AUTO_TEST_CASE(virtual_tokens) {
  using M = ln::decoder<tiny_decoder_shape>;
  const with_virtual<M> b;
  const auto words = tokens(5, M::vocabulary, 4);
  const auto check = [&](std::span<const float> got, std::span<const float> want) {
    BOOST_REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      BOOST_TEST(std::abs(got[i] - want[i]) <= 2e-5 * (1 + std::abs(want[i])));
  };
  const auto size = at(5 * M::vocabulary);
  std::vector<token> all;
  for (int i = 0; i < 6; ++i) all.insert(all.end(), words.begin(), words.end());
  auto s = ln::session<M>::open(b.base, {.batch = 6, .target = 8, .max_logits = 5});
  BOOST_REQUIRE(s && b.choose(*s, 0, 3) && b.choose(*s, 2, 4) && b.choose(*s, 3, 1) &&
                b.choose(*s, 4, 5) && b.choose(*s, 5, 6));
  BOOST_TEST(s->capacity() == 5);
  for (int again = 0; again < 2; ++again) {
    const std::span<const float> logits = s->feed_all(all, 6, {});
    BOOST_REQUIRE_MESSAGE(!logits.empty(), s->last_refusal());
    BOOST_TEST(s->position(0) == 5);
    BOOST_TEST(s->fed(0).size() == 5u);
    check(logits.first(size), whole_logits(b.prompt, words));
    check(logits.subspan(2 * size, size), whole_logits(b.prefix, words));
    check(logits.subspan(3 * size, size), whole_logits(b.first, words));
    check(logits.subspan(4 * size, size), whole_logits(b.branch, words));
    check(logits.subspan(5 * size, size), whole_logits(b.keys, words));
    auto alone = ln::session<M>::open(b.base, {.target = 5, .max_logits = 5});
    BOOST_TEST(same_bits(logits.subspan(size, size), alone->feed_all(words)));
    s->reset();
  }
  // A tree behind them, from the first token on; the path that is kept is the text.
  for (const int id : {3, 4}) {
    for (const index blocks : {0, 1}) {
      auto tree = ln::session<M>::open(b.base, {.target = 8, .kv_blocks = blocks, .max_logits = 5});
      BOOST_REQUIRE(tree && b.choose(*tree, 0, id));
      const std::vector<token> nodes{words[0], words[3], words[1]};
      const index parents[] = {-1, -1, 0};
      const std::span<const float> branches = tree->feed_tree(nodes, parents);
      BOOST_REQUIRE_MESSAGE(!branches.empty(), tree->last_refusal());
      const auto want = id == 3 ? whole_logits(b.prompt, words) : whole_logits(b.prefix, words);
      const auto row = at(M::vocabulary);
      check(branches.first(row), std::span(want).first(row));
      check(branches.subspan(2 * row, row), std::span(want).subspan(row, row));
      BOOST_TEST(tree->keep_path(2));
      BOOST_TEST(tree->position() == 2);
      check(tree->feed_all(std::span(words).subspan(2)), std::span(want).subspan(2 * row));
    }
  }
  // A text that has no room behind them.
  BOOST_TEST(s->feed(tokens(6, M::vocabulary, 1), 1, {}).empty());
  BOOST_TEST(s->last_refusal() == to_string(ln::refusal::over_target));
  auto parts = ln::session<M>::open(b.base, {.target = 8, .chunk = 2});
  BOOST_REQUIRE(parts && b.choose(*parts, 0, 3));
  const auto prompted = whole_logits(b.prompt, words);
  check(parts->reset_and_prefill(words), std::span(prompted).last(at(M::vocabulary)));
  index generated = 0;
  parts->generate(std::span(words).first(2), ln::greedy{}, [&](token) { ++generated; });
  BOOST_TEST(generated == 4);  // three more fit, and what follows them
}
// Virtual tokens are read beside a text that has room for one more token.
BOOST_AUTO_TEST_CASE(virtual_tokens_beside_a_full_one) {
  using M = ln::decoder<tiny_decoder_shape>;
  const with_virtual<M> b;
  const auto words = tokens(16, M::vocabulary, 4);
  auto s = ln::session<M>::open(b.base, {.batch = 2, .target = 16});
  auto one = ln::session<M>::open(b.base, {.target = 16});
  BOOST_REQUIRE(s && one && b.choose(*s, 1, 3) && b.choose(*one, 0, 3));
  BOOST_REQUIRE(!s->feed(std::span(words).first(15)).empty());
  const token last[] = {words[15], words[0]};
  const std::span<const float> both = s->feed(last, 2, {});
  BOOST_REQUIRE_MESSAGE(!both.empty(), s->last_refusal());
  const auto row = at(M::vocabulary);
  BOOST_TEST(same_bits(both.subspan(row), one->feed(std::span(words).first(1))));
  one->reset();
  BOOST_REQUIRE(one->clear_adapter(0) && !one->feed(std::span(words).first(15)).empty());
  BOOST_TEST(same_bits(both.first(row), one->feed(std::span(words).last(1))));
}
// Soft tokens before a recurrence.
BOOST_AUTO_TEST_CASE(virtual_tokens_of_a_recurrence) {
  using M = ln::rwkv4<tiny_decoder_shape>;
  ln::weights<M> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto made = ln::adapt<ln::prompt_tuning<3>>(base);
  LINNET_REQUIRE_OK(made);
  const auto prompt = ln::pack(*made);
  const auto words = tokens(5, M::vocabulary, 4);
  auto s = ln::session<M>::open(base, {.batch = 2, .target = 12});
  auto plain = ln::session<M>::open(base, {.target = 12});
  BOOST_REQUIRE(s && plain && s->set_adapter(1, prompt));
  std::vector<token> twice(words);
  twice.insert(twice.end(), words.begin(), words.end());
  const std::span<const float> logits = s->feed(twice, 2, {});
  BOOST_REQUIRE(!logits.empty());
  const auto want = whole_logits(prompt, words);
  for (std::size_t i = 0; i < at(M::vocabulary); ++i)
    BOOST_TEST(std::abs(logits[at(M::vocabulary) + i] - want[4 * at(M::vocabulary) + i]) <=
               2e-5 * (1 + std::abs(want[4 * at(M::vocabulary) + i])));
  BOOST_TEST(same_bits(logits.first(at(M::vocabulary)), plain->feed(words)));
}

// Parts of unequal lengths, truncation, forks and new adapters, in any order: each sequence is as
// if it were alone, in paged caches and others.
BOOST_AUTO_TEST_CASE(calls_in_any_order) {
  using M = ln::decoder<tiny_decoder_shape>;
  const with_virtual<M> b;
  constexpr index sequences = 3, most = 12, part = 4, front = 3;
  ln::random_stream random(ln::seed{11}, 0);
  const auto below = [&](index n) {
    return static_cast<index>(random.bits() % static_cast<std::uint64_t>(n));
  };
  for (const index blocks : {0, 3}) {
    auto s = ln::session<M>::open(
        b.base, {.batch = sequences, .target = most + front, .kv_blocks = blocks});
    auto alone = ln::session<M>::open(b.base, {.batch = 1, .target = most + front});
    BOOST_REQUIRE(static_cast<bool>(s) && static_cast<bool>(alone));
    std::vector<token> read[sequences];
    int ids[sequences] = {1, 3, 4};
    for (index i = 0; i < sequences; ++i) BOOST_REQUIRE(b.choose(*s, i, ids[i]));
    index compared = 0;
    for (int call = 0; call < 80; ++call) {
      const index one = below(sequences), other = below(sequences);
      if (call % 4 == 2) {
        const index length = below(std::ssize(read[one]) + 1);
        BOOST_REQUIRE(s->truncate(length, one));
        read[one].resize(at(length));
        if (length > 0) continue;
        ids[one] = static_cast<int>(below(7));
        BOOST_REQUIRE(b.choose(*s, one, ids[one]));
      } else if (call % 4 == 3) {
        if (one == other) continue;
        BOOST_REQUIRE(s->fork(one, other));
        read[other] = read[one];
        ids[other] = ids[one];
      } else {
        const index count = 1 + below(sequences);
        std::vector<token> tokens(at(count * part));
        std::vector<index> lengths;
        for (index i = 0; i < count; ++i) {
          if (std::ssize(read[i]) + part > most) {
            BOOST_REQUIRE(s->truncate(1, i));
            read[i].resize(1);
          }
          lengths.push_back(1 + below(part));
          for (index j = 0; j < lengths.back(); ++j) {
            tokens[at(i * part + j)] = static_cast<token>(below(M::vocabulary));
            read[i].push_back(tokens[at(i * part + j)]);
          }
        }
        const auto logits = s->feed(tokens, count, lengths);
        BOOST_REQUIRE_MESSAGE(!logits.empty(), s->last_refusal());
        for (index i = 0; i < count; ++i, ++compared) {
          alone->reset();
          BOOST_REQUIRE(b.choose(*alone, 0, ids[i]));
          const auto expected = alone->feed(read[i], 1, {});
          double largest = 0, worst = 0;
          for (std::size_t j = 0; j < expected.size(); ++j) {
            largest = (std::max)(largest, std::abs(double{expected[j]}));
            worst = (std::max)(
                worst, std::abs(double{expected[j]} - double{logits[at(i * M::vocabulary) + j]}));
          }
          BOOST_TEST(worst <= 1e-5 * largest, "call " << call << ", sequence " << i);
        }
      }
    }
    BOOST_TEST(compared > 60);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::adapters_test
