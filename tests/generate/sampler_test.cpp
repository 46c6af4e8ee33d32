// SPDX-License-Identifier: MIT
// Samplers: exact supports, and frequencies by chi-square against probabilities computed here.

#include <algorithm>
#include <numeric>

#include "support/test.hpp"

namespace test::sampler_test {

namespace {

const std::vector<float> logits{0.3f, -1.2f, 2.0f, 0.3f, -0.4f, 1.1f, -3.0f, 1.9f};

/// The distribution that the settings ask for: temperature, then the k most likely, then the
/// smallest likely set of mass p, then those at least min_p times as likely as the first; ties go
/// to the lower id. Before that, the logits of `so_far` are penalised once each.
std::vector<double> law(const ln::sampling_options& s, const std::vector<token>& so_far = {}) {
  std::vector<double> p;
  double mass = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    auto l = static_cast<double>(logits[i]);
    if (std::count(so_far.begin(), so_far.end(), static_cast<token>(i)) > 0)
      l = l > 0 ? l / s.repetition_penalty : l * s.repetition_penalty;
    mass += p.emplace_back(std::exp(l / s.temperature));
  }
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
  while (p[order[kept - 1]] < s.min_p * p[order[0]]) sum -= p[order[--kept]];
  std::vector<double> q(p.size());
  for (std::size_t i = 0; i < kept; ++i) q[order[i]] = p[order[i]] / sum;
  return q;
}

token draw(ln::sampler& choose, const std::vector<token>& so_far = {}) {
  auto copy = logits;
  std::vector<token> order(copy.size());
  return choose(std::span(copy), std::span(order), so_far);
}
/// The distribution that a sampler tells.
template <class T, class Sampler>
std::vector<double> told(Sampler&& choose, const std::vector<token>& so_far = {}) {
  std::vector<T> copy(logits.begin(), logits.end());
  std::vector<token> order(copy.size());
  std::vector<double> out(copy.size(), -1);
  choose.probabilities(std::span(copy), std::span(order), std::span<const token>(so_far),
                       std::span(out));
  return out;
}

/// Draws many tokens: none outside the support, every one of it, in the right proportions.
void check_law(ln::sampling_options s, const std::vector<token>& so_far = {}) {
  constexpr int draws = 20'000;
  const auto want = law(s, so_far);
  BOOST_TEST(distance(told<double>(ln::sampler(s), so_far), want) <= 1e-14);
  BOOST_TEST(distance(told<float>(ln::sampler(s), so_far), want) <= 1e-6);
  s.seed = 11;
  ln::sampler choose(s);
  std::vector<int> counts(want.size());
  for (int i = 0; i < draws; ++i) ++counts.at(static_cast<std::size_t>(draw(choose, so_far)));
  double chi = 0, support = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    BOOST_TEST((counts[i] > 0) == (want[i] > 0), "token " << i);
    if (want[i] == 0) continue;
    ++support;
    chi += (counts[i] - draws * want[i]) * (counts[i] - draws * want[i]) / (draws * want[i]);
  }
  const double freedom = support - 1;
  BOOST_TEST(chi <= freedom + 5 * std::sqrt(2 * freedom) + 1e-9,
             "temperature " << s.temperature << " top_k " << s.top_k << " top_p " << s.top_p
                            << " min_p " << s.min_p << ": " << chi);
}
std::ptrdiff_t support(const ln::sampling_options& s) {
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

// Relative to the most likely token, whatever else is kept.
BOOST_AUTO_TEST_CASE(min_p) {
  for (const double p : {0.01, 0.1, 0.2, 0.4, 0.95, 1.0}) check_law({.min_p = p});
  check_law({.temperature = 2, .top_k = 6, .top_p = 0.95, .min_p = 0.3});
  check_law({.temperature = 3, .top_k = 2, .min_p = 0.01});
  BOOST_TEST(support({.min_p = 0.1}) == 5);
  BOOST_TEST(support({.min_p = 0.95}) == 1);
  BOOST_TEST(support({.temperature = 2, .min_p = 0.95}) == 2);
}

// Each token so far is made less likely once, also if its logit is negative; 0 stays 0.
BOOST_AUTO_TEST_CASE(repetition_penalty) {
  const std::vector<token> so_far{2, 1, 2, 6, 2};
  check_law({.repetition_penalty = 1.3}, so_far);
  check_law({.temperature = 0.8, .top_k = 5, .repetition_penalty = 2}, so_far);
  check_law({.min_p = 0.05, .repetition_penalty = 1.2}, {0});
  check_law({.repetition_penalty = 0.5}, so_far);  // makes them likelier
  check_law({.repetition_penalty = 1.3}, {});
  const auto plain = law({}), less = law({.repetition_penalty = 1.3}, so_far);
  for (const std::size_t t : {2u, 1u, 6u}) BOOST_TEST(less[t] < plain[t]);
  // Greedy by temperature heeds it too.
  ln::sampler greedy({.temperature = 0, .repetition_penalty = 1.1});
  BOOST_TEST(draw(greedy) == 2);
  BOOST_TEST(draw(greedy, {2, 0}) == 7);
}

// All on one token; nothing uncertain is accepted.
BOOST_AUTO_TEST_CASE(certain_laws) {
  const std::vector<double> one{0, 0, 1, 0, 0, 0, 0, 0};
  BOOST_TEST(told<float>(ln::greedy{}) == one, boost::test_tools::per_element());
  BOOST_TEST(told<float>(ln::sampler({.temperature = 0})) == one, boost::test_tools::per_element());
  ln::greedy g;
  BOOST_TEST(g.accept(1));
  BOOST_TEST(!g.accept(0.999));
  const double weights[] = {0, 0.25, 0.5, 0.5};
  BOOST_TEST(g.sample(weights) == 2);
  ln::sampler s({.seed = 3});
  int accepted = 0;
  for (int i = 0; i < 10'000; ++i) {
    BOOST_TEST(!s.accept(0));
    BOOST_TEST(s.accept(1));
    accepted += s.accept(0.3);
  }
  BOOST_TEST(std::abs(accepted - 3000) < 5 * std::sqrt(10'000 * 0.3 * 0.7));
}

// The token of the stretch of the unit interval that the number falls into; weights of any sum.
BOOST_AUTO_TEST_CASE(picks) {
  const double weights[] = {0, 0.5, 0, 1, 0.5, 0};
  const std::pair<double, token> cases[] = {{0, 1},    {0.2499, 1}, {0.25, 3},        {0.5, 3},
                                            {0.75, 4}, {0.99, 4},   {1 - 0x1p-53, 4}, {1, 4}};
  for (const auto& [u, t] : cases) BOOST_TEST(ln::detail::draw(weights, u) == t);
}

// Equal logits at the boundary: the set is the smallest, of the lowest ids, and what is exactly
// min_p times as likely stays.
BOOST_AUTO_TEST_CASE(boundaries) {
  const auto kept = [](const std::vector<double>& l, const ln::sampling_options& how) {
    std::vector<token> ids;
    const auto check = [&]<class T>(T) {
      std::vector<T> copy(l.begin(), l.end());
      std::vector<token> order(l.size());
      std::vector<double> law(l.size());
      ln::sampler(how).probabilities(std::span(copy), std::span(order), {}, std::span(law));
      std::vector<token> now;
      for (std::size_t i = 0; i < law.size(); ++i)
        if (law[i] > 0) now.push_back(static_cast<token>(i));
      BOOST_TEST((ids.empty() || ids == now));
      ids = now;
    };
    check(0.0);
    check(0.0f);
    return ids;
  };
  const auto is = [](const std::vector<token>& got, std::vector<token> want) {
    BOOST_TEST(got == want, boost::test_tools::per_element());
  };
  const std::vector<double> four{1.5, 1.5, 1.5, 1.5}, half{0, std::log(0.5)};
  is(kept(four, {.top_p = 0.5}), {0, 1});
  is(kept(four, {.top_p = 0.5 + 1e-12}), {0, 1, 2});
  is(kept(four, {.top_p = 0.75}), {0, 1, 2});
  is(kept(four, {.top_p = 0}), {0});
  is(kept(four, {.top_k = 3}), {0, 1, 2});
  is(kept(four, {.top_k = 3, .top_p = 0.5}), {0, 1});
  is(kept(four, {.top_k = 2, .min_p = 1}), {0, 1});
  is(kept(half, {.min_p = 0.5}), {0, 1});
  is(kept(half, {.min_p = 0.5 + 1e-7}), {0});
  // What top_k cut at an earlier id does not decide what is min_p times as likely.
  is(kept({std::log(0.25), 0, std::log(0.5), -9}, {.top_k = 3, .min_p = 0.5}), {1, 2});
  is(kept({2, 1, 2, 0, 1}, {.top_k = 3}), {0, 1, 2});
  is(kept({2, 1, 2, 0, 1}, {.top_k = 4}), {0, 1, 2, 4});
}

// Against a full sort: the set that is kept and each token that is drawn, over laws from flat to
// steep, with many ties.
BOOST_AUTO_TEST_CASE(as_a_full_sort) {
  constexpr index vocabulary = 3001;
  for (const double deviation : {0.0, 1e-9, 0.3, 3.0, 40.0})
    for (const bool ties : {false, true}) {
      auto all = normal<double>(vocabulary, 5, deviation);
      if (ties)
        for (double& l : all) l = std::round(l * 2) / 2;
      const double largest = *std::max_element(all.begin(), all.end());
      std::vector<double> w;
      for (const double l : all) w.push_back(std::exp(l - largest));
      std::vector<token> sorted(all.size()), order(all.size());
      std::iota(sorted.begin(), sorted.end(), 0);
      std::stable_sort(sorted.begin(), sorted.end(),
                       [&](token a, token b) { return w[at(a)] > w[at(b)]; });
      for (const ln::sampling_options& how :
           {ln::sampling_options{.top_p = 0.1}, ln::sampling_options{.top_p = 0.9},
            ln::sampling_options{.top_p = 0.999}, ln::sampling_options{.top_k = 100},
            ln::sampling_options{.top_k = 3000}, ln::sampling_options{.top_k = 1},
            ln::sampling_options{.top_k = 700, .top_p = 0.7},
            ln::sampling_options{.top_k = 700, .top_p = 0.9, .min_p = 0.2}}) {
        std::size_t kept = how.top_k > 0 ? at(how.top_k) : sorted.size();
        const auto mass_of = [&](std::size_t n) {
          double sum = 0;
          for (std::size_t i = 0; i < n; ++i) sum += w[at(sorted[i])];
          return sum;
        };
        if (how.top_p < 1) {
          // Wherever the sum lies within rounding of the share, either is right.
          const double enough = how.top_p * mass_of(kept);
          std::size_t n = 1;
          while (mass_of(n) < enough * (1 - 1e-13)) ++n;
          kept = n;
        }
        while (w[at(sorted[kept - 1])] < how.min_p) --kept;
        auto copy = all;
        std::vector<double> law(all.size());
        ln::sampler choose(how);
        choose.probabilities(std::span(copy), std::span(order), {}, std::span(law));
        const double mass = mass_of(kept);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < sorted.size(); ++i) {
          const double want = i < kept ? w[at(sorted[i])] / mass : 0;
          wrong += std::abs(law[at(sorted[i])] - want) > 1e-12 * want;
        }
        BOOST_TEST(wrong == 0u, deviation << " " << ties << " " << how.top_p << " " << how.top_k);
        ln::random_stream random(ln::seed{how.seed}, ln::stream_of("sampler"));
        for (int n = 0; n < 20; ++n) {
          copy = all;
          const double u = random.uniform() * mass;
          double sum = 0;
          std::size_t i = 0;
          while (i + 1 < kept && (sum += w[at(sorted[i])]) <= u) ++i;
          BOOST_TEST(choose(std::span(copy), std::span(order)) == sorted[i]);
        }
      }
    }
}

// Hooks change the logits in their order, then the sampler chooses; it is referred to by name.
BOOST_AUTO_TEST_CASE(hooks) {
  std::vector<int> calls;
  const auto ban = [&](std::span<float> l, std::span<const token> so_far) {
    calls.push_back(1);
    for (const token t : so_far) l[at(t)] = -1e30f;
  };
  const auto raise = [&](auto l) {
    calls.push_back(2);
    l[5] += 100;
  };
  const auto choose = [&](auto&& sampler, const std::vector<token>& so_far) {
    auto copy = logits;
    std::vector<token> order(copy.size());
    return sampler(std::span(copy), std::span(order), so_far);
  };
  ln::with_logit_processors banned(ln::greedy{}, ban);
  BOOST_TEST(choose(banned, {}) == 2);
  BOOST_TEST(choose(banned, {2}) == 7);
  BOOST_TEST(choose(banned, {2, 7}) == 5);
  calls.clear();
  BOOST_TEST(choose(ln::with_logit_processors(ln::greedy{}, ban, raise), {5}) == 2);
  BOOST_TEST(calls == (std::vector<int>{1, 2}), boost::test_tools::per_element());
  BOOST_TEST(choose(ln::with_logit_processors(ln::greedy{}, raise), {}) == 5);
  // The distribution is that of the changed logits, and a sampler given by name goes on drawing.
  ln::sampler s({.seed = 4}), same({.seed = 4});
  ln::with_logit_processors warm(s, ban);
  const auto p = told<float>(warm, {2, 3});
  BOOST_TEST(p[2] == 0);
  BOOST_TEST(p[3] == 0);
  BOOST_TEST(std::abs(std::accumulate(p.begin(), p.end(), 0.0) - 1) < 1e-12);
  for (int i = 0; i < 20; ++i) BOOST_TEST(choose(warm, {}) == draw(same));
  BOOST_TEST(draw(s) == draw(same));
  // A sampler of two arguments will do.
  const auto last = [](std::span<float> l, std::span<token>) {
    return static_cast<token>(l.size() - 1);
  };
  BOOST_TEST(choose(ln::with_logit_processors(last, raise), {}) == 7);
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

}  // namespace test::sampler_test
