#pragma once
/// @file
/// Choosing the next token from logits: greedy; temperature with top-k, top-p, min-p and a
/// repetition penalty; and a caller's own changes of the logits before either.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/core/random.hpp>
#include <linnet/simd/kernels.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Calls a sampler with as much as it wants to know.
template <class Sampler, class T>
token choose_token(Sampler& choose, std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Sampler&, std::span<T>, std::span<token>,
                                    std::span<const token>>)
    return choose(logits, scratch, so_far);
  else
    return choose(logits, scratch);
}

/// Calls a hook with as much as it wants to know.
template <class Hook, class T>
void apply_hook(Hook& hook, std::span<T> logits, std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Hook&, std::span<T>, std::span<const token>>)
    hook(logits, so_far);
  else
    hook(logits);
}

/// Index of a token in logits.
inline std::size_t slot(token t) { return static_cast<std::size_t>(t); }

/// The token that the number `u` of [0, 1) draws from weights of any sum.
inline token draw(std::span<const double> weights, double u) {
  const double mass = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    last = i;
    sum += weights[i];
    if (u * mass < sum) break;
  }
  return static_cast<token>(last);
}

}  // namespace detail

/// A sampler is called with the logits [vocabulary], which it may overwrite, a scratch list of
/// token ids of the same size and, if it takes a third argument, the tokens so far, prompt
/// included; it returns the chosen token. Write your own with the same call.
///
/// Speculative decoding (generate/speculative.hpp) asks more of it: `probabilities(logits, scratch,
/// so_far, out)`, the law that it draws from, and its random choices as `accept(probability)` and
/// `pick(weights)`.
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

  /// All on the most likely token.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token>,
                     std::span<double> out) const {
    std::fill(out.begin(), out.end(), 0.0);
    out[detail::slot((*this)(logits, scratch))] = 1;
  }
  /// Nothing is left to chance: only what is certain is accepted.
  bool accept(double probability) const { return probability >= 1; }
  /// The heaviest weight; ties go to the lowest id.
  token pick(std::span<const double> weights) const {
    return static_cast<token>(std::max_element(weights.begin(), weights.end()) - weights.begin());
  }
};

/// What a `sampler` does, in this order: repetition penalty, temperature, top-k, top-p (zoo I2),
/// min-p.
struct sampling {
  double temperature = 1;  ///< logits are divided by it; 0 is greedy
  index top_k = 0;         ///< keep the k most likely tokens; 0 keeps all
  double top_p = 1;        ///< keep the smallest most likely set with at least this probability
  double min_p = 0;        ///< keep tokens at least this times as likely as the most likely one
                           ///< (Nguyen et al. 2024); 0 keeps all
  double repetition_penalty = 1;  ///< positive logits of tokens so far are divided by it, others
                                  ///< multiplied (Keskar et al. 2019); 1 changes none
  std::uint64_t seed = 0;         ///< of the random numbers
};

/// Draws a token from the (warped) distribution. One sampler is one sequence of random numbers.
class sampler {
 public:
  explicit sampler(const sampling& settings)
      : settings_(settings), random_(seed{settings.seed}, stream_of("sampler")) {}

  /// A token after the tokens `so_far`, which only the repetition penalty asks for.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> order,
                   std::span<const token> so_far = {}) {
    penalize(logits, order, so_far);
    if (settings_.temperature <= 0) return greedy{}(logits, order);
    const law l = warp(logits, order);
    double u = random_.uniform() * l.mass, sum = 0;
    for (index i = 0; i < l.kept; ++i) {
      sum += weight(logits, order, i);
      if (u < sum) return order[static_cast<std::size_t>(i)];
    }
    return order[static_cast<std::size_t>(l.kept - 1)];
  }

  /// The law that a token is drawn from: out[vocabulary], of sum 1, zero for what is not kept.
  /// Overwrites the logits; draws nothing.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> order, std::span<const token> so_far,
                     std::span<double> out) const {
    penalize(logits, order, so_far);
    if (settings_.temperature <= 0) return greedy{}.probabilities(logits, order, so_far, out);
    const law l = warp(logits, order);
    std::fill(out.begin(), out.end(), 0.0);
    for (index i = 0; i < l.kept; ++i)
      out[detail::slot(order[static_cast<std::size_t>(i)])] = weight(logits, order, i) / l.mass;
  }
  /// True with this probability.
  bool accept(double probability) { return fine_uniform() < probability; }
  /// A token with a probability in proportion to its weight.
  token pick(std::span<const double> weights) { return detail::draw(weights, fine_uniform()); }

 private:
  /// The first `kept` tokens of the order have weights of this sum; the others are out.
  struct law {
    index kept;
    double mass;
  };

  /// Uniform in [0, 1), 53 random bits: rare tokens keep their probability.
  double fine_uniform() {
    const double high = random_.bits() >> 5, low = random_.bits() >> 6;
    return (high * 0x1p26 + low) * 0x1p-53;
  }
  /// Each token so far once; `mark` is overwritten.
  template <class T>
  void penalize(std::span<T> logits, std::span<token> mark, std::span<const token> so_far) const {
    const double by = settings_.repetition_penalty;
    if (by == 1 || so_far.empty()) return;
    std::fill(mark.begin(), mark.end(), token{0});
    for (const token t : so_far) {
      if (mark[detail::slot(t)]++ != 0) continue;
      T& l = logits[detail::slot(t)];
      l = static_cast<T>(static_cast<double>(l) * (l > T(0) ? 1 / by : by));
    }
  }

  /// Turns logits into weights, the largest 1, and `order` into a list that starts with the tokens
  /// kept.
  template <class T>
  law warp(std::span<T> logits, std::span<token> order) const {
    const auto all = static_cast<index>(logits.size());
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (T& l : logits) {
      l = static_cast<T>(std::exp((static_cast<double>(l) - largest) / settings_.temperature));
      total += static_cast<double>(l);
    }
    std::iota(order.begin(), order.end(), token{0});
    law kept{all, total};
    const bool cut_k = settings_.top_k > 0 && settings_.top_k < all, cut_p = settings_.top_p < 1;
    if (cut_k || cut_p) {
      const auto likelier = [&](token a, token b) {
        const T x = logits[detail::slot(a)], y = logits[detail::slot(b)];
        return x > y || (x == y && a < b);
      };
      if (cut_k) kept.kept = settings_.top_k;
      std::partial_sort(order.begin(), order.begin() + kept.kept, order.begin() + all, likelier);
      if (cut_k) kept.mass = sum_of(logits, order, kept.kept);
    }
    if (cut_p) {
      double sum = 0;
      index i = 0;
      while (i < kept.kept && (i == 0 || sum < settings_.top_p * kept.mass))
        sum += weight(logits, order, i++);
      kept = {i, sum};
    }
    if (settings_.min_p > 0) {
      const auto end = std::remove_if(order.begin(), order.begin() + kept.kept, [&](token t) {
        const auto w = static_cast<double>(logits[detail::slot(t)]);
        return w < 1 && w < settings_.min_p;
      });
      kept.kept = end - order.begin();
      kept.mass = sum_of(logits, order, kept.kept);
    }
    return kept;
  }
  template <class T>
  static double weight(std::span<T> weights, std::span<token> order, index i) {
    return static_cast<double>(weights[detail::slot(order[static_cast<std::size_t>(i)])]);
  }
  template <class T>
  static double sum_of(std::span<T> weights, std::span<token> order, index count) {
    double sum = 0;
    for (index i = 0; i < count; ++i) sum += weight(weights, order, i);
    return sum;
  }

  sampling settings_;
  random_stream random_;
};

/// A sampler with hooks before it: each is called with the logits, which it may change, and, if it
/// takes a second argument, the tokens so far; then the sampler chooses. A token whose logit a hook
/// makes very negative (-1e30) is never chosen while others are left. Sampler and hooks given by
/// name are referred to, temporaries are kept.
///
///     ln::processed choose(ln::greedy{}, [](std::span<float> logits) { logits[7] = -1e30f; });
template <class Sampler, class... Hooks>
class processed {
  static_assert(sizeof...(Hooks) > 0,
                "linnet::processed: give it a hook, or use the sampler alone");

 public:
  /// The sampler and the hooks, called in this order.
  template <class A, class... Rest>
  requires(sizeof...(Rest) == sizeof...(Hooks)) explicit processed(A&& sampler, Rest&&... hooks)
      : sampler_(std::forward<A>(sampler)), hooks_(std::forward<Rest>(hooks)...) {}

  /// The sampler's choice from the changed logits.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far = {}) {
    apply(logits, so_far);
    return detail::choose_token(sampler_, logits, scratch, so_far);
  }
  /// The sampler's law for the changed logits.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token> so_far,
                     std::span<double> out) {
    apply(logits, so_far);
    sampler_.probabilities(logits, scratch, so_far, out);
  }
  /// The sampler's.
  bool accept(double probability) { return sampler_.accept(probability); }
  /// The sampler's.
  token pick(std::span<const double> weights) { return sampler_.pick(weights); }

 private:
  template <class T>
  void apply(std::span<T> logits, std::span<const token> so_far) {
    std::apply([&](auto&... hook) { (detail::apply_hook(hook, logits, so_far), ...); }, hooks_);
  }

  Sampler sampler_;
  std::tuple<Hooks...> hooks_;
};
template <class Sampler, class... Hooks>
processed(Sampler&&, Hooks&&...) -> processed<Sampler, Hooks...>;

LINNET_NAMESPACE_END
