// SPDX-License-Identifier: MIT
// Every call that does nothing says why, and a call that did what was asked says nothing.

#include <cstring>

#include "support/decoding.hpp"

namespace test::refusals_test {

namespace {

using ln::refusal;
using M = ln::decoder<four_tokens>;
using t5 = ln::t5<four_tokens_t5>;
using prefixed = M::with_attention<ln::attention::prefix>;
constexpr float inf = std::numeric_limits<float>::infinity();

static_assert(noexcept(std::declval<const ln::session<M>&>().last_refusal()));
static_assert(ln::to_string(refusal::none).empty());

/// Nothing was done, for this reason.
template <class Session>
void check(const Session& s, bool done, refusal why) {
  BOOST_TEST(!done, ln::to_string(why));
  BOOST_TEST(s.last_refusal() == ln::to_string(why));
}
/// What was asked was done.
template <class Session>
void check_done(const Session& s, bool done) {
  BOOST_TEST(done, s.last_refusal());
  BOOST_TEST(s.last_refusal().empty());
}

const std::vector<token> some{1, 2, 3, 0}, none{}, outside{1, 4}, negative{-1, 1};
const auto ignore = [](token) {};

/// Chooses nothing, or what no model has.
auto choosing(token t) {
  return [t](auto&&...) { return t; };
}

}  // namespace

BOOST_AUTO_TEST_SUITE(refusals_of_decoding)

// Programs print them with %s.
BOOST_AUTO_TEST_CASE(texts_end_with_a_zero) {
  for (int i = 0; i <= static_cast<int>(refusal::not_finite); ++i) {
    const std::string_view words = ln::to_string(static_cast<refusal>(i));
    BOOST_REQUIRE(words.data() != nullptr);
    BOOST_TEST(std::strlen(words.data()) == words.size());
    BOOST_TEST(words.empty() == (i == 0));
    for (int j = 0; j < i; ++j) BOOST_TEST(words != ln::to_string(static_cast<refusal>(j)));
  }
}

BOOST_AUTO_TEST_CASE(feeding) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.batch = 2, .target = 12, .chunk = 6, .max_logits = 3});
  BOOST_TEST(s.last_refusal().data() != nullptr);
  BOOST_TEST(s.last_refusal().empty());
  const std::vector<token> many(13, 1);
  const auto first = [&](std::size_t n) { return std::span(many).first(n); };
  const std::vector<index> two{2, 2}, zero{2, 0}, three{2, 3};
  const auto fed = [&](auto&&... arguments) { return !s.feed(arguments...).empty(); };
  check(s, fed(none), refusal::no_tokens);
  check(s, fed(outside), refusal::token_outside_vocabulary);
  check(s, fed(negative), refusal::token_outside_vocabulary);
  check(s, fed(first(7)), refusal::over_chunk);
  check(s, fed(first(13)), refusal::over_target);
  check(s, fed(some, 0, two), refusal::batch_below_one);
  check(s, fed(some, 3, two), refusal::batch_over_limit);
  check(s, fed(first(5), 2, two), refusal::uneven);
  check(s, fed(some, 2, std::span(two).first(1)), refusal::lengths_missing);
  check(s, fed(some, 2, zero), refusal::length_below_one);
  check(s, fed(some, 2, three), refusal::length_over_padded);
  check(s, !s.feed_all(some).empty(), refusal::over_logits);
  check(s, !s.prefill(none).empty(), refusal::no_tokens);
  check(s, !s.prefill(outside).empty(), refusal::token_outside_vocabulary);
  check(s, !s.prefill(many).empty(), refusal::over_target);
  BOOST_TEST(s.position() == 0);
  check_done(s, fed(some, 2, two));
  check_done(s, !s.feed_all(first(3)).empty());
  check_done(s, !s.prefill(first(7)).empty());
  check(s, fed(first(1)), refusal::over_target);
  BOOST_TEST(s.position() == 12);
}

// A prompt that does not fit leaves the session as it is, however many parts would have fitted.
BOOST_AUTO_TEST_CASE(long_prompts_are_not_begun) {
  const auto p = random_packed<M, float>();
  const std::vector<token> fits(40, 1), many(41, 1);
  std::vector<token> late(20, 1);
  late.back() = 4;
  for (const index blocks : {0, 1}) {  // one block holds 32 tokens
    const index most = blocks > 0 ? 32 : 40;
    const auto why = [&](refusal other) { return blocks > 0 ? refusal::no_blocks : other; };
    auto s = opened(p, {.target = blocks > 0 ? 64 : most, .chunk = 8, .kv_blocks = blocks});
    check(s, !s.prefill(many).empty(), why(refusal::over_target));
    BOOST_TEST(s.position() == 0);
    BOOST_TEST(s.free_blocks() == blocks);
    check(s, !s.prefill(late).empty(), refusal::token_outside_vocabulary);
    BOOST_TEST(s.position() == 0);
    check_done(s, !s.feed(some).empty());
    check(s, !s.reset_and_prefill(many).empty(), why(refusal::over_target));
    check(s, !s.reset_and_prefill(late).empty(), refusal::token_outside_vocabulary);
    check(s, s.generate(many, ln::greedy{}, ignore) > 0, why(refusal::over_target));
    BOOST_TEST(s.position() == 4);
    BOOST_TEST(std::ranges::equal(s.fed(), some));
    check(s, !s.prefill(std::span(fits).first(at(most - 3))).empty(), why(refusal::over_target));
    BOOST_TEST(s.position() == 4);
    check_done(s, !s.prefill(std::span(fits).first(at(most - 4))).empty());
    BOOST_TEST(s.position() == most);
    check_done(s, !s.reset_and_prefill(std::span(fits).first(at(most))).empty());
    BOOST_TEST(s.position() == most);
  }
  const auto q = random_packed<prefixed, float>();
  auto s = opened(q, {.target = 12, .chunk = 4});
  check(s, !s.prefill(std::span(fits).first(5)).empty(), refusal::over_chunk);
  check(s, !s.reset_and_prefill(std::span(fits).first(5)).empty(), refusal::over_chunk);
  check_done(s, !s.prefill(some).empty());
  check_done(s, !s.prefill(std::span(fits).first(5)).empty());
}

BOOST_AUTO_TEST_CASE(blocks) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.batch = 2, .target = 40, .kv_blocks = 1});
  const std::vector<token> one(1, 1), most(32, 1);
  check_done(s, !s.feed(most).empty());
  check(s, !s.feed(one).empty(), refusal::no_blocks);
  check(s, !s.prefill(one).empty(), refusal::no_blocks);
  check_done(s, s.fork(0, 1));
  check_done(s, !s.reset_and_prefill(std::span(most).first(31)).empty());
  // A text that ends for want of a block says so.
  BOOST_TEST(s.generate(std::span(most).first(30), choosing(1), ignore) == 3);
  BOOST_TEST(s.last_refusal() == ln::to_string(refusal::no_blocks));
}

BOOST_AUTO_TEST_CASE(sequences_and_lengths) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.batch = 2, .target = 12});
  check_done(s, !s.feed(some).empty());
  check(s, s.truncate(0, 2), refusal::no_sequence);
  check(s, s.truncate(0, -1), refusal::no_sequence);
  check(s, s.truncate(5), refusal::no_such_length);
  check(s, s.truncate(-1), refusal::no_such_length);
  check(s, s.fork(0, 2), refusal::no_sequence);
  check(s, s.fork(-1, 0), refusal::no_sequence);
  check(s, s.exit_after(0), refusal::no_layer);
  check(s, s.exit_after(3), refusal::no_layer);
  BOOST_TEST(s.position() == 4);
  check_done(s, s.fork(0, 1));
  check(s, s.truncate(9), refusal::no_such_length);
  check_done(s, s.fork(1, 1));
  check_done(s, s.truncate(2));
  check(s, s.exit_after(9), refusal::no_layer);
  check_done(s, s.exit_after(1));

  const auto q = random_packed<prefixed, float>();
  auto with_prefix = opened(q, {.target = 12});
  check_done(with_prefix, !with_prefix.feed(some).empty());
  check(with_prefix, with_prefix.truncate(3), refusal::length_gone);
  check_done(with_prefix, with_prefix.truncate(0));
}

BOOST_AUTO_TEST_CASE(sources) {
  const auto p = random_packed<t5, float>();
  auto s = opened(p, {.batch = 2, .source = 3, .target = 4});
  const std::vector<index> two{2, 2}, zero{2, 0}, three{2, 3};
  const auto three_tokens = std::span(some).first(3);
  check(s, !s.feed(some).empty(), refusal::no_source);
  check(s, s.encode(none), refusal::no_tokens);
  check(s, s.encode(some), refusal::over_source);
  check(s, s.encode(outside), refusal::token_outside_vocabulary);
  check(s, s.encode(some, 0, two), refusal::batch_below_one);
  check(s, s.encode(some, 4, two), refusal::batch_over_limit);
  check(s, s.encode(three_tokens, 2, two), refusal::uneven);
  check(s, s.encode(some, 2, {}), refusal::lengths_missing);
  check(s, s.encode(some, 2, std::span(two).first(1)), refusal::lengths_missing);
  check(s, s.encode(some, 2, zero), refusal::length_below_one);
  check(s, s.encode(some, 2, three), refusal::length_over_padded);
  check(s, !s.reset_and_prefill(some).empty(), refusal::over_source);
  check(s, s.generate(some, ln::greedy{}, ignore) > 0, refusal::over_source);
  check_done(s, s.encode(three_tokens));
  check(s, !s.feed(some, 2, {}).empty(), refusal::no_source);  // the second has none
  check_done(s, !s.feed(some).empty());
  check(s, s.encode(some), refusal::over_source);
  BOOST_TEST(s.position() == 4);
}

BOOST_AUTO_TEST_CASE(generating) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.target = 8});
  const auto generate = [&](auto choose, const ln::generation_options& g = {}) {
    return s.generate(some, choose, ignore, g);
  };
  check(s, generate(ln::greedy{}, {.tokens = -1}) > 0, refusal::options);
  check(s, s.generate(none, ln::greedy{}, ignore) > 0, refusal::no_tokens);
  check(s, generate(choosing(ln::no_token)) > 0, refusal::nothing_chosen);
  check(s, generate(choosing(4)) > 0, refusal::nothing_chosen);
  check(s, generate(ln::sampler{{.temperature = -1}}) > 0, refusal::nothing_chosen);
  const token stop[] = {1};
  BOOST_TEST(generate(choosing(1), {.stop = stop}) == 0);  // what was asked
  BOOST_TEST(s.last_refusal().empty());
  check_done(s, generate(ln::greedy{}) == 5);
  check_done(s, generate(ln::greedy{}, {.tokens = 5}) == 5);
  BOOST_TEST(generate(ln::greedy{}, {.tokens = 6}) == 5);
  BOOST_TEST(s.last_refusal() == ln::to_string(refusal::over_target));
  check_done(s, s.generate(some, ln::greedy{}, [](token) { return false; }) == 1);
}

BOOST_AUTO_TEST_CASE(sessions_without_memory) {
  const auto p = random_packed<M, float>();
  ln::session<M> unopened(p, {.target = 8}, {});
  check(unopened, !unopened.feed(some).empty(), refusal::not_valid);
  auto from = opened(p, {.target = 8});
  const auto to = std::move(from);
  check_done(to, true);
  check(from, !from.feed(some).empty(), refusal::not_valid);
  check(from, !from.prefill(some).empty(), refusal::not_valid);
  check(from, !from.reset_and_prefill(some).empty(), refusal::not_valid);
  check(from, !from.feed_all(some).empty(), refusal::not_valid);
  check(from, from.truncate(0), refusal::not_valid);
  check(from, from.fork(0, 0), refusal::not_valid);
  check(from, from.exit_after(1), refusal::not_valid);
  check(from, from.generate(some, ln::greedy{}, ignore) > 0, refusal::not_valid);
}

/// What every way of decoding refuses: options, tokens that do not fit, nothing to choose from.
template <class Way, class Generate>
void check_way(Way& way, const Generate& generate) {
  BOOST_TEST(way.last_refusal().empty());
  const std::vector<token> many(13, 1);
  check(way, generate(some, -1), refusal::options);
  check(way, generate(many, 2), refusal::over_target);
  check(way, generate(outside, 2), refusal::token_outside_vocabulary);
  check_done(way, generate(some, 2));
  Way mine = std::move(way);
  check(way, generate(some, 2), refusal::not_valid);
  check_done(mine, true);
}

BOOST_AUTO_TEST_CASE(other_ways) {
  const auto p = random_packed<M, float>();
  auto s = opened(p, {.batch = 2, .target = 12, .max_logits = 3}),
       small = opened(p, {.target = 12});
  {
    auto way = ln::speculative<M, M>::open(s, small, 2);
    check(*way, way->generate(some, ln::sampler{{.temperature = -1}}, ignore) > 0,
          refusal::nothing_chosen);
    BOOST_TEST(way->generate(some, ln::greedy{}, ignore, {.tokens = 20}) == 9);
    BOOST_TEST(way->last_refusal() == ln::to_string(refusal::over_target));
    BOOST_TEST(way->generate(some, ln::greedy{}, ignore) == 9);
    check_way(*way, [&](const auto& prompt, index tokens) {
      return way->generate(prompt, ln::greedy{}, ignore, {.tokens = tokens}) > 0;
    });
  }
  {
    auto way = ln::self_speculative<M>::open(s, 1, 2);
    check(*way, way->generate(some, ln::sampler{{.temperature = -1}}, ignore) > 0,
          refusal::nothing_chosen);
    BOOST_TEST(way->generate(some, ln::greedy{}, ignore, {.tokens = 20}) == 9);
    BOOST_TEST(way->last_refusal() == ln::to_string(refusal::over_target));
    BOOST_TEST(way->generate(some, ln::greedy{}, ignore) == 9);
    check_way(*way, [&](const auto& prompt, index tokens) {
      return way->generate(prompt, ln::greedy{}, ignore, {.tokens = tokens}) > 0;
    });
  }
  {
    auto way = ln::beam_search<M>::open(s, {.width = 2});
    const auto ban = [](std::span<float> logits) { std::ranges::fill(logits, -inf); };
    check(*way, !(*way)(some, {}, ban).empty(), refusal::nothing_chosen);
    BOOST_TEST(!(*way)(some).empty());
    check_way(*way, [&](const auto& prompt, index tokens) {
      return !(*way)(prompt, {.tokens = tokens}).empty();
    });
  }
}

BOOST_AUTO_TEST_CASE(contrasts) {
  const auto p = random_packed<M, float>();
  auto amateur = opened(p, {.target = 6}), expert = opened(p, {.target = 12});
  ln::contrast wrong(amateur, {.plausibility = 2});
  check(wrong, wrong.reset_and_prefill(some), refusal::options);
  ln::contrast against(amateur);
  check(against, against.reset_and_prefill(outside), refusal::token_outside_vocabulary);
  check_done(against, against.reset_and_prefill(some));
  const auto run = [&] {
    return expert.generate(some, ln::with_logit_processors(ln::greedy{}, against), ignore,
                           {.tokens = 5});
  };
  BOOST_TEST(run() == 5);  // the amateur had no room for the end
  BOOST_TEST(against.last_refusal() == ln::to_string(refusal::over_target));
  check_done(against, against.reset_and_prefill(some));
  const std::vector<token> shorter{1};
  BOOST_TEST(run() == 5);
  BOOST_TEST(expert.generate(shorter, ln::with_logit_processors(ln::greedy{}, against), ignore,
                             {.tokens = 1}) == 1);
  BOOST_TEST(against.last_refusal() == ln::to_string(refusal::not_started));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::refusals_test
