// SPDX-License-Identifier: MIT
// Speculative decoding: the distribution of its texts, by enumerating every outcome of every random
// choice, is the target's; equal models accept everything; greedy texts are the target's.

#include "support/data.hpp"
#include "support/law.hpp"

namespace test::speculative_test {

namespace {

constexpr ln::decoder_shape smaller_four{.d_model = 4,
                                         .d_ff = 5,
                                         .heads = 1,
                                         .kv_heads = 1,
                                         .layers = 1,
                                         .vocabulary = 4,
                                         .context = 32};
using target4 = ln::decoder<four_tokens>;
using draft4 = ln::decoder<smaller_four, ln::norm::layer_norm, ln::position::learned>;
using target4_t5 = ln::t5<four_tokens_t5>;
using draft4_t5 = ln::t5<four_tokens_t5, ln::ffn::skip>;

template <class M, class D>
void check_law(const ln::sampling_options& how, index drafts, const ln::generation_options& g,
               index draft_capacity = 10, index width = 1) {
  const auto p = random_packed<M, double>(21);
  const auto q = random_packed<D, double>(22);
  auto target = opened(p, {.source = 5, .target = 10, .max_logits = drafts * width + 1});
  auto draft = opened(q, {.source = 5, .target = draft_capacity});
  auto fast = ln::speculative<M, D, double>::open(target, draft, drafts, width);
  BOOST_REQUIRE(static_cast<bool>(fast));
  const std::vector<token> prompt{3, 1, 2};

  long accepted = 0, rejected = 0;
  check_law_of_generation(p, prompt, how, g, [&](auto& choose, const auto& emit) {
    const index n = fast->generate(prompt, choose, emit, g);
    accepted += fast->counts().accepted;
    rejected += fast->counts().drafted - fast->counts().accepted;
    return n;
  });
  if (draft_capacity == 10) {
    BOOST_TEST(accepted > 0);
    BOOST_TEST(rejected > 0);
  }
}

/// Laws that depend on nothing: p for the target's double logits, q for the draft's float ones.
struct independent : tree {
  std::vector<double> p, q;
  template <class T>
  void probabilities(std::span<T>, std::span<token>, std::span<const token>,
                     std::span<double> out) {
    const auto& law = sizeof(T) == 8 ? p : q;
    std::copy(law.begin(), law.end(), out.begin());
  }
  bool accept(double probability) {
    const double both[] = {probability, 1 - probability};
    return decide(both) == 0;
  }
  token sample(std::span<const double> weights) { return static_cast<token>(decide(weights)); }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(speculation)

BOOST_AUTO_TEST_CASE(law_of_the_target) {
  check_law<target4, draft4>({}, 2, {.tokens = 4});
  check_law<target4, draft4>({}, 1, {.tokens = 3});
  check_law<target4, draft4>({}, 3, {.tokens = 3});
  check_law<target4, draft4>({.temperature = 1.7, .top_k = 3, .top_p = 0.9}, 2, {.tokens = 4});
  check_law<target4, draft4>({.temperature = 0.6, .min_p = 0.1, .repetition_penalty = 1.5}, 2,
                             {.tokens = 4});
  check_law<target4_t5, draft4_t5>({.repetition_penalty = 1.2}, 2, {.tokens = 3});
}
// A tree of the likeliest drafts is followed as far as the target's own draws do.
BOOST_AUTO_TEST_CASE(law_of_trees) {
  check_law<target4, draft4>({}, 2, {.tokens = 4}, 10, 2);
  check_law<target4, draft4>({}, 3, {.tokens = 3}, 10, 3);
  check_law<target4, draft4>({.temperature = 0.6, .top_k = 3, .repetition_penalty = 1.5}, 2,
                             {.tokens = 4}, 4, 2);
}
BOOST_AUTO_TEST_CASE(law_with_a_stop_token) {
  const token stop[] = {2};
  check_law<target4, draft4>({}, 2, {.tokens = 3, .stop = stop});
}
// A draft with less room than the target helps as long as it can.
BOOST_AUTO_TEST_CASE(law_beyond_the_draft) {
  check_law<target4, draft4>({}, 2, {.tokens = 4}, 4);
  check_law<target4, draft4>({}, 2, {.tokens = 3}, 2);
}

// Independent tokens: a draft is right with probability a = 1 - TV(p, q), and a call of the target
// decides (1 - a^(g + 1)) / (1 - a) tokens on average.
BOOST_AUTO_TEST_CASE(tokens_per_round) {
  const ln::packed<target4, double> p;
  const ln::packed<draft4> q;
  for (const index drafts : {1, 2, 4}) {
    auto target = opened(p, {.target = 12, .max_logits = drafts + 1});
    auto draft = opened(q, {.target = 12});
    auto fast = ln::speculative<target4, draft4, double, float>::open(target, draft, drafts);
    BOOST_REQUIRE(static_cast<bool>(fast));
    independent choose;
    choose.p = {0.5, 0.3, 0.2, 0};
    choose.q = {0.2, 0.3, 0.1, 0.4};
    const double a = 0.2 + 0.3 + 0.1;
    double mean = 0;
    std::vector<double> first(4);
    const token prompt[] = {1, 2};
    do {
      index n = 0;
      fast->generate(prompt, choose, [&](token t) {
        if (++n == 1) return true;  // the prompt's own
        first[at(t)] += choose.probability();
        return false;  // one round
      });
      BOOST_REQUIRE(fast->counts().rounds == 1);
      BOOST_REQUIRE(fast->counts().drafted == drafts);
      BOOST_REQUIRE(fast->counts().tokens == fast->counts().accepted + 1);
      mean += choose.probability() * fast->counts().per_round();
    } while (choose.next());
    BOOST_TEST(distance(first, choose.p) <= 1e-14);
    BOOST_TEST(std::abs(mean - (1 - std::pow(a, drafts + 1)) / (1 - a)) <= 1e-13);
  }
}

// q = p: every draft is right.
BOOST_AUTO_TEST_CASE(equal_models_agree) {
  // A vocabulary that leaves tokens unsaid, so that the penalty depends on the place.
  constexpr ln::decoder_shape shape = [] {
    ln::decoder_shape more = four_tokens;
    more.vocabulary = 40;
    return more;
  }();
  using M = ln::decoder<shape>;
  const auto p = random_packed<M, double>(5);
  auto target = opened(p, {.target = 30, .max_logits = 4}), draft = opened(p, {.target = 30});
  auto fast = ln::speculative<M, M, double>::open(target, draft, 3);
  BOOST_REQUIRE(static_cast<bool>(fast));
  ln::sampler choose({.temperature = 1.2, .top_p = 0.95, .repetition_penalty = 3});
  index tokens = 0;
  const token prompt[] = {1, 2};
  const index n = fast->generate(prompt, choose, [&](token) { ++tokens; });
  BOOST_TEST(n == 29);
  BOOST_TEST(tokens == 29);
  BOOST_TEST(fast->counts().accepted == fast->counts().drafted);
  BOOST_TEST(fast->counts().rounds == 7);  // of four tokens, behind the first
}

// Where it ends is where session::generate() ends.
BOOST_AUTO_TEST_CASE(greedy_texts) {
  using M = ln::decoder<tiny_decoder_shape>;
  using D = ln::decoder<tiny_decoder_shape, ln::ffn::skip>;
  using E = ln::t5<tiny_t5_shape>;
  using F = ln::t5<tiny_t5_shape, ln::ffn::skip>;
  const auto check = [&]<class A, class B>(const ln::packed<A>& p, const ln::packed<B>& q) {
    for (const auto& [drafts, chunk, draft_chunk, width] : {std::array<index, 4>{1, 0, 0, 1},
                                                            {3, 0, 0, 1},
                                                            {6, 0, 0, 1},
                                                            {3, 4, 2, 1},
                                                            {3, 9, 0, 2},
                                                            {1, 0, 3, 5}}) {
      if (width > 1 && !A::supports_trees) continue;
      auto target =
          opened(p, {.source = 9, .target = 20, .chunk = chunk, .max_logits = drafts * width + 1});
      auto draft = opened(q, {.source = 9, .target = 20, .chunk = draft_chunk});
      auto fast = ln::speculative<A, B>::open(target, draft, drafts, width);
      BOOST_REQUIRE(static_cast<bool>(fast));
      const auto compare = [&](std::span<const token> prompt, const ln::generation_options& g) {
        const auto want = text_of(target, prompt, ln::greedy{}, g);
        std::vector<token> got;
        const index n = fast->generate(
            prompt, ln::greedy{}, [&](token t) { got.push_back(t); }, g);
        BOOST_TEST(n == std::ssize(want));
        BOOST_TEST(got == want, boost::test_tools::per_element());
        // The distribution of temperature 0 is certain as well.
        got.clear();
        ln::sampler cold({.temperature = 0});
        fast->generate(
            prompt, cold, [&](token t) { got.push_back(t); }, g);
        BOOST_TEST(got == want, boost::test_tools::per_element());
        return want;
      };
      const auto prompt = tokens(6, A::vocabulary, 1);
      const auto whole = compare(prompt, {});
      for (const index most : {1, 2, 5, 100}) compare(prompt, {.tokens = most});
      const token stop[] = {whole[6], whole[3]};
      compare(prompt, {.stop = stop});
      compare(std::span(prompt).first(1), {});
      if (A::exits > 0) {
        compare(tokens(20, A::vocabulary, 2), {});
        compare(tokens(19, A::vocabulary, 2), {});
      }
      // Nothing for what does not fit; and emit ends it.
      index calls = 0;
      const auto once = [&](token) { return ++calls < 3; };
      BOOST_TEST(fast->generate(prompt, ln::greedy{}, once) == 3);
      BOOST_TEST(calls == 3);
      BOOST_TEST(fast->generate(tokens(21, A::vocabulary, 2), ln::greedy{}, once) == 0);
      BOOST_TEST(fast->generate({}, ln::greedy{}, once) == 0);
      const token unknown[] = {1, 99};
      BOOST_TEST(fast->generate(unknown, ln::greedy{}, once) == 0);
      BOOST_TEST(fast->generate(std::span(unknown).last(1), ln::greedy{}, once) == 0);
      BOOST_TEST(calls == 3);
    }
  };
  check(random_packed<M, float>(6), random_packed<D, float>(6));
  check(random_packed<E, float>(6), random_packed<F, float>(6));
}

BOOST_AUTO_TEST_CASE(stories260k_with_a_draft) {
  const std::string file = data_file("stories260K/stories260K.bin");
  if (file.empty()) return;
  using M = ln::zoo::stories260k;
  constexpr ln::decoder_shape small{.d_model = 16,
                                    .d_ff = 24,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .layers = 1,
                                    .vocabulary = 512,
                                    .context = 512};
  using random_draft = ln::decoder<small>;

  ln::weights<M> w;
  BOOST_REQUIRE(static_cast<bool>(ln::load_llama2c(w, file)));
  const auto p = ln::pack(w);
  auto target = opened(p, {.target = 200, .max_logits = 5});
  const token begin[] = {1};
  const auto want = text_of(target, begin, ln::greedy{});
  BOOST_TEST(want.size() == 200u);
  const auto compare = [&]<class D>(const ln::packed<D>& q) {
    auto draft = opened(q, {.target = 200});
    auto fast = ln::speculative<M, D>::open(target, draft, 4);
    BOOST_REQUIRE(static_cast<bool>(fast));
    std::vector<token> got;
    fast->generate(begin, ln::greedy{}, [&](token t) { got.push_back(t); });
    BOOST_TEST(got == want, boost::test_tools::per_element());
    return fast->counts();
  };
  const auto chance = compare(random_packed<random_draft, float>());
  BOOST_TEST(chance.per_round() < 1.5);
  const auto close = compare(ln::pack(ln::quantize<ln::storage::int4<32>>(w)));
  BOOST_TEST(close.per_round() > 2);
  BOOST_TEST(close.tokens >= 199);  // all but the first
}

// What was accepted is what the draft, with nothing rejected in its memory, has in common with the
// text.
BOOST_AUTO_TEST_CASE(the_draft_forgets_what_was_rejected) {
  const auto p = random_packed<target4, double>(21), q = random_packed<target4, double>(24);
  auto target = opened(p, {.target = 30, .max_logits = 4}), draft = opened(q, {.target = 30});
  auto fast = ln::speculative<target4, target4, double>::open(target, draft, 3);
  BOOST_REQUIRE(static_cast<bool>(fast));
  anew<target4, double> alone(q);
  long rejected = 0;
  for (std::uint64_t key = 0; key < 5; ++key) {
    const auto prompt = tokens(3, 4, key);
    std::vector<token> text = prompt;
    fast->generate(prompt, ln::greedy{}, [&](token t) { text.push_back(t); }, {.tokens = 21});
    BOOST_REQUIRE(text.size() == 24u);
    index accepted = 0, drafted = 0;
    for (std::size_t known = 4; known < 24;) {
      std::vector<token> guess(text.begin(), text.begin() + static_cast<index>(known)), order(4);
      const std::size_t most = std::min(known + 3, std::size_t{23});
      while (guess.size() < most) guess.push_back(ln::greedy{}(alone(guess, {}), order));
      drafted += static_cast<index>(most - known);
      while (known < most && guess[known] == text[known]) ++known, ++accepted;
      ++known;
    }
    BOOST_TEST(fast->counts().drafted == drafted);
    BOOST_TEST(fast->counts().accepted == accepted);
    rejected += drafted - accepted;
  }
  BOOST_TEST(rejected > 5);
}

// A tree holds the target's token more often than a chain. Equal models accept whole chains.
BOOST_AUTO_TEST_CASE(trees_accept_more) {
  const auto p = random_packed<target4, double>(21), q = random_packed<target4, double>(24);
  auto target = opened(p, {.target = 30, .max_logits = 9});
  const auto counts_of = [&](const ln::packed<target4, double>& by, index width) {
    auto draft = opened(by, {.target = 30});
    auto fast = ln::speculative<target4, target4, double>::open(target, draft, 4, width);
    BOOST_REQUIRE(static_cast<bool>(fast));
    ln::draft_counts all;
    for (std::uint64_t key = 0; key < 5; ++key) {
      fast->generate(tokens(3, 4, key), ln::greedy{}, [](token) {}, {.tokens = 21});
      all.rounds += fast->counts().rounds;
      all.accepted += fast->counts().accepted;
      BOOST_TEST(fast->counts().tokens == 20);
    }
    return all;
  };
  BOOST_TEST(counts_of(q, 2).rounds < counts_of(q, 1).rounds);
  BOOST_TEST(counts_of(p, 2).rounds == 20);
  BOOST_TEST(counts_of(p, 2).accepted == 80);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<target4, float>();
  auto target = opened(p, {.target = 12, .max_logits = 3}), draft = opened(p, {.target = 12});
  const auto message = [&](index drafts) {
    const auto fast = ln::speculative<target4, target4>::open(target, draft, drafts);
    return fast ? "opened" : fast.error().message();
  };
  BOOST_TEST(message(0) == "speculative::open: drafts: expected at least 1, got 0");
  BOOST_TEST(message(2) == "opened");
  BOOST_TEST(message(3) ==
             "speculative::open: limits.max_logits: expected at least 4 (drafts + 1), got 3");
  BOOST_TEST(message(13) ==
             "speculative::open: drafts: expected 1 to 12 (that can be taken back), got 13");
  const auto tree_message = [&](index drafts, index width) {
    const auto fast = ln::speculative<target4, target4>::open(target, draft, drafts, width);
    return fast ? "opened" : fast.error().message();
  };
  BOOST_TEST(tree_message(1, 2) == "opened");
  BOOST_TEST(
      tree_message(2, 2) ==
      "speculative::open: limits.max_logits: expected at least 5 (drafts x width + 1), got 3");
  BOOST_TEST(tree_message(2, 0) == "speculative::open: width: expected 1 to the vocabulary, got 0");
  BOOST_TEST(tree_message(2, 5) == "speculative::open: width: expected 1 to the vocabulary, got 5");
  // What a cache cannot take back exactly is not drafted.
  using lossy = target4::with_cache<ln::kv::int4>;
  const auto q = random_packed<lossy, float>();
  auto many = opened(q, {.target = 90, .max_logits = 50});
  BOOST_TEST(static_cast<bool>(ln::speculative<lossy, target4>::open(many, draft, 32)));
  const auto wide = ln::speculative<lossy, target4>::open(many, draft, 2, 2);
  BOOST_REQUIRE(!wide);
  BOOST_TEST(wide.error().message() ==
             "speculative::open: width: expected 1, as the target's cache keeps texts, not trees, "
             "got 2");
  const auto fast = ln::speculative<lossy, target4>::open(many, draft, 33);
  BOOST_REQUIRE(!fast);
  BOOST_TEST(fast.error().message() ==
             "speculative::open: drafts: expected 1 to 32 (that can be taken back), got 33");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::speculative_test
