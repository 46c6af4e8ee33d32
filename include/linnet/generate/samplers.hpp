#pragma once
/// @file
/// Choosing the next token from logits: greedy, and temperature with top-k and top-p.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include <linnet/core/random.hpp>
#include <linnet/simd/kernels.hpp>

LINNET_NAMESPACE_BEGIN

/// A sampler is called with the logits [vocabulary], which it may overwrite, and a scratch list of
/// token ids of the same size; it returns the chosen token. Write your own with the same call.
///
/// Greedy: the most likely token; ties go to the lowest id (zoo I1).
struct greedy {
  template <class T>
  token operator()(std::span<T> logits, std::span<token>) const {
    // The first stretch that holds the maximum, then the place in it.
    constexpr std::size_t stretch = 1024;
    std::span<T> best = logits.first(1);
    simd::dispatch(simd::best(), [&](auto kernels) {
      using K = decltype(kernels);
      T most = logits[0];
      for (std::size_t i = 0; i < logits.size(); i += stretch) {
        const auto some = logits.subspan(i, (std::min)(stretch, logits.size() - i));
        const T m = K::template maximum<T>(std::ssize(some), some.data());
        if (i == 0 || m > most) most = m, best = some;
      }
    });
    return static_cast<token>(std::max_element(best.begin(), best.end()) - logits.begin());
  }
};

/// What a `sampler` does, in this order: temperature, top-k, top-p (zoo I2).
struct sampling {
  double temperature = 1;  ///< logits are divided by it; 0 is greedy
  index top_k = 0;         ///< keep the k most likely tokens; 0 keeps all
  double top_p = 1;        ///< keep the smallest most likely set with at least this probability
  std::uint64_t seed = 0;  ///< of the random numbers
};

/// Draws a token from the (warped) distribution. One sampler is one sequence of random numbers.
class sampler {
 public:
  explicit sampler(const sampling& settings)
      : settings_(settings), random_(seed{settings.seed}, stream_of("sampler")) {}

  template <class T>
  token operator()(std::span<T> logits, std::span<token> order) {
    if (settings_.temperature <= 0) return greedy{}(logits, order);
    const index kept = warp(logits, order);
    double u = random_.uniform() * mass_, sum = 0;
    for (index i = 0; i < kept; ++i) {
      sum +=
          static_cast<double>(logits[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      if (u < sum) return order[static_cast<std::size_t>(i)];
    }
    return order[static_cast<std::size_t>(kept - 1)];
  }

 private:
  /// Turns logits into unnormalised probabilities; `order` then starts with the kept tokens and
  /// mass_ is their sum. Returns how many are kept.
  template <class T>
  index warp(std::span<T> logits, std::span<token> order) {
    const auto all = static_cast<index>(logits.size());
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (T& l : logits) {
      l = static_cast<T>(std::exp((static_cast<double>(l) - largest) / settings_.temperature));
      total += static_cast<double>(l);
    }
    std::iota(order.begin(), order.end(), token{0});
    mass_ = total;
    const bool cut_k = settings_.top_k > 0 && settings_.top_k < all, cut_p = settings_.top_p < 1;
    if (!cut_k && !cut_p) return all;
    const auto likelier = [&](token a, token b) {
      const T x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
      return x > y || (x == y && a < b);
    };
    index kept = cut_k ? settings_.top_k : all;
    std::partial_sort(order.begin(), order.begin() + kept, order.begin() + all, likelier);
    if (cut_k) {
      total = 0;
      for (index i = 0; i < kept; ++i) total += probability(logits, order, i);
    }
    mass_ = total;
    if (cut_p) {
      double sum = 0;
      index i = 0;
      while (i < kept && (i == 0 || sum < settings_.top_p * total))
        sum += probability(logits, order, i++);
      kept = i;
      mass_ = sum;
    }
    return kept;
  }
  template <class T>
  static double probability(std::span<T> logits, std::span<token> order, index i) {
    return static_cast<double>(
        logits[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
  }

  sampling settings_;
  random_stream random_;
  double mass_ = 1;
};

LINNET_NAMESPACE_END
