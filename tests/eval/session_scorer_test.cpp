// SPDX-License-Identifier: MIT
// Scores of tokens by real models: sessions and evaluators against logits computed anew token by
// token, shared beginnings against none, several ways
// to go on together, threads, refusals; and greedy writing.

#include "support/data.hpp"
#include "support/decoding.hpp"
#include "support/heap.hpp"

namespace test::session_scorer_test {

namespace {

using M = ln::decoder<tiny_decoder_shape>;
using recurrent = ln::rwkv7<tiny_rwkv7_shape>;

/// Log-probabilities of text[from], text[from + 1], … one token at a time.
template <class Model>
std::vector<double> naive(const ln::packed<Model, double>& p, std::span<const token> text,
                          std::size_t from) {
  std::vector<double> all;
  anew<Model, double> logits(p);
  for (std::size_t i = from; i < text.size(); ++i) {
    const auto row = logits(text.first(i), {});
    double sum = 0;
    for (const double x : row) sum += std::exp(x);
    all.push_back(row[at(text[i])] - std::log(sum));
  }
  return all;
}

/// Scores a beginning and two ways to go on, again and again.
template <class Model, class Paths>
void check_paths(const ln::packed<Model, double>& p, Paths& paths) {
  for (const index given : {1, 2, 7, 9}) {
    const auto text = tokens(given + 6, Model::vocabulary, 3),
               other = tokens(4, Model::vocabulary, 4);
    const std::span<const token> first(text.data(), at(given)),
        rest = std::span(text).subspan(at(given));
    std::vector<token> joined(first.begin(), first.end());
    joined.insert(joined.end(), other.begin(), other.end());
    std::vector<ln::token_score> before(at(given - 1)), a(6), b(4), again(6), none;
    BOOST_REQUIRE(paths.begin(first, before));
    BOOST_REQUIRE(paths.score(rest, a));
    BOOST_REQUIRE(paths.score(other, b));
    BOOST_REQUIRE(paths.score(rest, again));
    BOOST_REQUIRE(paths.score({}, none));
    const auto all = naive(p, text, 1), last = naive(p, joined, at(given));
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
      const double got =
          i < before.size() ? before[i].log_probability : a[i - before.size()].log_probability;
      BOOST_TEST(std::abs(got - all[i]) < 1e-10);
    }
    for (std::size_t i = 0; i < 4; ++i)
      BOOST_TEST(std::abs(b[i].log_probability - last[i]) < 1e-10);
    for (std::size_t i = 0; i < 6; ++i) {  // the same bits, whatever was asked before
      BOOST_TEST(a[i].log_probability == again[i].log_probability);
      BOOST_TEST(a[i].best == again[i].best);
    }
    // Not asking for the beginning changes nothing.
    BOOST_REQUIRE(paths.begin(first, none));
    BOOST_REQUIRE(paths.score(rest, again));
    for (std::size_t i = 0; i < 6; ++i)
      BOOST_TEST(std::abs(a[i].log_probability - again[i].log_probability) < 1e-10);
  }
}

/// Scores several ways to go on together, of all lengths and in no order.
template <class Model, class Paths>
void check_together(const ln::packed<Model, double>& p, Paths& paths) {
  const auto given = tokens(3, Model::vocabulary, 3);
  std::vector<std::vector<token>> rests;
  for (const index n : {4, 0, 7, 1, 2, 7, 12})
    rests.push_back(tokens(n, Model::vocabulary, 5 + at(n)));
  std::vector<std::vector<ln::token_score>> first, again;
  for (auto* const scores : {&first, &again}) {
    std::vector<ln::continuation> all;
    for (const auto& rest : rests) scores->emplace_back(rest.size());
    for (std::size_t i = 0; i < rests.size(); ++i) all.push_back({rests[i], (*scores)[i]});
    BOOST_REQUIRE(paths.begin(given, {}));
    BOOST_REQUIRE(ln::score_all(paths, std::span<const ln::continuation>(all)));
  }
  for (std::size_t i = 0; i < rests.size(); ++i) {
    std::vector<token> joined = given;
    joined.insert(joined.end(), rests[i].begin(), rests[i].end());
    const auto expected = naive(p, joined, given.size());
    for (std::size_t k = 0; k < rests[i].size(); ++k) {
      BOOST_TEST(std::abs(first[i][k].log_probability - expected[k]) < 1e-10);
      BOOST_TEST(first[i][k].log_probability == again[i][k].log_probability);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(paths)

BOOST_AUTO_TEST_CASE(a_row_of_logits) {
  const std::vector<float> logits{1, 3, 3, -1000};
  const double norm = std::log(std::exp(-2.0) + 2);
  BOOST_TEST(std::abs(ln::score_of(std::span(logits), 1).log_probability + norm) < 1e-12);
  BOOST_TEST(std::abs(ln::score_of(std::span(logits), 0).log_probability + 2 + norm) < 1e-12);
  BOOST_TEST(std::abs(ln::score_of(std::span(logits), 3).log_probability + 1003 + norm) < 1e-9);
  BOOST_TEST(ln::score_of(std::span(logits), 1).best);
  BOOST_TEST(!ln::score_of(std::span(logits), 2).best);  // the first of two
}

BOOST_AUTO_TEST_CASE(sessions_and_evaluators) {
  const auto p = random_packed<M, double>();
  for (const index part : {1, 3, 64}) {
    auto session = opened(p, {.batch = 2, .target = 16, .max_logits = part});
    ln::session_scorer paths(session);
    static_assert(ln::loglikelihood_scorer<decltype(paths)>);
    BOOST_TEST(paths.longest() == 16);
    check_paths(p, paths);
  }
  for (const index multiple : {1, 4}) {
    auto paths = ln::evaluator_scorer<M, double>::open(p, {.target = 16}, multiple);
    LINNET_REQUIRE_OK(paths);
    BOOST_TEST(paths->longest() == 16);
    check_paths(p, *paths);
  }
  const auto q = random_packed<recurrent, double>();
  auto session = opened(q, {.batch = 2, .target = 16, .max_logits = 4});
  ln::session_scorer paths(session);
  check_paths(q, paths);
}

// Given tokens without scores are a prompt, which attention::prefix sees both ways; tokens that are
// scored are seen only by those behind them, in sessions of any limits and in evaluators.
BOOST_AUTO_TEST_CASE(prefixes) {
  using P = M::with_attention<ln::attention::prefix>;
  const auto p = random_packed<P, double>();
  const auto text = tokens(12, P::vocabulary, 3);
  const std::span<const token> all(text);
  const auto causal = naive(random_packed<M, double>(), text, 1);

  // A question of five tokens that see each other.
  const std::vector<token> labels(12, ln::ignored);
  std::vector<double> logits(at(12 * P::vocabulary));
  const index question = 5;
  auto e = ln::evaluator<P, double>::open(p, {.target = 12});
  LINNET_REQUIRE_OK(e);
  BOOST_REQUIRE(
      ln::is_finite(e->loss({text.data(), labels.data(), 1, 12, &question}, logits).nats));

  const auto check = [&](auto& paths) {
    std::vector<ln::token_score> scores(11);
    BOOST_REQUIRE(paths.begin(all, scores));
    for (std::size_t i = 0; i < 11; ++i)
      BOOST_TEST(std::abs(scores[i].log_probability - causal[i]) < 1e-10);
    BOOST_REQUIRE(paths.begin(all.first(5), {}));
    BOOST_REQUIRE(paths.score(all.subspan(5), std::span(scores).first(7)));
    double seen = 0;
    for (std::size_t i = 0; i < 7; ++i) {
      const auto row = std::span(logits).subspan((i + 4) * at(P::vocabulary), at(P::vocabulary));
      BOOST_TEST(std::abs(scores[i].log_probability -
                          ln::score_of(row, text[i + 5]).log_probability) < 1e-10);
      seen = (std::max)(seen, std::abs(scores[i].log_probability - causal[i + 4]));
    }
    BOOST_TEST(seen > 1e-3);  // the question's first tokens know its last ones
  };
  for (const index part : {1, 3, 64}) {
    auto session = opened(p, {.batch = 3, .target = 12, .max_logits = part});
    ln::session_scorer paths(session);
    check(paths);
  }
  auto paths = ln::evaluator_scorer<P, double>::open(p, {.target = 12}, 4);
  LINNET_REQUIRE_OK(paths);
  check(*paths);
  // As an item of training: the loss of a stream's batch is what a session says of the target.
  const std::string letters(text.begin(), text.end());
  const std::vector<ln::training_item> items{{letters.substr(0, 5), letters.substr(5, 6)}};
  const auto encode = [](std::string_view of) { return std::vector<token>(of.begin(), of.end()); };
  std::vector<ln::token_score> scores(7);
  auto asked = opened(p, {.batch = 2, .target = 12});
  ln::session_scorer whole(asked);
  BOOST_REQUIRE(whole.begin(all.first(5), {}));
  BOOST_REQUIRE(whole.score(all.subspan(5), scores));
  double nats = 0;
  for (const ln::token_score& s : scores) nats -= s.log_probability;
  for (const bool told : {true, false}) {
    auto stream = ln::instruction_stream::open(items, encode, {.length = 12, .prefixes = told},
                                               text[11], ln::seed{1});
    LINNET_REQUIRE_OK(stream);
    const ln::loss_sum loss = e->loss(stream->batch(0));
    BOOST_TEST(loss.tokens == 7);
    BOOST_TEST((std::abs(loss.nats - nats) < 1e-9) == told);
  }
  // Cut into calls it would be another prompt.
  auto session = opened(p, {.batch = 2, .target = 12, .chunk = 4, .max_logits = 3});
  ln::session_scorer parts(session);
  BOOST_TEST(!parts.begin(all.first(5), {}));
  BOOST_TEST(parts.begin(all.first(4), {}));
}

BOOST_AUTO_TEST_CASE(several_continuations_together) {
  const auto p = random_packed<M, double>();
  const auto q = random_packed<recurrent, double>();
  for (const index batch : {2, 3, 4, 10})
    for (const index part : {1, 3, 64}) {
      const ln::limits l{.batch = batch, .target = 15, .max_logits = part};
      auto attentive = opened(p, l);
      ln::session_scorer paths(attentive);
      check_together(p, paths);
      auto stateful = opened(q, l);
      ln::session_scorer others(stateful);
      check_together(q, others);
    }
  auto paths = ln::evaluator_scorer<M, double>::open(p, {.target = 15});
  LINNET_REQUIRE_OK(paths);
  check_together(p, *paths);  // one after another
}

BOOST_AUTO_TEST_CASE(threads_do_not_matter) {
  const auto p = random_packed<M, float>();
  const auto text = tokens(14, M::vocabulary, 3);
  std::vector<std::vector<ln::token_score>> all;
  for (const int threads : {1, 2, 3}) {
    auto session = opened(
        p,
        {.batch = 2, .target = 16, .threads = threads, .min_flops_per_thread = 0, .max_logits = 5});
    ln::session_scorer paths(session);
    all.emplace_back(13);
    BOOST_REQUIRE(ln::score_windows(paths, std::span<const token>(text), std::span(all.back())));
  }
  for (std::size_t i = 0; i < 13; ++i)
    BOOST_TEST((all[0][i].log_probability == all[1][i].log_probability &&
                all[0][i].log_probability == all[2][i].log_probability));
}

// Windows of a real model: each score is that of the window's tokens alone.
BOOST_AUTO_TEST_CASE(windows) {
  const auto p = random_packed<M, double>();
  const auto text = tokens(14, M::vocabulary, 5);
  const auto run = [&](index room) {
    auto session = opened(p, {.batch = 2, .target = room, .max_logits = 5});
    ln::session_scorer paths(session);
    std::vector<ln::token_score> scores(13);
    BOOST_REQUIRE(ln::score_windows(paths, std::span<const token>(text), std::span(scores), 2));
    return scores;
  };
  const auto whole = run(13), parts = run(4);
  const auto all = naive(p, text, 1);
  for (std::size_t i = 0; i < 13; ++i)
    BOOST_TEST(std::abs(whole[i].log_probability - all[i]) < 1e-10);
  for (std::size_t i = 0; i < 13; ++i) {
    const std::size_t first = i < 4 ? 0 : (i - 4) / 2 * 2 + 2;
    const auto window = std::span(text).subspan(first, i + 2 - first);
    BOOST_TEST(std::abs(parts[i].log_probability - naive(p, window, window.size() - 1)[0]) < 1e-10);
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<M, double>();
  auto session = opened(p, {.batch = 2, .target = 6, .max_logits = 3});
  ln::session_scorer by_session(session);
  auto by_evaluator = ln::evaluator_scorer<M, double>::open(p, {.target = 6});
  LINNET_REQUIRE_OK(by_evaluator);
  const auto text = tokens(9, M::vocabulary, 3);
  const std::span<const token> all(text);
  const std::vector<token> strange{3, 11}, negative{3, -1};
  std::vector<ln::token_score> scores(8);
  const auto check = [&](auto& paths) {
    const std::span<ln::token_score> room(scores);
    BOOST_TEST(!paths.score(all.first(1), room.first(1)));  // not begun
    BOOST_TEST(!paths.begin({}, {}));
    BOOST_TEST(!paths.begin(all.first(3), room.first(3)));  // one too many scores
    BOOST_TEST(!paths.begin(all.first(8), room.first(7)));  // too long
    BOOST_TEST(!paths.begin(strange, room.first(1)));
    BOOST_TEST(!paths.begin(negative, room.first(1)));
    BOOST_REQUIRE(paths.begin(all.first(4), {}));
    BOOST_TEST(!paths.score(strange, room.first(2)));
    BOOST_TEST(!paths.score(negative, room.first(2)));
    BOOST_TEST(!paths.score(all.first(2), room.first(1)));
    BOOST_TEST(!paths.score(all.first(4), room.first(4)));  // 4 + 4 - 1 > 6
    const ln::continuation good{all.first(2), room.first(2)}, bad{strange, room.first(2)},
        cut{all.first(2), room.first(1)};
    for (const ln::continuation& wrong : {bad, cut}) {
      const std::vector<ln::continuation> both{good, wrong};
      BOOST_TEST(!ln::score_all(paths, std::span<const ln::continuation>(both)));
    }
    BOOST_TEST(paths.score(all.first(3), room.first(3)));  // as before
  };
  check(by_session);
  check(*by_evaluator);
  BOOST_TEST(message(ln::evaluator_scorer<M, double>::open(p, {.target = 12}, 0)) ==
             "evaluator_scorer::open: multiple: expected 1 to 12, got 0");
  BOOST_TEST(!(ln::evaluator_scorer<M, double>::open(p, {.target = 12}, index{1} << 40)));
  auto eights = ln::evaluator_scorer<M, double>::open(p, {.target = 12}, 8);
  LINNET_REQUIRE_OK(eights);
  BOOST_TEST(eights->longest() == 8);
  BOOST_TEST(message(ln::evaluator_scorer<M, double>::open(p, {.target = -1}))
                 .starts_with("evaluator::open: limits.target"));
}

BOOST_AUTO_TEST_CASE(scoring_allocates_nothing) {
  const auto p = random_packed<M, double>();
  auto session = opened(p, {.batch = 3, .target = 16, .max_logits = 5});
  ln::session_scorer paths(session);
  const auto text = tokens(12, M::vocabulary, 3);
  const std::span<const token> all(text);
  std::vector<ln::token_score> scores(11);
  const std::span<ln::token_score> room(scores);
  const auto score = [&] {
    (void)paths.begin(all.first(8), room.first(7));
    (void)paths.score(all.subspan(8), room.first(4));
    (void)paths.score(all.subspan(9), room.first(3));
    const std::array<ln::continuation, 2> both{
        {{all.subspan(9), room.first(3)}, {all.subspan(8), room.last(4)}}};
    (void)paths.score_all(both);
  };
  score();
  const auto use = heap_use_of(score);
  BOOST_TEST(use.calls == 0);
}

BOOST_AUTO_TEST_CASE(greedy_text) {
  const auto p = random_packed<M, double>(7);
  const auto prompt = tokens(3, M::vocabulary, 2);
  anew<M, double> logits(p);
  std::vector<token> expected;
  for (int i = 0; i < 6; ++i) {
    const auto row = logits(prompt, expected);
    expected.push_back(static_cast<token>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  auto session = opened(p, {.target = 8});
  for (const index most : {0, 1, 4, 6, 100}) {
    std::vector<token> got;
    const index n = ln::generate_greedy(session, std::span<const token>(prompt), most,
                                        [&](token t) { return got.push_back(t), true; });
    BOOST_TEST(n == (std::min)(most, index{6}));  // 3 + 6 - 1 tokens are fed
    BOOST_TEST(got == std::vector<token>(expected.begin(), expected.begin() + n),
               boost::test_tools::per_element());
  }
  index seen = 0;
  BOOST_TEST(ln::generate_greedy(session, std::span<const token>(prompt), 5,
                                 [&](token) { return ++seen < 2; }) == 2);
  BOOST_TEST(
      ln::generate_greedy(session, std::span<const token>(), 5, [](token) { return true; }) == 0);
}

// Each text is what it would be alone, wherever it and the others begin and end.
template <class Model>
void check_greedy_texts(index chunk) {
  const auto p = random_packed<Model, double>(7);
  std::vector<std::vector<token>> prompts;
  for (const index n : {3, 1, 7, 10, 2})
    prompts.push_back(tokens(n, Model::vocabulary, 20 + at(n)));
  const std::vector<std::span<const token>> all(prompts.begin(), prompts.end());
  const std::size_t ends[] = {4, 100, 1, 100, 2};
  auto session = opened(p, {.batch = 5, .target = 10, .chunk = chunk});
  auto alone = opened(p, {.target = 10});
  for (const index most : {0, 1, 3, 100}) {
    std::vector<std::vector<token>> got(all.size());
    BOOST_REQUIRE(ln::generate_greedy(session, std::span(all), most, [&](std::size_t k, token t) {
      got[k].push_back(t);
      return got[k].size() < ends[k];
    }));
    for (std::size_t k = 0; k < all.size(); ++k) {
      std::vector<token> expected;
      ln::generate_greedy(alone, all[k], most, [&](token t) {
        expected.push_back(t);
        return expected.size() < ends[k];
      });
      BOOST_TEST(got[k] == expected, boost::test_tools::per_element());
    }
  }
  const auto refused = [&](std::vector<std::span<const token>> some) {
    return !ln::generate_greedy(session, std::span<const std::span<const token>>(some), 3,
                                [](std::size_t, token) { return true; });
  };
  const std::vector<token> strange{1, 99}, long_one(11, 1);
  BOOST_TEST(refused({all[0], strange}));
  BOOST_TEST(refused({all[0], long_one}));
  BOOST_TEST(refused({all[0], {}}));
  BOOST_TEST(refused({all[0], all[1], all[0], all[1], all[0], all[1]}));
  BOOST_TEST(!refused({}));
}

BOOST_AUTO_TEST_CASE(greedy_texts_together) {
  for (const index chunk : {0, 1, 4}) {
    check_greedy_texts<M>(chunk);
    check_greedy_texts<recurrent>(chunk);
  }
}

BOOST_AUTO_TEST_CASE(numbers_in_answers) {
  const auto stated = [](std::string_view t) { return ln::parse_gsm8k_answer(t); };
  BOOST_TEST(stated("so 5.\n#### 18") == "18");
  BOOST_TEST(stated("#### 1,234.50 dollars") == "1234.5");
  BOOST_TEST(stated("####-$0012") == "-12");
  BOOST_TEST(stated("#### $-3") == "-3");
  BOOST_TEST(stated("#### 1000.0") == stated("#### $1,000"));
  BOOST_TEST(stated("#### .5") == "0.5");
  BOOST_TEST(stated("#### 007") == "7");
  BOOST_TEST(stated("#### -0.00") == "0");
  BOOST_TEST(stated("#### 5. And") == "5");
  BOOST_TEST(stated("#### 5, 6") == "5");
  BOOST_TEST(stated("#### 7 #### 8") == "7");
  for (const char* none : {"", "18", "####", "#### ", "#### x 5", "### 5", "#### -", "#### $,5"})
    BOOST_TEST(stated(none) == "");
  const auto last = [](std::string_view t) { return ln::last_number(t); };
  BOOST_TEST(last("2 and 3, so 1,005.") == "1005");
  BOOST_TEST(last("it is $3.50!") == "3.5");
  BOOST_TEST(last("5-3") == "3");
  BOOST_TEST(last("it is -3") == "-3");
  BOOST_TEST(last("-3") == "-3");
  BOOST_TEST(last("-$3") == "-3");
  for (const char* signed_five : {"x=-5",
                                  "(-5)",
                                  "**-5**",
                                  "\\boxed{-5}",
                                  "$-5$",
                                  "a\t-5",
                                  "\"-5\"",
                                  "'-5'",
                                  "3,-5",
                                  "[-5]",
                                  "a:-5",
                                  "=-$5",
                                  "\xe2\x88\x92"
                                  "5",
                                  "x = \xe2\x88\x92"
                                  "5.",
                                  "(\xe2\x88\x92$5)",
                                  "\xe2\x80\x9c-5\xe2\x80\x9d",
                                  "\xe2\x89\x88-5",
                                  "\xc2\xa0-5",
                                  "-5.0\n",
                                  "a\r\n-5",
                                  "3*-5",
                                  "\xe2\x88\x92$5",
                                  "-\xe2\x82\xac"
                                  "5",
                                  "\xe2\x82\xac-5",
                                  "-\xc2\xa3"
                                  "5",
                                  "\xe2\x88\x92\xc2\xa5"
                                  "5",
                                  "-\xe2\x82\xb9"
                                  "5.0",
                                  "\xef\xbc\x8d"
                                  "5",
                                  "\xef\xbc\x8d$5"})
    BOOST_TEST_CONTEXT(signed_five) BOOST_TEST(last(signed_five) == "-5");
  for (const char* five : {"3-5",
                           "x-5",
                           "(3)-5",
                           "}-5",
                           "3%-5",
                           "covid-5",
                           "\xc3\xa9-5",
                           "\xce\xb1\xe2\x88\x92"
                           "5",
                           "3\xe2\x88\x92"
                           "5",
                           "--5",
                           "\xe2\x88\x92\xe2\x88\x92"
                           "5",
                           "-\xe2\x88\x92"
                           "5",
                           "\xe2\x88\x92-5",
                           "-\xef\xbc\x8d"
                           "5",
                           "\xe2\x82\xac"
                           "5",
                           "3-\xe2\x82\xac"
                           "5",
                           "--$5",
                           "- 5",
                           "x\xc2\xb2-5",
                           "\xe2\x80\x93"
                           "5",
                           "=5",
                           "$5"})
    BOOST_TEST_CONTEXT(five) BOOST_TEST(last(five) == "5");
  BOOST_TEST(last("\x88\x92"
                  "5") == "5");
  BOOST_TEST(last("\x80\x80\x80\x80-5") == "-5");
  BOOST_TEST(stated("#### \xe2\x88\x92"
                    "5") == "-5");
  BOOST_TEST(stated("####\t-5") == "-5");
  BOOST_TEST(stated("#### -\xe2\x82\xac"
                    "5") == "-5");
  BOOST_TEST(stated("#### --5") == "");
  BOOST_TEST(stated("#### -$-5") == "");
  BOOST_TEST(last("cost .5") == "0.5");
  BOOST_TEST(last("a1") == "1");
  BOOST_TEST(last("no number") == "");
  BOOST_TEST(last("") == "");
}

// What a scorer refuses is said with all that can be the cause.
BOOST_AUTO_TEST_CASE(a_cache_without_free_blocks) {
  ln::weights<M> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto session =
      ln::session<M>::open(p, {.batch = 2, .target = 64, .kv_blocks = 1, .max_logits = 8});
  LINNET_REQUIRE_OK(session);
  ln::session_scorer paths(*session);
  const auto encode = [](std::string_view text) {
    return std::vector<token>(text.size(), token{1});
  };
  const auto said = [](const auto& r) { return message(r); };
  const std::string why =
      "tokens of the model's vocabulary, within its limits and the free blocks of its cache";
  LINNET_REQUIRE_OK(ln::score_text(paths, encode, 0, std::string(20, 'x')));
  BOOST_TEST(said(ln::score_text(paths, encode, 0, std::string(60, 'x'))) ==
             "score_text: tokens: expected " + why + ", got tokens that the model refuses");
  const ln::eval_item item{.context = std::string(50, 'x'), .options = {"a", "bb"}};
  BOOST_TEST(said(ln::score_options(paths, encode, item, {})).find(why) != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::session_scorer_test
