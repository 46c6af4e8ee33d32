// Samplers: exact supports, and frequencies by chi-square against probabilities computed here.

#include <algorithm>
#include <numeric>

#include "support/test.hpp"

namespace test {

namespace {

const std::vector<float> logits{0.3f, -1.2f, 2.0f, 0.3f, -0.4f, 1.1f, -3.0f, 1.9f};

/// The law that the settings ask for: temperature, then the k most likely, then the smallest likely
/// set of mass p; ties go to the lower id.
std::vector<double> law(const ln::sampling& s) {
  std::vector<double> p;
  double mass = 0;
  for (const float l : logits)
    mass += p.emplace_back(std::exp(static_cast<double>(l) / s.temperature));
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
  std::size_t kept = s.top_k > 0 ? std::min(order.size(), at(s.top_k)) : order.size();
  mass = 0;
  for (std::size_t i = 0; i < kept; ++i) mass += p[order[i]];
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    sum += p[order[i]];
    if (s.top_p < 1 && sum >= s.top_p * mass) kept = i + 1;
  }
  std::vector<double> q(p.size());
  for (std::size_t i = 0; i < kept; ++i) q[order[i]] = p[order[i]] / sum;
  return q;
}

token draw(ln::sampler& choose) {
  auto copy = logits;
  std::vector<token> order(copy.size());
  return choose(std::span(copy), std::span(order));
}

/// Draws many tokens: none outside the support, every one of it, in the right proportions.
void check_law(ln::sampling s) {
  constexpr int draws = 20'000;
  const auto want = law(s);
  s.seed = 11;
  ln::sampler choose(s);
  std::vector<int> counts(want.size());
  for (int i = 0; i < draws; ++i) ++counts.at(static_cast<std::size_t>(draw(choose)));
  double chi = 0, support = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    BOOST_TEST((counts[i] > 0) == (want[i] > 0), "token " << i);
    if (want[i] == 0) continue;
    ++support;
    chi += (counts[i] - draws * want[i]) * (counts[i] - draws * want[i]) / (draws * want[i]);
  }
  const double freedom = support - 1;
  BOOST_TEST(chi <= freedom + 5 * std::sqrt(2 * freedom) + 1e-9,
             "temperature " << s.temperature << " top_k " << s.top_k << " top_p " << s.top_p << ": "
                            << chi);
}
std::ptrdiff_t support(const ln::sampling& s) {
  const auto p = law(s);
  return std::count_if(p.begin(), p.end(), [](double x) { return x > 0; });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sampling)

// The most likely token; of equals the lowest id, wherever they are.
BOOST_AUTO_TEST_CASE(greedy_takes_the_lowest_of_equals) {
  const auto best = [](std::vector<float> x) {
    std::vector<token> order(x.size());
    return ln::greedy{}(std::span(x), std::span(order));
  };
  BOOST_TEST(best({0, 1, 3, 3, 2, 3}) == 2);
  BOOST_TEST(best({5, 5, 5}) == 0);
  BOOST_TEST(best({-1e30f, -1e30f}) == 0);
  BOOST_TEST(best({-4, -5, -3}) == 2);
  BOOST_TEST(best({7}) == 0);
  std::vector<float> many(3001, -1.0f);
  BOOST_TEST(best(many) == 0);
  many[3000] = 1;
  BOOST_TEST(best(many) == 3000);
  many[1700] = many[2500] = 1;
  BOOST_TEST(best(many) == 1700);
}

BOOST_AUTO_TEST_CASE(temperature) {
  check_law({.temperature = 1});
  check_law({.temperature = 0.7});
  check_law({.temperature = 3});
}

// Tokens 0 and 3 are equal, so the fifth most likely is token 0.
BOOST_AUTO_TEST_CASE(top_k) {
  for (const index k : {1, 2, 4, 5, 7, 8, 100}) check_law({.top_k = k});
  BOOST_TEST(law({.top_k = 4})[0] > 0);
  BOOST_TEST(law({.top_k = 4})[3] == 0);
}

BOOST_AUTO_TEST_CASE(top_p) {
  for (const double p : {0.0, 0.2, 0.36, 0.5, 0.9, 0.97}) check_law({.top_p = p});
  BOOST_TEST(support({.top_p = 0}) == 1);
  BOOST_TEST(support({.top_p = 0.5}) == 2);
  BOOST_TEST(support({.top_p = 0.97}) == 6);
}

// In this order: temperature, top-k, top-p of what is left.
BOOST_AUTO_TEST_CASE(all_together) {
  check_law({.temperature = 2, .top_k = 5, .top_p = 0.8});
  check_law({.temperature = 0.5, .top_k = 3, .top_p = 0.99});
  BOOST_TEST(support({.temperature = 2, .top_k = 5, .top_p = 0.8}) !=
             support({.temperature = 1, .top_k = 5, .top_p = 0.8}));
}

// Temperature 0 is greedy; so is one of a thousandth, and nothing overflows.
BOOST_AUTO_TEST_CASE(cold_is_greedy) {
  ln::sampler zero({.temperature = 0}), cold({.temperature = 1e-3});
  for (int i = 0; i < 100; ++i) {
    BOOST_TEST(draw(zero) == 2);
    BOOST_TEST(draw(cold) == 2);
  }
  std::vector<float> huge{-1e30f, 1e30f, 0};
  std::vector<token> order(3);
  BOOST_TEST(zero(std::span(huge), std::span(order)) == 1);
  BOOST_TEST(cold(std::span(huge), std::span(order)) == 1);
}

// A seed is a sequence; another seed is another.
BOOST_AUTO_TEST_CASE(seeds) {
  const auto sequence = [](std::uint64_t s) {
    ln::sampler choose({.seed = s});
    std::vector<token> all;
    for (int i = 0; i < 50; ++i) all.push_back(draw(choose));
    return all;
  };
  BOOST_TEST(sequence(1) == sequence(1), boost::test_tools::per_element());
  BOOST_TEST((sequence(1) != sequence(2)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
