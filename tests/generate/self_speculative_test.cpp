// SPDX-License-Identifier: MIT
// Early exit and self-speculative decoding: the model that ends early, texts and their
// distribution, the cache behind rejected drafts, and what each layer has computed.

#include <array>

#include "support/data.hpp"
#include "support/law.hpp"

namespace test::self_speculative_test {

namespace {

constexpr ln::decoder_shape with_layers(index n) {
  ln::decoder_shape shape = tiny_decoder_shape;
  shape.layers = n;
  return shape;
}
using M = ln::decoder<with_layers(3)>;

/// Rows that each layer has been run on.
struct row_counts {
  std::array<index, 8> rows{};
};
inline row_counts counted;

/// y = x / 2, and counts.
template <index D>
struct counting_layer : ln::without_parameters, ln::without_cache {
  static constexpr index in = D, out = D;
  template <class T, class S, class P, class C>
  static void forward(const P&, ln::view<const T, D> x, ln::view<T, D> y, C&, ln::context<T>& ctx) {
    counted.rows[at(ctx.stack.layer)] += x.rows();
    for (index i = 0; i < x.size(); ++i) y.data()[i] = x.data()[i] / 2;
  }
  static constexpr index flops(const ln::call_shape&) { return 0; }
};
struct counting : ln::ffn::policy {
  template <index D, index, bool>
  using layer = counting_layer<D>;
};

template <class Model, class T>
ln::self_speculative<Model, T> speculation(ln::session<Model, T>& s, index exit, index drafts) {
  auto made = ln::self_speculative<Model, T>::open(s, exit, drafts);
  BOOST_REQUIRE(static_cast<bool>(made));
  return *std::move(made);
}
/// A session that ends after its first N layers against the model that has no others.
template <index N>
void check_exit(ln::session<M, double>& s, const ln::weights<M, double>& w) {
  ln::weights<ln::decoder<with_layers(N)>, double> first;
  first.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    w.visit([&](const ln::parameter_path& from, const ln::tensor_info&, const auto& values) {
      if (from.str() == where.str()) std::copy_n(values_of(values), info.size(), values_of(leaf));
    });
  });
  const auto p = ln::pack(first);
  auto alone = opened(p, {.batch = 2, .target = 20, .max_logits = 3});
  BOOST_REQUIRE(s.exit_after(N));
  BOOST_TEST(s.position() == 0);
  const auto some = tokens(12, M::vocabulary, 4);
  const index lengths[] = {3, 2};
  const auto compare = [](std::span<const double> a, std::span<const double> b) {
    BOOST_TEST(same_bits(a, b));
  };
  compare(s.feed(std::span(some).first(6), 2, lengths),
          alone.feed(std::span(some).first(6), 2, lengths));
  compare(s.feed(std::span(some).last(2), 2, {}), alone.feed(std::span(some).last(2), 2, {}));
  compare(s.feed_all(std::span(some).first(6), 2, {}),
          alone.feed_all(std::span(some).first(6), 2, {}));
  BOOST_TEST(text_of(s, some, ln::greedy{}) == text_of(alone, some, ln::greedy{}),
             boost::test_tools::per_element());
}

/// Greedy texts of one session and its speculation.
template <class Model>
void check_greedy(const ln::limits& l, index exit, index drafts) {
  const auto p = random_packed<Model, float>(6);
  ln::limits plain = l;
  plain.kv_blocks = 0;
  auto whole = opened(p, plain), s = opened(p, l);
  auto fast = speculation(s, exit, drafts);
  const auto compare = [&](std::span<const token> prompt, const ln::generation_options& g) {
    const auto want = text_of(whole, prompt, ln::greedy{}, g);
    (void)s.exit_after(1);  // which a text of the whole model takes back
    BOOST_TEST(text_of(fast, prompt, ln::greedy{}, g) == want, boost::test_tools::per_element());
    ln::sampler cold({.temperature = 0});
    BOOST_TEST(text_of(fast, prompt, cold, g) == want, boost::test_tools::per_element());
    return want;
  };
  for (std::uint64_t stream = 1; stream <= 4; ++stream)
    compare(tokens(6, Model::vocabulary, stream), {});
  const auto prompt = tokens(6, Model::vocabulary, 1);
  const auto whole_text = compare(prompt, {});
  for (const index most : {1, 2, 5, 100}) compare(prompt, {.tokens = most});
  const token stop[] = {whole_text[6], whole_text[3]};
  compare(prompt, {.stop = stop});
  compare(std::span(prompt).first(1), {});
  compare(tokens(20, Model::vocabulary, 2), {});
  compare(tokens(19, Model::vocabulary, 2), {});
  // Nothing for what does not fit; and emit ends it.
  index calls = 0;
  const auto once = [&](token) { return ++calls < 3; };
  BOOST_TEST(fast.generate(prompt, ln::greedy{}, once) == 3);
  BOOST_TEST(calls == 3);
  BOOST_TEST(fast.generate(tokens(21, Model::vocabulary, 2), ln::greedy{}, once) == 0);
  BOOST_TEST(fast.generate({}, ln::greedy{}, once) == 0);
  const token unknown[] = {1, 99};
  BOOST_TEST(fast.generate(unknown, ln::greedy{}, once) == 0);
  BOOST_TEST(calls == 3);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(self_speculation)

BOOST_AUTO_TEST_CASE(early_exit) {
  ln::weights<M, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto s = opened(p, {.batch = 2, .target = 20, .max_logits = 3});
  for (const index no : {0, 4, -1}) BOOST_TEST(!s.exit_after(no));
  check_exit<1>(s, w);
  check_exit<2>(s, w);
  check_exit<3>(s, w);
}
// A first layer of another type is a stack of its own.
BOOST_AUTO_TEST_CASE(early_exit_of_rwkv7) {
  using R = ln::rwkv7<tiny_rwkv7_shape>;
  const auto p = random_packed<R, double>();
  auto scoring = ln::evaluator<R, double>::open(p, {.target = 6});
  auto s = opened(p, {.target = 6, .max_logits = 6});
  const auto data = decoder_tokens(1, 6, R::vocabulary);
  std::vector<ln::loss_sum> each(2);
  BOOST_REQUIRE(scoring->exit_losses(data.view(), each));
  for (const index layers : {1, 2}) {
    BOOST_REQUIRE(s.exit_after(layers));
    const auto logits = s.feed_all(data.inputs);
    double nats = 0;
    for (index i = 0; i < 6; ++i) {
      const auto row = logits.subspan(at(i * R::vocabulary), at(R::vocabulary));
      double sum = 0;
      for (const double l : row) sum += std::exp(l);
      nats += std::log(sum) - row[at(data.labels[at(i)])];
    }
    BOOST_TEST(distance_of(nats, each[at(layers - 1)].nats) < 1e-11);
  }
  BOOST_TEST(each[0].nats != each[1].nats);
}

BOOST_AUTO_TEST_CASE(greedy_texts) {
  for (const index exit : {1, 2, 3})
    for (const index drafts : {1, 3, 6})
      check_greedy<M>({.target = 20, .max_logits = 7}, exit, drafts);
  check_greedy<M>({.target = 20, .chunk = 4, .max_logits = 4}, 1, 3);
  check_greedy<M>({.target = 20, .kv_blocks = 1, .max_logits = 4}, 2, 3);
  using windowed = M::with_attention<ln::attention::sliding_window<4>>;
  check_greedy<windowed>({.target = 20, .chunk = 5, .max_logits = 4}, 1, 3);
  check_greedy<M::with_attention<ln::attention::prefix>>({.target = 20, .max_logits = 4}, 1, 3);
  check_greedy<M::with_cache<ln::kv::int8>>({.target = 20, .max_logits = 4}, 1, 3);
  using routed = ln::decoder<with_layers(3), ln::depths::mixture_of_depths<0.5>>;
  check_greedy<routed>({.target = 20, .max_logits = 4}, 1, 3);
  check_greedy<routed>({.target = 20, .max_logits = 4}, 2, 3);
  check_greedy<ln::decoder<with_layers(3), ln::sharing::all, ln::embedding::factorised<4>>>(
      {.target = 20, .max_logits = 4}, 2, 3);
}

BOOST_AUTO_TEST_CASE(law_of_the_model) {
  using four = ln::decoder<four_tokens>;
  const auto p = random_packed<four, double>(21);
  const std::vector<token> prompt{3, 1, 2};
  const token stop[] = {2};
  const auto check = [&](const ln::sampling_options& how, index drafts,
                         const ln::generation_options& g) {
    auto s = opened(p, {.target = 10, .max_logits = drafts + 1});
    auto fast = speculation(s, 1, drafts);
    long accepted = 0, rejected = 0;
    check_law_of_generation(p, prompt, how, g, [&](auto& choose, const auto& emit) {
      const index n = fast.generate(prompt, choose, emit, g);
      accepted += fast.counts().accepted;
      rejected += fast.counts().drafted - fast.counts().accepted;
      return n;
    });
    BOOST_TEST(accepted > 0);
    BOOST_TEST(rejected > 0);
  };
  check({}, 2, {.tokens = 4});
  check({}, 3, {.tokens = 4});
  check({.temperature = 1.7, .top_k = 3, .top_p = 0.9}, 2, {.tokens = 4});
  check({.temperature = 0.6, .min_p = 0.1, .repetition_penalty = 1.5}, 2, {.tokens = 4});
  check({}, 2, {.tokens = 4, .stop = stop});
}

// An exit behind the last layer is the model: every draft is accepted.
BOOST_AUTO_TEST_CASE(the_last_exit_agrees) {
  const auto p = random_packed<M, double>(5);
  auto s = opened(p, {.target = 30, .max_logits = 4});
  auto fast = speculation(s, 3, 3);
  const token prompt[] = {1, 2};
  for (const double temperature : {0.0, 1.2}) {
    ln::sampler choose({.temperature = temperature, .top_p = 0.95, .repetition_penalty = 3});
    BOOST_TEST(text_of(fast, prompt, choose).size() == 29u);
    BOOST_TEST(fast.counts().rounds == 7);  // of four tokens each, after the first token
    BOOST_TEST(fast.counts().tokens == 28);
    BOOST_TEST(fast.counts().drafted == 21);
    BOOST_TEST(fast.counts().accepted == fast.counts().drafted);
  }
}

// Wherever a text ends, the session is where a session is that was fed the same tokens.
BOOST_AUTO_TEST_CASE(cache_after_rejected_drafts) {
  const auto p = random_packed<M, double>(5);
  auto s = opened(p, {.target = 30, .max_logits = 5});
  auto fast = speculation(s, 1, 4);
  const auto prompt = tokens(5, M::vocabulary, 3), more = tokens(3, M::vocabulary, 4);
  index rejected = 0;
  for (index most = 1; most < 20; ++most) {
    const auto text = text_of(fast, prompt, ln::greedy{}, {.tokens = most});
    rejected += fast.counts().drafted - fast.counts().accepted;
    const std::vector<token> fed(s.fed().begin(), s.fed().end());
    BOOST_TEST(s.position() == std::ssize(prompt) + most - 1);
    for (index i = 0; i < std::ssize(fed); ++i)
      BOOST_TEST(fed[at(i)] == (i < 5 ? prompt[at(i)] : text[at(i - 5)]));
    auto fresh = opened(p, {.target = 30, .max_logits = 5});
    BOOST_REQUIRE(!fresh.feed(fed).empty());
    const auto want = fresh.feed_all(more);
    BOOST_TEST(distance(s.feed_all(more), want) <= 1e-13 * magnitude(want));
  }
  BOOST_TEST(rejected > 10);
}

// The layers before the exit run once on each token that is fed or drafted, and so do the others.
BOOST_AUTO_TEST_CASE(nothing_is_computed_twice) {
  using C = M::with_ffn<counting>;
  const auto p = random_packed<C, double>(5);
  auto s = opened(p, {.target = 30, .max_logits = 4});
  for (const index exit : {1, 2, 3}) {
    auto fast = speculation(s, exit, 3);
    const auto prompt = tokens(5, C::vocabulary, 3);
    counted = {};
    (void)text_of(fast, prompt, ln::greedy{}, {.tokens = 17});
    BOOST_TEST(fast.counts().tokens >= 16);
    const index want = 5 + fast.counts().drafted + fast.counts().rounds;
    for (index l = 0; l < 3; ++l) BOOST_TEST(counted.rows[at(l)] == want);
  }
}

// Where the blocks of a paged cache are used up, the text ends.
BOOST_AUTO_TEST_CASE(no_block_is_left) {
  const auto p = random_packed<M, float>(6);
  auto s = opened(p, {.batch = 2, .target = 64, .kv_blocks = 1, .max_logits = 4}),
       whole = opened(p, {.target = 64});
  auto fast = speculation(s, 1, 3);
  const auto prompt = tokens(5, M::vocabulary, 1);
  const auto text = text_of(fast, prompt, ln::greedy{}),
             want = text_of(whole, prompt, ln::greedy{});
  BOOST_TEST(text.size() >= 24u);
  BOOST_TEST(text.size() <= 28u);
  BOOST_TEST(text == std::vector<token>(want.begin(), want.begin() + std::ssize(text)),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(stories260k) {
  const std::string file = data_file("stories260K/stories260K.bin");
  if (file.empty()) return;
  using stories = ln::zoo::stories260k;
  ln::weights<stories> w;
  BOOST_REQUIRE(static_cast<bool>(ln::load_llama2c(w, file)));
  const auto p = ln::pack(w);
  auto s = opened(p, {.target = 200, .max_logits = 5});
  for (const std::vector<token>& prompt :
       {std::vector<token>{1}, {1, 403, 407, 261, 378}, {1, 300, 310}}) {
    const auto want = text_of(s, prompt, ln::greedy{});
    for (const index exit : {1, 3, 4, 5})
      for (const index drafts : {1, 4}) {
        auto fast = speculation(s, exit, drafts);
        BOOST_TEST(text_of(fast, prompt, ln::greedy{}) == want, boost::test_tools::per_element());
        if (exit == 5) BOOST_TEST(fast.counts().accepted == fast.counts().drafted);
        if (exit == 4 && drafts == 1) BOOST_TEST(fast.counts().per_round() > 1.2);
      }
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.target = 12, .max_logits = 3});
  const auto message = [&](index exit, index drafts) {
    const auto fast = ln::self_speculative<M>::open(s, exit, drafts);
    return fast ? "opened" : fast.error().message();
  };
  for (const index exit : {0, 4})
    BOOST_TEST(message(exit, 1) ==
               "self_speculative::open: exit: expected 1 to the model's layers, "
               "3, got " +
                   std::to_string(exit));
  BOOST_TEST(message(1, 0) == "self_speculative::open: drafts: expected at least 1, got 0");
  BOOST_TEST(message(1, 2) == "opened");
  BOOST_TEST(message(1, 3) ==
             "self_speculative::open: limits.max_logits: expected at least 4 (drafts + 1), got 3");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::self_speculative_test
