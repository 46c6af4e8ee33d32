// SPDX-License-Identifier: MIT
// Beam search: against all texts where these can be tried, against the method written out with
// every text read anew, and against greedy generation.

#include <algorithm>

#include "support/decoding.hpp"

namespace test::beam_test {

namespace {

using decoder = ln::decoder<four_tokens>;
using t5 = ln::t5<four_tokens_t5>;

struct text {
  std::vector<token> tokens;
  double sum = 0, score = 0;
  bool stopped = false;
};

double score_of(double sum, std::size_t length, double alpha) {
  return sum / std::pow((5 + static_cast<double>(length)) / 6, alpha);
}
std::vector<double> log_probabilities(std::span<const double> logits) {
  double total = 0;
  for (const double l : logits) total += std::exp(l);
  std::vector<double> p;
  for (const double l : logits) p.push_back(l - std::log(total));
  return p;
}
bool contains(const std::vector<token>& all, token t) {
  return std::count(all.begin(), all.end(), t) > 0;
}
bool better(const text& a, const text& b) { return a.score > b.score; }

template <class M>
struct setup {
  static constexpr index capacity = 9;
  static constexpr bool encodes = M::encodes;
  ln::packed<M, double> p;
  anew<M, double> read;
  std::vector<token> prompt{1, 3, 0};

  explicit setup(std::uint64_t seed) : p(random_packed<M, double>(seed)), read(p) {}
  index room() const { return encodes ? capacity : capacity - 3 + 1; }

  /// All texts of at most `most` tokens, best first.
  std::vector<text> every(index most, const std::vector<token>& stops, double alpha) {
    std::vector<text> open{{}}, ended;
    for (index n = 1; n <= most; ++n) {
      std::vector<text> longer;
      for (const text& t : open) {
        const auto logits = read(prompt, t.tokens);
        const auto lp = log_probabilities(logits);
        for (token id = 0; id < M::vocabulary; ++id) {
          text next = t;
          next.sum += lp[at(id)];
          next.stopped = contains(stops, id);
          if (!next.stopped) next.tokens.push_back(id);
          next.score = score_of(next.sum, at(n), alpha);
          (next.stopped || n == most ? ended : longer).push_back(next);
        }
      }
      open = longer;
    }
    std::sort(ended.begin(), ended.end(), better);
    return ended;
  }
  /// The method written out: all continuations, sorted.
  std::vector<text> by_hand(std::size_t width, index most, const std::vector<token>& stops,
                            double alpha, bool early) {
    std::vector<text> open{{}}, pool;
    const auto end = [&](text t, index n) {
      t.score = score_of(t.sum, at(n), alpha);
      pool.push_back(t);
      std::stable_sort(pool.begin(), pool.end(), better);
      if (pool.size() > width) pool.pop_back();
    };
    for (index n = 1; n <= most && !open.empty(); ++n) {
      std::vector<text> longer;
      for (const text& t : open) {
        const auto lp = log_probabilities(read(prompt, t.tokens));
        for (token id = 0; id < M::vocabulary; ++id) {
          text next = t;
          next.sum += lp[at(id)];
          next.tokens.push_back(id);
          longer.push_back(next);
        }
      }
      std::sort(longer.begin(), longer.end(), [](auto& a, auto& b) { return a.sum > b.sum; });
      open.clear();
      for (std::size_t i = 0; i < longer.size(); ++i) {
        text t = longer[i];
        if (!contains(stops, t.tokens.back())) {
          if (open.size() < width) open.push_back(t);
        } else if (i < width) {
          t.tokens.pop_back();
          t.stopped = true;
          end(t, n);
        }
      }
      if (early && pool.size() == width) return pool;
      if (n == most)
        for (const text& t : open) end(t, n);
    }
    return pool;
  }

  void check(const std::vector<text>& want, std::span<const ln::hypothesis> got) {
    BOOST_REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      BOOST_TEST(distance_of(got[i].score, want[i].score) <= 1e-10);
      BOOST_TEST(distance_of(got[i].log_probability, want[i].sum) <= 1e-10);
      BOOST_TEST(got[i].stopped == want[i].stopped);
      BOOST_REQUIRE(std::equal(got[i].tokens.begin(), got[i].tokens.end(), want[i].tokens.begin(),
                               want[i].tokens.end()));
    }
  }
  ln::session<M, double> session(index batch) {
    return opened(p, {.batch = batch, .source = 5, .target = capacity});
  }
};

template <class M>
void check_exhaustive() {
  setup<M> a(5);
  auto s = a.session(130);
  for (const double alpha : {0.0, 0.6, 2.0, -1.0})
    for (const std::vector<token>& stops : {std::vector<token>{}, {2}, {0, 3}}) {
      auto search = ln::beam_search<M, double>::open(s, {.width = 130, .alpha = alpha});
      BOOST_REQUIRE(static_cast<bool>(search));
      const index most = stops.empty() ? 3 : 4;
      const auto want = a.every(most, stops, alpha);
      BOOST_TEST(want.size() == (stops.empty() ? 64u : stops.size() == 1 ? 121u : 46u));
      a.check(want, (*search)(a.prompt, {.tokens = most, .stop = stops}));
    }
}

template <class M>
void check_narrow() {
  long longer = 0, different = 0;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    setup<M> a(seed);
    auto s = a.session(5);
    for (const index width : {1, 2, 3, 5})
      for (const double alpha : {0.0, 0.7, 3.0}) {
        const std::vector<token> stops =
            seed % 2 == 0 ? std::vector<token>{2} : std::vector<token>{1, 2};
        std::vector<text> results[2];
        for (const bool early : {true, false}) {
          auto search =
              ln::beam_search<M, double>::open(s, {.width = width, .alpha = alpha, .early = early});
          BOOST_REQUIRE(static_cast<bool>(search));
          for (const index most : {index{1}, index{4}, a.room()}) {
            const auto want = a.by_hand(at(width), most, stops, alpha, early);
            a.check(want, (*search)(a.prompt, {.tokens = most, .stop = stops}));
            results[early] = want;
          }
          // No limit but the capacity.
          a.check(results[early], (*search)(a.prompt, {.stop = stops}));
        }
        longer += !results[false].empty() && results[false][0].tokens.size() > 3;
        different += results[false][0].tokens != results[true][0].tokens;
      }
  }
  BOOST_TEST(longer > 0);
  BOOST_TEST(different > 0);
}

/// Width 1 against generate() with greedy.
template <class M>
void check_greedy() {
  const auto p = random_packed<M, float>(6);
  auto s = opened(p, {.batch = 2, .source = 9, .target = 20});
  auto search = ln::beam_search<M>::open(s, {.width = 1, .alpha = 1});
  BOOST_REQUIRE(static_cast<bool>(search));
  const auto prompt = tokens(6, M::vocabulary, 1);
  const auto check = [&](const ln::generation_options& g) {
    std::vector<token> want;
    s.generate(
        prompt, ln::greedy{}, [&](token t) { want.push_back(t); }, g);
    const auto got = (*search)(prompt, g);
    BOOST_REQUIRE(got.size() == 1);
    BOOST_TEST(std::vector<token>(got[0].tokens.begin(), got[0].tokens.end()) == want,
               boost::test_tools::per_element());
    return want;
  };
  const auto whole = check({});
  check({.tokens = 3});
  const token stop[] = {whole.back()};
  BOOST_TEST(check({.stop = stop}).size() < whole.size());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(beams)

BOOST_AUTO_TEST_CASE(decoder_exhaustive) { check_exhaustive<decoder>(); }
BOOST_AUTO_TEST_CASE(t5_exhaustive) { check_exhaustive<t5>(); }
BOOST_AUTO_TEST_CASE(decoder_narrow) { check_narrow<decoder>(); }
BOOST_AUTO_TEST_CASE(t5_narrow) { check_narrow<t5>(); }
BOOST_AUTO_TEST_CASE(one_beam_is_greedy) {
  check_greedy<ln::decoder<tiny_decoder_shape>>();
  check_greedy<ln::t5<tiny_t5_shape>>();
}

// All tokens are equally likely: lower ids first, and one beam takes token 0 as greedy does.
BOOST_AUTO_TEST_CASE(ties) {
  const ln::packed<decoder> zeros;
  auto s = opened(zeros, {.batch = 3, .target = 8});
  const token prompt[] = {1};
  const auto first = [&](index width, index i) {
    auto search = ln::beam_search<decoder>::open(s, {.width = width});
    const auto all = (*search)(prompt, {.tokens = 2});
    BOOST_REQUIRE(std::ssize(all) == width);
    return std::vector<token>(all[at(i)].tokens.begin(), all[at(i)].tokens.end());
  };
  const std::vector<token> want[] = {{0, 0}, {0, 1}, {0, 2}};
  BOOST_TEST(first(1, 0) == want[0], boost::test_tools::per_element());
  for (index i = 0; i < 3; ++i)
    BOOST_TEST(first(3, i) == want[i], boost::test_tools::per_element());
}

// Where the logarithms round alike the logits decide, as they do for greedy.
BOOST_AUTO_TEST_CASE(nearly_ties) {
  const ln::packed<decoder> zeros;
  auto s = opened(zeros, {.batch = 1, .target = 8});
  auto search = ln::beam_search<decoder>::open(s, {.width = 1});
  const token prompt[] = {1};
  const auto all = (*search)(prompt, {.tokens = 1}, [](auto logits) { logits[2] = 1e-30f; });
  BOOST_REQUIRE(all.size() == 1u);
  BOOST_TEST(all[0].tokens[0] == 2);
}

// Hooks see each hypothesis with its own tokens; what they exclude is in no result.
BOOST_AUTO_TEST_CASE(hooked) {
  setup<decoder> a(2);
  auto s = a.session(3);
  auto search = ln::beam_search<decoder, double>::open(s, {.width = 3});
  const auto no_repeats = [](std::span<double> logits, std::span<const token> so_far) {
    logits[at(so_far.back())] = -1e30;
  };
  const auto all = (*search)(a.prompt, {}, no_repeats, [](auto logits) { logits[3] = -1e30; });
  BOOST_TEST(all.size() == 3u);
  for (const ln::hypothesis& h : all) {
    BOOST_TEST(std::ssize(h.tokens) == a.room());
    token before = a.prompt.back();
    for (const token t : h.tokens) {
      BOOST_TEST(t != before);
      BOOST_TEST(t != 3);
      before = t;
    }
  }
  // With one token left, there is one text, however many beams.
  BOOST_TEST((*search)(a.prompt, {}, [](auto logits) {
               for (const std::size_t t : {0u, 1u, 3u}) logits[t] = -1e30;
             }).size() == 1u);
}

BOOST_AUTO_TEST_CASE(refusals) {
  setup<decoder> a(2);
  auto s = a.session(3);
  for (const index width : {0, 4}) {
    const auto search = ln::beam_search<decoder, double>::open(s, {.width = width});
    BOOST_REQUIRE(!search);
    BOOST_TEST(search.error().message() ==
               "beam_search::open: beam_options.width: expected 1 to limits.batch, 3, got " +
                   std::to_string(width));
  }
  auto search = ln::beam_search<decoder, double>::open(s, {.width = 2});
  BOOST_TEST((*search)({}).empty());
  BOOST_TEST((*search)(tokens(a.capacity + 1, 4, 1)).empty());
  BOOST_TEST((*search)(tokens(a.capacity, 4, 1)).size() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::beam_test
