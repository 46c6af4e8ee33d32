// SPDX-License-Identifier: MIT
// Generation: the tokens are those of the loop written out, and it ends where it should.

#include "support/scoring.hpp"

namespace test::generation_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape>;
constexpr index capacity = 20;

template <class M>
struct setup {
  ln::packed<M> p = random_packed<M, float>(6);
  ln::session<M> s = [&] {
    auto opened = ln::session<M>::open(p, {.source = 9, .target = capacity});
    BOOST_REQUIRE(static_cast<bool>(opened));
    return *std::move(opened);
  }();
  std::vector<token> prompt = tokens(6, M::vocabulary, 1);

  /// What greedy generation gives: tokens as they are chosen, and the number it returns.
  std::pair<std::vector<token>, index> run(const ln::generation_options& g = {}) {
    std::vector<token> all;
    const index n = s.generate(
        prompt, ln::greedy{}, [&](token t) { all.push_back(t); }, g);
    return {all, n};
  }
  /// The same, token by token from the logits of all positions, without a session.
  std::vector<token> by_hand(index count) {
    std::vector<token> all;
    for (index n = 0; n < count; ++n) {
      std::vector<float> logits;
      index rows = 0;
      if constexpr (M::encodes) {
        std::vector<token> labels = all;  // row n has read the start token and the first n labels
        labels.push_back(0);
        rows = n + 1;
        logits = logits_of(p, {prompt.data(), nullptr, labels.data(), 1, std::ssize(prompt), rows},
                           {.source = 9, .target = capacity + 1});
      } else {
        std::vector<token> inputs = prompt;
        inputs.insert(inputs.end(), all.begin(), all.end());
        rows = std::ssize(inputs);
        logits = logits_of(p, {inputs.data(), inputs.data(), 1, rows}, {.target = capacity + 1});
      }
      const auto row = row_of<M>(logits, rows - 1);
      all.push_back(static_cast<token>(std::max_element(row.begin(), row.end()) - row.begin()));
    }
    return all;
  }
};

template <class M>
void check_generation(index until_full) {
  setup<M> a;
  // To the end of the capacity: the last token chosen is not fed any more.
  const auto [whole, count] = a.run();
  BOOST_TEST(count == until_full);
  BOOST_TEST(whole == a.by_hand(until_full), boost::test_tools::per_element());
  BOOST_TEST(a.s.position() == capacity);
  // Again from the start.
  BOOST_TEST(a.run().first == whole, boost::test_tools::per_element());
  // At most so many tokens.
  for (const index limit : {1, 3, 100}) {
    const auto [some, n] = a.run({.tokens = limit});
    BOOST_TEST(n == std::min(limit, until_full));
    BOOST_TEST(std::ssize(some) == n);
    BOOST_TEST(std::equal(some.begin(), some.end(), whole.begin()));
  }
  // Up to the first stop token, which is not passed on; other stop tokens do not matter.
  std::vector<bool> seen(at(M::vocabulary));
  for (const token t : whole) seen[static_cast<std::size_t>(t)] = true;
  BOOST_TEST(std::count(seen.begin(), seen.end(), true) > 2);
  token absent = 0;
  while (seen[static_cast<std::size_t>(absent)]) ++absent;
  const token stop[] = {absent, whole.back()};
  const index first = std::find(whole.begin(), whole.end(), whole.back()) - whole.begin();
  const auto [stopped, n] = a.run({.stop = stop});
  BOOST_TEST(n == first);
  BOOST_TEST(std::ssize(stopped) == first);
  BOOST_TEST(a.run({.stop = std::span(stop).first(1)}).second == until_full);
  const token immediately[] = {whole.front()};
  BOOST_TEST(a.run({.stop = immediately}).second == 0);
  // Until the callback says false; the token it said so for counts.
  index calls = 0;
  BOOST_TEST(a.s.generate(a.prompt, ln::greedy{}, [&](token) { return ++calls < 4; }) == 4);
  BOOST_TEST(calls == 4);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(generation)

// The start token takes one place: as many tokens as the capacity.
BOOST_AUTO_TEST_CASE(t5_generates) { check_generation<t5>(capacity); }
// The prompt takes six places.
BOOST_AUTO_TEST_CASE(decoder_generates) { check_generation<decoder>(capacity - 6 + 1); }

// Any callable chooses: one of our own, given the logits and room for an order.
BOOST_AUTO_TEST_CASE(own_sampler) {
  setup<decoder> a;
  index calls = 0;
  std::vector<token> all;
  const auto least = [&](std::span<float> logits, std::span<token> order) {
    ++calls;
    BOOST_TEST(logits.size() == at(decoder::vocabulary));
    BOOST_TEST(order.size() == at(decoder::vocabulary));
    return static_cast<token>(std::min_element(logits.begin(), logits.end()) - logits.begin());
  };
  BOOST_TEST(a.s.generate(a.prompt, least, [&](token t) { all.push_back(t); }, {.tokens = 5}) == 5);
  BOOST_TEST(calls == 5);
  BOOST_TEST((all != a.run({.tokens = 5}).first));
}

// A sampler of temperature 0 gives the greedy text; a warm one another, the same for the same seed.
BOOST_AUTO_TEST_CASE(sampled_text) {
  setup<t5> a;
  const auto text = [&](const ln::sampling_options& settings) {
    ln::sampler choose(settings);
    std::vector<token> all;
    a.s.generate(a.prompt, choose, [&](token t) { all.push_back(t); });
    return all;
  };
  const auto greedy = a.run().first;
  BOOST_TEST(text({.temperature = 0}) == greedy, boost::test_tools::per_element());
  BOOST_TEST(text({.top_k = 1}) == greedy, boost::test_tools::per_element());
  BOOST_TEST(text({.seed = 1}) == text({.seed = 1}), boost::test_tools::per_element());
  BOOST_TEST((text({.seed = 1}) != text({.seed = 2})));
}

// Bits per byte: nats / (bytes ln 2). A uniform model over 256 bytes needs 8 bits for each.
BOOST_AUTO_TEST_CASE(bits_per_byte) {
  BOOST_TEST(std::abs(ln::bits_per_byte(1000 * std::log(256.0), 1000) - 8) < 1e-12);
  constexpr ln::decoder_shape bytes{.d_model = 8,
                                    .d_ff = 7,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .layers = 1,
                                    .vocabulary = 256,
                                    .context = 16};
  using M = ln::decoder<bytes>;
  const ln::packed<M> zeros;  // all logits are equal
  auto score = ln::evaluator<M>::open(zeros, {.target = 10});
  const decoder_tokens data(1, 10, 256);
  BOOST_TEST(std::abs(ln::bits_per_byte(score->loss(data.view()).nats, 10) - 8) < 1e-6);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::generation_test
