// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Mixtures of several streams of examples: which stream each example comes from.

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// Weights of streams of these sizes, proportional to size^tau, with sum 1. tau = 1 draws each
/// example equally often, tau = 0 each stream. T5's mixing temperature is 1 / tau (Raffel et al.
/// 2020, section 3.5.2). An empty stream has weight 0.
inline std::vector<double> mixing_weights(std::span<const index> sizes, double tau) {
  std::vector<double> weights;
  double sum = 0;
  for (const index n : sizes) {
    weights.push_back(n > 0 ? std::pow(static_cast<double>(n), tau) : 0);
    sum += weights.back();
  }
  for (double& w : weights) w /= sum > 0 ? sum : 1;
  return weights;
}

namespace detail {
/// The examples over which a mixture changes its weights.
struct mixture_change {
  std::uint64_t first = 0, last = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("first", self.first, count(0));
    f("last", self.last, count(0));
  }
};
}  // namespace detail

/// The stream of example i, drawn by weights, for every i: a pure function of (seed, i). Nothing is
/// kept, so a cursor is one integer and a run resumes or splits exactly. The example has the number
/// i in its stream, too. Each stream goes through its epochs, and leaves out the examples whose
/// places other streams take.
class mixture {
 public:
  /// A mixture of one stream.
  mixture() : from_{1}, to_{1} {}
  /// Opens a mixture of streams with these weights, whose sum need not be 1. Errors: errc::invalid
  /// for no weights, one that is negative or not finite, or a sum of 0.
  static result<mixture> open(std::span<const double> weights, seed key) {
    return open(weights, weights, 0, 0, key);
  }
  /// Weights that are `weights` up to example `first`, then move in straight lines to `later` at
  /// example `last`, and stay. Each list is scaled to a sum of 1. Errors: as above; errc::invalid
  /// for lists of different lengths, and for a `first` behind `last`.
  static result<mixture> open(std::span<const double> weights, std::span<const double> later,
                              std::uint64_t first, std::uint64_t last, seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, std::string got) {
      return error{errc::invalid, "mixture::open", std::move(what), std::move(expected),
                   std::move(got)};
    };
    const detail::mixture_change change{first, last};
    if (auto fit = detail::acceptable("mixture::open", "mixture", change); !fit) return fit.error();
    if (first > last)
      return wrong("mixture.first", "at most " + std::to_string(last) + ", which is mixture.last",
                   std::to_string(first));
    if (later.size() != weights.size())
      return wrong("later weights", std::to_string(weights.size()), std::to_string(later.size()));
    mixture made;
    made.from_.assign(weights.begin(), weights.end());
    made.to_.assign(later.begin(), later.end());
    for (std::vector<double>* list : {&made.from_, &made.to_}) {
      double sum = 0;
      for (const double w : *list) {
        if (!is_finite(w) || w < 0)
          return wrong("weight", "a finite number, at least 0", std::to_string(w));
        sum += w;
      }
      if (!is_finite(sum) || !(sum > 0))
        return wrong("sum of the weights", "a finite number above 0", std::to_string(sum));
      for (double& w : *list) w /= sum;
    }
    made.first_ = first;
    made.last_ = last;
    made.key_ = key;
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("mixture::open")

  /// Number of streams.
  index streams() const { return std::ssize(from_); }
  /// The probability that example `i` is from `stream`.
  double probability(index stream, std::uint64_t i) const {
    const auto k = static_cast<std::size_t>(stream);
    if (i <= first_) return from_[k];
    if (i >= last_) return to_[k];
    return from_[k] + (to_[k] - from_[k]) *
                          (static_cast<double>(i - first_) / static_cast<double>(last_ - first_));
  }
  /// The stream of example `i`.
  index operator()(std::uint64_t i) const {
    const auto words = philox(key_.value, stream_of("linnet::mixture"), i);
    double left = static_cast<double>((std::uint64_t{words[1]} << 32 | words[0]) >> 11) * 0x1p-53;
    index chosen = 0;
    for (index k = 0; k < streams(); ++k) {
      const double p = probability(k, i);
      if (p <= 0) continue;
      chosen = k;  // stays with the last where rounding leaves the sum below 1
      if ((left -= p) < 0) break;
    }
    return chosen;
  }

 private:
  std::vector<double> from_, to_;
  std::uint64_t first_ = 0, last_ = 0;
  seed key_;
};

LINNET_NAMESPACE_END
