// SPDX-License-Identifier: MIT
// Contrastive decoding: equal readings give the greedy text, others the argmax of the formula
// written out with every text read anew.

#include "support/decoding.hpp"

namespace test::contrast_test {

namespace {

using decoder = ln::decoder<tiny_decoder_shape>;
using weaker = ln::decoder<tiny_decoder_shape, ln::ffn::skip>;
using t5 = ln::t5<tiny_t5_shape>;

std::vector<double> log_law(std::span<const double> logits) {
  double total = 0;
  for (const double l : logits) total += std::exp(l);
  std::vector<double> p;
  for (const double l : logits) p.push_back(l - std::log(total));
  return p;
}

template <class M, class T>
std::vector<token> greedy_text(const ln::packed<M, T>& p, std::span<const token> prompt,
                               index most) {
  auto s = opened(p, {.source = 16, .target = 64});
  std::vector<token> all;
  s.generate(prompt, ln::greedy{}, [&](token t) { all.push_back(t); }, {.tokens = most});
  return all;
}

template <class M, class A>
void check_formula(const std::vector<token>& with, const std::vector<token>& without,
                   const ln::contrast_options& how) {
  const auto p = random_packed<M, double>(8);
  const auto q = random_packed<A, double>(8);
  auto expert = opened(p, {.source = 16, .target = 40});
  auto amateur = opened(q, {.source = 16, .target = 40});
  ln::contrast against(amateur, how);
  ln::with_logit_processors choose(ln::greedy{}, against);
  anew<M, double> read(p);
  anew<A, double> read_other(q);
  const index most = 12;
  for (int twice = 0; twice < 2; ++twice) {
    std::vector<token> text;
    BOOST_REQUIRE(against.reset_and_prefill(without));
    expert.generate(with, choose, [&](token t) { text.push_back(t); }, {.tokens = most});
    BOOST_TEST(std::ssize(text) == most);
    for (std::size_t n = 0; n < text.size(); ++n) {
      const auto before = std::span(text).first(n);
      const auto e = log_law(read(with, before)), a = log_law(read_other(without, before));
      const double top = *std::max_element(e.begin(), e.end());
      double best = -1e300;
      token want = 0;
      for (std::size_t t = 0; t < e.size(); ++t) {
        const double score = e[t] + how.weight * (e[t] - a[t]);
        if (std::exp(e[t]) >= how.plausibility * std::exp(top) && score > best)
          best = score, want = static_cast<token>(t);
      }
      BOOST_TEST(text[n] == want);
    }
    BOOST_TEST((text != greedy_text(p, with, most)));
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(contrasts)

BOOST_AUTO_TEST_CASE(equal_readings_are_greedy) {
  const auto check = [&]<class M>(const ln::packed<M>& p) {
    auto expert = opened(p, {.source = 16, .target = 40}),
         amateur = opened(p, {.source = 16, .target = 40});
    const auto prompt = tokens(6, M::vocabulary, 1);
    for (const ln::contrast_options how :
         {ln::contrast_options{}, {.weight = 5, .plausibility = 0.1}}) {
      ln::contrast against(amateur, how);
      BOOST_REQUIRE(against.reset_and_prefill(prompt));
      std::vector<token> text;
      expert.generate(prompt, ln::with_logit_processors(ln::greedy{}, against),
                      [&](token t) { text.push_back(t); }, {.tokens = 20});
      BOOST_TEST(text == greedy_text(p, prompt, 20), boost::test_tools::per_element());
    }
  };
  check(random_packed<decoder, float>(6));
  check(random_packed<t5, float>(6));
}

// With and without the context; with another one; expert and amateur.
BOOST_AUTO_TEST_CASE(other_contexts) {
  const std::vector<token> question{4, 7, 2}, with{9, 1, 5, 5, 4, 7, 2};
  check_formula<decoder, decoder>(with, question, {});
  check_formula<decoder, decoder>(with, question, {.weight = 3, .plausibility = 0.1});
  check_formula<t5, t5>(with, question, {.weight = 2});
  check_formula<decoder, weaker>(question, question, {.weight = 2, .plausibility = 0.2});
}

// The amateur has no more room: the expert goes on alone. It was not started: the same.
BOOST_AUTO_TEST_CASE(without_an_amateur) {
  const auto p = random_packed<decoder, float>(6);
  auto expert = opened(p, {.target = 40}), amateur = opened(p, {.target = 5});
  ln::contrast against(amateur, {.weight = 20});
  const auto prompt = tokens(6, decoder::vocabulary, 1);
  const auto run = [&] {
    std::vector<token> text;
    expert.generate(prompt, ln::with_logit_processors(ln::greedy{}, against),
                    [&](token t) { text.push_back(t); }, {.tokens = 20});
    return text;
  };
  BOOST_TEST(run() == greedy_text(p, prompt, 20), boost::test_tools::per_element());
  BOOST_TEST(!against.reset_and_prefill(prompt));
  BOOST_TEST(run() == greedy_text(p, prompt, 20), boost::test_tools::per_element());
  const token other[] = {7, 0};
  BOOST_TEST(against.reset_and_prefill(other));
  const auto text = run();
  BOOST_TEST(text.size() == 20u);
  BOOST_TEST((text != greedy_text(p, prompt, 20)));
  // From where the amateur is full on, the text is what the expert says after the beginning.
  std::vector<token> beginning = prompt;
  beginning.insert(beginning.end(), text.begin(), text.begin() + 4);
  BOOST_TEST(std::vector<token>(text.begin() + 4, text.end()) == greedy_text(p, beginning, 16),
             boost::test_tools::per_element());
  // A second text without a new start is not contrasted with the end of the first one.
  BOOST_REQUIRE(against.reset_and_prefill(other));
  expert.generate(prompt, ln::with_logit_processors(ln::greedy{}, against), [](token) {},
                  {.tokens = 3});
  BOOST_TEST(run() == greedy_text(p, prompt, 20), boost::test_tools::per_element());
}

// The weights: a token the expert finds implausible stays out, however the amateur dislikes it.
BOOST_AUTO_TEST_CASE(plausible_tokens) {
  const ln::packed<decoder> zeros;  // the amateur finds all tokens alike
  auto amateur = opened(zeros, {.target = 8});
  const token prompt[] = {1, 2};
  std::vector<float> logits(at(decoder::vocabulary), -3.0f);
  logits[4] = 2;
  logits[5] = 1.9f;
  logits[6] = 2 - 1.5f;
  ln::contrast against(amateur, {.weight = 0.5, .plausibility = 0.3});
  BOOST_REQUIRE(against.reset_and_prefill(prompt));
  const auto before = logits;
  against(std::span(logits), std::span<const token>(prompt));
  for (std::size_t t = 0; t < logits.size(); ++t)
    BOOST_TEST((logits[t] < -1e29f) == (t != 4 && t != 5));
  BOOST_TEST(std::abs((logits[4] - logits[5]) - 1.5f * (before[4] - before[5])) < 1e-6);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::contrast_test
