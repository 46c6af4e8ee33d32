// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The exact distribution of a generator's texts, by enumerating every outcome of every random
/// choice.

#include <map>

#include "support/decoding.hpp"

namespace test {

/// Follows one outcome of each random choice; next() turns to the next path of the tree of all.
class tree {
 public:
  std::size_t decide(std::span<const double> weights) {
    double mass = 0;
    for (const double w : weights) mass += w;
    if (depth_ == path_.size()) path_.push_back({after(weights, 0), 0});
    choice& c = path_[depth_++];
    c.next = after(weights, c.taken + 1);
    probability_ *= weights[c.taken] / mass;
    return c.taken;
  }
  double probability() const { return probability_; }
  bool next() {
    path_.resize(depth_);  // what a longer path before has left
    depth_ = 0;
    probability_ = 1;
    while (!path_.empty() && path_.back().next == none) path_.pop_back();
    if (path_.empty()) return false;
    path_.back().taken = path_.back().next;
    return true;
  }

 private:
  static constexpr std::size_t none = 1000;
  struct choice {
    std::size_t taken, next;
  };
  static std::size_t after(std::span<const double> weights, std::size_t from) {
    for (std::size_t i = from; i < weights.size(); ++i)
      if (weights[i] > 0) return i;
    return none;
  }
  std::vector<choice> path_;
  std::size_t depth_ = 0;
  double probability_ = 1;
};

/// The distribution of ln::sampler; its choices are those of the tree.
struct enumerating : tree {
  ln::sampler law;
  explicit enumerating(const ln::sampling_options& s) : law(s) {}
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token> so_far,
                     std::span<double> out) {
    law.probabilities(logits, scratch, so_far, out);
  }
  bool accept(double p) {
    const double both[] = {p, 1 - p};
    return decide(both) == 0;
  }
  token sample(std::span<const double> weights) { return static_cast<token>(decide(weights)); }
};

/// The distribution of generate(sampler, emit), which returns the number of tokens emitted after
/// `prompt`, is that of the model alone, token by token.
template <class M, class Generate>
void check_law_of_generation(const ln::packed<M, double>& p, const std::vector<token>& prompt,
                             const ln::sampling_options& how, const ln::generation_options& g,
                             Generate&& generate) {
  std::map<std::vector<token>, double> law;
  enumerating choose(how);
  double all = 0;
  long paths = 0;
  do {
    std::vector<token> text;
    const index n = generate(choose, [&](token t) { text.push_back(t); });
    BOOST_REQUIRE(n == std::ssize(text));
    law[text] += choose.probability();
    all += choose.probability();
    BOOST_REQUIRE(++paths < 200'000);
  } while (choose.next());
  BOOST_TEST(std::abs(all - 1) <= 1e-13);

  // The target's own distribution, text by text.
  anew<M, double> read(p);
  ln::sampler sampler(how);
  double worst = 0, sum = 0;
  std::vector<std::pair<std::vector<token>, double>> open{{{}, 1.0}};
  std::size_t texts = 0;
  while (!open.empty()) {
    const auto [text, before] = open.back();
    open.pop_back();
    std::vector<token> so_far = prompt, scratch(4);
    if (M::encodes) so_far = {0};
    so_far.insert(so_far.end(), text.begin(), text.end());
    std::vector<double> next(4);
    sampler.probabilities(read(prompt, text), std::span(scratch), std::span<const token>(so_far),
                          std::span(next));
    for (token t = 0; t < 4; ++t) {
      if (next[at(t)] == 0) continue;
      std::vector<token> longer = text;
      const bool stops = g.stops(t);
      if (!stops) longer.push_back(t);
      const double probability = before * next[at(t)];
      if (!stops && std::ssize(longer) < g.tokens) {
        open.push_back({longer, probability});
        continue;
      }
      // A stop token is not in the text, so several ways can lead to it.
      law[longer] -= probability;
      sum += probability;
      ++texts;
    }
  }
  BOOST_TEST(std::abs(sum - 1) <= 1e-13);
  BOOST_TEST(texts >= law.size());
  for (const auto& [text, difference] : law) worst = (std::max)(worst, std::abs(difference));
  BOOST_TEST(worst <= 1e-14);
}

/// The text that a session, or something that drives one, generates.
template <class Generator, class Sampler>
std::vector<token> text_of(Generator& s, std::span<const token> prompt, Sampler&& choose,
                           const ln::generation_options& g = {}) {
  std::vector<token> all;
  const index n = s.generate(
      prompt, choose, [&](token t) { all.push_back(t); }, g);
  BOOST_TEST(n == std::ssize(all));
  return all;
}

}  // namespace test
