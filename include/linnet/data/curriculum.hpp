// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Examples in an order of difficulty: from a few easy ones to all of them.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/data/epoch_sampler.hpp>

LINNET_NAMESPACE_BEGIN

/// Growth of the share of examples that training draws from, over the examples seen (Platanios et
/// al. 2019, who call it competence).
struct pacing {
  double start = 0.1;      ///< share at the beginning, above 0
  std::uint64_t full = 0;  ///< examples after which it is 1
  double power = 1;        ///< 1: a straight line; 2: their square root, faster at the beginning

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("start", self.start, detail::option_range{.least = 0, .most = 1, .above = true});
    f("full", self.full, detail::count(0, "0 draws from all at once"));
    f("power", self.power, detail::above(0));
  }

  /// The share of examples that example `i` is drawn from.
  double share(std::uint64_t i) const {
    if (i >= full) return 1;
    const double first = std::pow(start, power);
    return std::pow(first + (1 - first) * (static_cast<double>(i) / static_cast<double>(full)),
                    1 / power);
  }
};

/// The item of example i, for every i: a pure function of (seed, i). At first it is drawn from the
/// easiest items, more and more of them, with replacement. Once all are there, each epoch visits
/// all of them in an order of its own. The difficulties are the caller's: lengths, or the losses of
/// a smaller model.
class curriculum {
 public:
  /// Items with these difficulties; equal ones stay in their order. Errors: errc::invalid for no
  /// items, a difficulty that is not finite, or a pacing outside of its bounds.
  static result<curriculum> open(std::span<const double> difficulty, const pacing& pace,
                                 seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, double got) {
      return error{errc::invalid, "curriculum::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (difficulty.empty()) return wrong("items", "at least 1", 0);
    for (const double x : difficulty)
      if (!is_finite(x)) return wrong("difficulty", "a finite number", x);
    if (auto fit = detail::acceptable("curriculum::open", "pacing", pace); !fit) return fit.error();
    return curriculum(difficulty, pace, key);
  }
  LINNET_OR_OUT_OF_MEMORY("curriculum::open")

  /// Number of items.
  index size() const { return std::ssize(ranked_); }
  /// The item of a rank; that of rank 0 is the easiest.
  index by_rank(index rank) const { return ranked_[static_cast<std::size_t>(rank)]; }
  /// How many of the easiest items example `i` is drawn from.
  index available(std::uint64_t i) const {
    const double share = pace_.share(i) * static_cast<double>(size());
    return std::clamp(static_cast<index>(share + 0.5), index{1}, size());
  }
  /// The item of example `i`.
  index operator()(std::uint64_t i) const {
    if (i >= pace_.full) return by_rank(all_(i - pace_.full));
    const auto words = philox(key_.value, stream_of("linnet::curriculum"), i);
    const std::uint64_t bits = std::uint64_t{words[1]} << 32 | words[0];
    return by_rank(static_cast<index>(bits % static_cast<std::uint64_t>(available(i))));
  }

 private:
  curriculum(std::span<const double> difficulty, const pacing& pace, seed key)
      : ranked_(difficulty.size()), pace_(pace), key_(key), all_(size(), key) {
    std::iota(ranked_.begin(), ranked_.end(), index{0});
    std::stable_sort(ranked_.begin(), ranked_.end(), [&](index a, index b) {
      return difficulty[static_cast<std::size_t>(a)] < difficulty[static_cast<std::size_t>(b)];
    });
  }

  std::vector<index> ranked_;
  pacing pace_;
  seed key_;
  epoch_sampler all_;
};

LINNET_NAMESPACE_END
