// SPDX-License-Identifier: MIT
// Logits that leave nothing to choose from: no sampler returns a token, and every way to generate
// ends.

#include <limits>

#include "support/data.hpp"
#include "support/decoding.hpp"

namespace test::no_token_test {

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// What a sampler chooses and tells of these logits, in both types.
template <class Sampler>
void check_nothing(const Sampler& sampler, const std::vector<float>& logits) {
  const auto check = [&]<class T>(T) {
    const std::vector<T> given(logits.begin(), logits.end());
    std::vector<token> order(given.size());
    std::vector<double> law(given.size(), -1);
    Sampler choose = sampler;
    auto copy = given;
    BOOST_TEST(choose(std::span(copy), std::span(order)) == ln::no_token);
    copy = given;
    choose.probabilities(std::span(copy), std::span(order), {}, std::span(law));
    BOOST_TEST(std::count(law.begin(), law.end(), 0.0) == std::ssize(law));
    BOOST_TEST(choose.sample(law) == ln::no_token);
  };
  check(0.0f);
  check(0.0);
}

using M = ln::decoder<four_tokens>;
const std::vector<token> prompt{3, 1, 2};

/// A hook that spoils the logits of one token behind `good` tokens and the prompt.
auto spoiling(std::size_t good, float value = nan) {
  return [=](auto logits, std::span<const token> so_far) {
    if (so_far.size() >= prompt.size() + good)
      for (auto& l : logits) l = static_cast<std::remove_reference_t<decltype(l)>>(value);
  };
}

}  // namespace

BOOST_AUTO_TEST_SUITE(nothing_to_choose)

BOOST_AUTO_TEST_CASE(samplers) {
  std::vector<float> long_row(5000, 0.0f), end(5000, 0.0f);
  long_row[1500] = nan;
  long_row[4000] = 5;
  end.back() = nan;
  const std::vector<std::vector<float>> rows{{},
                                             {nan},
                                             {inf},
                                             {-inf},
                                             {nan, 2, 3, 4},
                                             {1, nan, 3, 4},
                                             {1, 2, 3, nan},
                                             {1, 2, 3, -nan},
                                             {nan, nan, nan},
                                             {1, inf, 3, 4},
                                             {-inf, -inf, -inf, -inf},
                                             {-inf, nan},
                                             long_row,
                                             end};
  for (const auto& row : rows) {
    check_nothing(ln::greedy{}, row);
    for (const ln::sampling_options& how :
         {ln::sampling_options{}, ln::sampling_options{.temperature = 0},
          ln::sampling_options{.top_k = 2}, ln::sampling_options{.top_p = 0.9},
          ln::sampling_options{.top_p = 0.9, .min_p = 0.3}, ln::sampling_options{.min_p = 0.5},
          ln::sampling_options{.repetition_penalty = 1.2}})
      check_nothing(ln::sampler(how), row);
  }
}

// Tokens of probability 0 are no harm, however they are written.
BOOST_AUTO_TEST_CASE(banned_tokens) {
  for (const float banned : {-inf, -1e30f, std::numeric_limits<float>::lowest()})
    for (const ln::sampling_options& how :
         {ln::sampling_options{}, ln::sampling_options{.temperature = 0},
          ln::sampling_options{.temperature = 1e-9}, ln::sampling_options{.top_k = 3},
          ln::sampling_options{.top_p = 0.99}, ln::sampling_options{.min_p = 1e-9},
          ln::sampling_options{.top_k = 3, .top_p = 1, .min_p = 0.01}})
      for (int i = 0; i < 20; ++i) {
        std::vector<float> row{banned, banned, 1, banned};
        std::vector<token> order(row.size());
        ln::sampler choose(how);
        BOOST_TEST(choose(std::span(row), std::span(order)) == 2);
      }
  // The penalty passes over what is no token of these logits.
  ln::sampler choose({.temperature = 0, .repetition_penalty = 3});
  std::vector<float> row{2, 1};
  std::vector<token> order(row.size());
  const token so_far[] = {ln::no_token, 0, 2, 1'000'000};
  BOOST_TEST(choose(std::span(row), std::span(order), std::span<const token>(so_far)) == 1);
}

BOOST_AUTO_TEST_CASE(generate_ends) {
  const auto p = random_packed<M, float>(21);
  auto s = opened(p, {.target = 12});
  for (const float value : {nan, inf, -inf})
    for (const std::size_t good : {0u, 1u, 4u}) {
      std::vector<token> text;
      const auto emit = [&](token t) { text.push_back(t); };
      const auto n = static_cast<index>(good);
      BOOST_TEST(s.generate(prompt, ln::with_logit_processors(ln::greedy{}, spoiling(good, value)),
                            emit) == n);
      BOOST_TEST(
          s.generate(prompt,
                     ln::with_logit_processors(ln::sampler({.seed = 1}), spoiling(good, value)),
                     emit) == n);
      BOOST_TEST(text.size() == 2 * good);
      BOOST_TEST(std::count(text.begin(), text.end(), ln::no_token) == 0);
    }
}

// A sampler's number outside of the vocabulary is no token either.
BOOST_AUTO_TEST_CASE(numbers_outside_the_vocabulary) {
  const auto p = random_packed<M, float>(21);
  auto s = opened(p, {.target = 12});
  for (const token wrong : {-2, 4, 1'000'000}) {
    std::vector<token> text;
    const auto choose = [&](std::span<float>, std::span<token>) {
      return text.size() < 3 ? token{2} : wrong;
    };
    BOOST_TEST(s.generate(prompt, choose, [&](token t) { text.push_back(t); }) == 3);
    BOOST_TEST(text.size() == 3u);
  }
}

// Of a hypothesis remains what it had; with one beam that is what generate() gives.
BOOST_AUTO_TEST_CASE(beams_end) {
  const auto p = random_packed<M, double>(21);
  auto s = opened(p, {.batch = 3, .target = 12});
  for (const index width : {1, 3})
    for (const std::size_t good : {0u, 1u, 4u}) {
      auto search = ln::beam_search<M, double>::open(s, {.width = width});
      BOOST_REQUIRE(static_cast<bool>(search));
      const auto found = (*search)(prompt, {}, spoiling(good));
      BOOST_TEST(std::ssize(found) == (good == 0 ? 0 : width));
      for (const auto& h : found) {
        BOOST_TEST(h.tokens.size() == good);
        BOOST_TEST(!h.stopped);
        BOOST_TEST(ln::is_finite(h.score));
        for (const token t : h.tokens) BOOST_TEST((t >= 0 && t < 4));
      }
      if (width > 1 || good == 0) continue;
      std::vector<token> text;
      s.generate(prompt, ln::with_logit_processors(ln::greedy{}, spoiling(good)),
                 [&](token t) { text.push_back(t); });
      BOOST_TEST(text == std::vector<token>(found[0].tokens.begin(), found[0].tokens.end()),
                 boost::test_tools::per_element());
    }
  // One hypothesis alone ends, the others go on.
  token first = ln::no_token;
  const auto spoil_one = [&](auto logits, std::span<const token> so_far) {
    if (so_far.size() == prompt.size() + 1 && (first == ln::no_token || so_far.back() == first)) {
      first = so_far.back();
      logits[1] = static_cast<double>(nan);
    }
  };
  auto search = ln::beam_search<M, double>::open(s, {.width = 3});
  const auto found = (*search)(prompt, {.tokens = 3}, spoil_one);
  BOOST_TEST(found.size() == 3);
  for (const auto& h : found)
    BOOST_TEST(h.tokens.size() == (h.tokens[0] == first ? 1u : 3u), "from " << h.tokens[0]);
}

BOOST_AUTO_TEST_CASE(speculation_ends) {
  const auto p = random_packed<M, double>(21), q = random_packed<M, double>(22);
  auto target = opened(p, {.target = 12, .max_logits = 4}), draft = opened(q, {.target = 12});
  auto fast = ln::speculative<M, M, double>::open(target, draft, 3);
  auto own = ln::self_speculative<M, double>::open(target, 1, 3);
  BOOST_REQUIRE(static_cast<bool>(fast));
  BOOST_REQUIRE(static_cast<bool>(own));
  for (const std::size_t good : {0u, 1u, 2u, 5u}) {
    std::vector<token> plain, two, self;
    const auto into = [](std::vector<token>& text) { return [&](token t) { text.push_back(t); }; };
    target.generate(prompt, ln::with_logit_processors(ln::greedy{}, spoiling(good)), into(plain));
    BOOST_TEST(plain.size() == good);
    fast->generate(prompt, ln::with_logit_processors(ln::greedy{}, spoiling(good)), into(two));
    own->generate(prompt, ln::with_logit_processors(ln::greedy{}, spoiling(good)), into(self));
    BOOST_TEST(two == plain, boost::test_tools::per_element());
    BOOST_TEST(self == plain, boost::test_tools::per_element());
    BOOST_TEST(fast->generate(prompt,
                              ln::with_logit_processors(ln::sampler({.seed = 1}), spoiling(good)),
                              [](token t) { BOOST_TEST(t >= 0); }) == static_cast<index>(good));
  }
  // A draft that is no number drafts nothing; the text is the target's.
  ln::weights<M, double> w;
  w.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    std::fill_n(values_of(leaf), info.size(), static_cast<double>(nan));
  });
  const auto bad = ln::pack(w);
  auto spoilt = opened(bad, {.target = 12, .max_logits = 4});
  auto alone = ln::speculative<M, M, double>::open(target, spoilt, 3);
  std::vector<token> text, plain;
  target.generate(prompt, ln::greedy{}, [&](token t) { plain.push_back(t); });
  BOOST_TEST(plain.size() == 10);
  alone->generate(prompt, ln::greedy{}, [&](token t) { text.push_back(t); });
  BOOST_TEST(text == plain, boost::test_tools::per_element());
  BOOST_TEST(alone->counts().drafted == 0);
  // A model that is no number writes nothing, nor does greedy decoding find a token the best.
  BOOST_TEST(spoilt.generate(prompt, ln::greedy{}, [](token) {}) == 0);
  BOOST_TEST(ln::generate_greedy(spoilt, std::span<const token>(prompt), 5,
                                 [](token) { return true; }) == 0);
  const std::vector<double> row{1, 2, static_cast<double>(nan)};
  for (const token t : {0, 1, 2}) {
    const auto score = ln::score_of(std::span(row), t);
    BOOST_TEST(!score.best);
    BOOST_TEST(ln::is_nan(score.log_probability));
  }
}

// Nothing is written behind a scratch span that is shorter than the logits.
BOOST_AUTO_TEST_CASE(short_scratch) {
  for (const ln::sampling_options& how :
       {ln::sampling_options{}, {.top_k = 2}, {.top_p = 0.5}, {.repetition_penalty = 1.5}}) {
    ln::sampler choose(how);
    std::vector<float> logits{1, 2, 3, 4};
    std::vector<token> scratch(3);
    const token before[] = {1};
    BOOST_TEST(choose(std::span(logits), std::span(scratch), before) == ln::no_token);
    std::vector<double> law(4, 1);
    choose.probabilities(std::span(logits), std::span(scratch), before, std::span(law));
    BOOST_TEST(magnitude(law) == 0);
  }
}

// A byte's logits alone end a text between bytes, after the bytes before it.
BOOST_AUTO_TEST_CASE(byte_texts_end) {
  using bytes = ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>;
  const auto p = random_packed<bytes, float>(3);
  auto s = ln::session<bytes>::open(p, {.target = 8});
  BOOST_REQUIRE(static_cast<bool>(s));
  const std::vector<token> start{'a', 'b', ln::byte_pad, ln::byte_pad};
  int calls = 0;
  const auto choose = [&](std::span<float> logits, std::span<token> scratch) {
    std::fill(logits.begin() + ln::byte_pad, logits.end(), -1e30f);
    if (++calls == 7) logits[5] = nan;
    return ln::greedy{}(logits, scratch);
  };
  std::string text;
  BOOST_TEST(ln::generate_bytes(*s, start, choose, [&](std::string_view t) { text += t; }) == 2);
  BOOST_TEST(text.size() == 6);
  // So does a number that is none of a byte, however it is wrong.
  for (const token wrong : {ln::no_token, -2, -1'000'000, 258, 1'000'000}) {
    calls = 0;
    text.clear();
    const auto off = [&](std::span<float>, std::span<token>) {
      return ++calls == 7 ? wrong : token{'x'};
    };
    BOOST_TEST(ln::generate_bytes(*s, start, off, [&](std::string_view t) { text += t; }) == 2);
    BOOST_TEST(text == "xxxxxx");
  }
}

// Nor is a draft one, nor what follows the drafts.
BOOST_AUTO_TEST_CASE(drafts_outside_the_vocabulary) {
  struct odd : ln::greedy {
    token wrong;
    int good;
    token sample(std::span<const double> weights) {
      return good-- > 0 ? ln::greedy::sample(weights) : wrong;
    }
  };
  const auto p = random_packed<M, float>(21);
  auto target = opened(p, {.target = 12, .max_logits = 4}), draft = opened(p, {.target = 12});
  auto fast = ln::speculative<M, M>::open(target, draft, 3);
  auto own = ln::self_speculative<M>::open(target, 1, 3);
  LINNET_REQUIRE_OK(fast);
  LINNET_REQUIRE_OK(own);
  for (const token wrong : {-2, 4, 1'000'000})
    for (const int good : {0, 1, 2, 4}) {
      const auto whole = [](token t) { BOOST_TEST((t >= 0 && t < 4)); };
      BOOST_TEST(fast->generate(prompt, odd{{}, wrong, good}, whole) <= good);
      BOOST_TEST(own->generate(prompt, odd{{}, wrong, good}, whole) <= good);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::no_token_test
