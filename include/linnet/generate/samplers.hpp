// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Samplers: greedy choice, or drawing with temperature, top-k, top-p, min-p and a repetition
/// penalty. Hooks may change the logits first.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>
#include <linnet/generate/rank.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A sampler's answer, if it is one of `count` tokens, else `no_token`.
inline token one_of(std::size_t count, token t) { return t >= 0 && slot(t) < count ? t : no_token; }
/// Calls a sampler with as much as it wants to know.
template <class Sampler, class T>
token choose_token(Sampler& choose, std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Sampler&, std::span<T>, std::span<token>,
                                    std::span<const token>>)
    return one_of(logits.size(), choose(logits, scratch, so_far));
  else
    return one_of(logits.size(), choose(logits, scratch));
}

/// Calls a hook with one argument or two, as it takes them.
template <class Hook, class T>
void apply_hook(Hook& hook, std::span<T> logits, std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Hook&, std::span<T>, std::span<const token>>)
    hook(logits, so_far);
  else
    hook(logits);
}

/// The most likely token, ties to the lowest id; `no_token` for logits that are empty, hold a NaN
/// or have an infinite maximum.
template <class T>
token most_likely(std::span<T> logits) {
  using scalar = std::remove_const_t<T>;
  // The first stretch that holds the maximum, then the place in it.
  constexpr std::size_t stretch = 1024;
  std::span<T> best;
  scalar most = 0;
  bool usable = !logits.empty();
  const ops::execution on{{}, ops::best()};
  for (std::size_t i = 0; i < logits.size(); i += stretch) {
    const auto some = logits.subspan(i, (std::min)(stretch, logits.size() - i));
    for (const scalar x : some) usable &= !is_nan(x);
    scalar m = 0;
    on.with_kernels([&](auto kernels) {
      m = decltype(kernels)::template maximum<scalar>(std::ssize(some), some.data());
    });
    if (i == 0 || m > most) most = m, best = some;
  }
  if (!usable || !is_finite(most)) return no_token;
  return static_cast<token>(std::find(best.begin(), best.end(), most) - logits.begin());
}

/// The token that a number `u` in [0, 1) selects from weights of any sum; `no_token` if no weight
/// is above 0.
inline token draw(std::span<const double> weights, double u) {
  const double mass = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  token last = no_token;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = static_cast<token>(i);
    sum += weights[i];
    if (u * mass < sum) break;
  }
  return last;
}

}  // namespace detail

/// Contract of a sampler: called with logits [vocabulary], which it may overwrite, and a scratch
/// list of ids of that size, it returns a token. A third argument, if it takes one, is the tokens
/// so far, prompt included. It returns `no_token` to end generation. Write your own with the same
/// call.
///
/// Speculative decoding (generate/speculative.hpp) asks more of it: `probabilities(logits, scratch,
/// so_far, out)`, the distribution that it draws from, and its random choices as
/// `accept(probability)` and `sample(weights)`. A distribution of zeros means that there is no
/// token; `sample` then returns `no_token`.
///
/// Greedy: the most likely token; ties go to the lowest id. `no_token` where there is
/// nothing to choose from.
struct greedy {
  template <class T>
  token operator()(std::span<T> logits, std::span<token>) const {
    return detail::most_likely(logits);
  }

  /// Gives the most likely token probability 1.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token>,
                     std::span<double> out) const {
    std::fill(out.begin(), out.end(), 0.0);
    const token best = (*this)(logits, scratch);
    if (best != no_token) out[detail::slot(best)] = 1;
  }
  /// Accepts a draft only if it is certain: probability 1.
  bool accept(double probability) const { return probability >= 1; }
  /// The token with the largest weight; ties go to the lowest id.
  token sample(std::span<const double> weights) const {
    const token best = detail::most_likely(weights);
    return best != no_token && weights[detail::slot(best)] > 0 ? best : no_token;
  }
};

/// Options of `sampler`, applied in this order: repetition penalty, temperature, top-k (Fan et al.
/// 2018), top-p (Holtzman et al. 2020), min-p.
struct sampling_options {
  double temperature = 1;  ///< logits are divided by it; 0 is greedy
  index top_k = 0;         ///< keep the k most likely tokens; 0 keeps all
  double top_p = 1;        ///< keep the smallest most likely set with at least this probability
  double min_p = 0;        ///< keep tokens at least this times as likely as the most likely one
                           ///< (Nguyen et al. 2024); 0 keeps all
  double repetition_penalty = 1;  ///< positive logits of tokens so far are divided by it, others
                                  ///< multiplied (Keskar et al. 2019); 1 changes none
  std::uint64_t seed = 0;         ///< of the random numbers

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("temperature", self.temperature, detail::at_least(0, "0 is greedy"));
    f("top_k", self.top_k, detail::count(0, "0 keeps all"));
    f("top_p", self.top_p, detail::between(0, 1, "1 keeps all"));
    f("min_p", self.min_p, detail::between(0, 1, "0 keeps all"));
    f("repetition_penalty", self.repetition_penalty, detail::above(0, "1 changes none"));
  }
};

/// Draws a token from the (warped) distribution. One sampler is one sequence of random numbers.
class sampler {
 public:
  /// A sampler with options from outside. Errors: errc::invalid (one out of its range, see
  /// docs/options.md).
  static result<sampler> open(const sampling_options& how) LINNET_TRY {
    if (auto fit = detail::acceptable("sampler::open", "sampling_options", how); !fit)
      return fit.error();
    return sampler(how);
  }
  LINNET_OR_OUT_OF_MEMORY("sampler::open")
  /// A sampler with options that are in their ranges; with others it finds nothing to choose from.
  explicit sampler(const sampling_options& how)
      : settings_(how),
        random_(seed{how.seed}, stream_of("sampler")),
        usable_(detail::in_range(how)) {}

  /// Draws the token that follows `so_far`, which only the repetition penalty reads; `no_token`
  /// where there is nothing to choose from.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> order,
                   std::span<const token> so_far = {}) {
    if (order.size() < logits.size()) return no_token;
    penalize(logits, order, so_far);
    const token best = usable_ ? detail::most_likely(logits) : no_token;
    if (best == no_token || settings_.temperature <= 0) return best;
    const distribution<T> l = warp(logits, order, logits[detail::slot(best)]);
    const double u = random_.uniform() * l.mass;
    if (l.ranked > 0)
      return detail::rank(std::span<const T>(logits), order, l.ranked, detail::measured::weight,
                          std::nextafter(u, HUGE_VAL))  // above u
          .id;
    double sum = 0;
    token chosen = best;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (!l.keeps(logits[i], i) || logits[i] <= 0) continue;
      chosen = static_cast<token>(i);
      sum += static_cast<double>(logits[i]);
      if (u < sum) break;
    }
    return chosen;
  }

  /// The distribution that a token is drawn from: out[vocabulary], sum 1, zero for tokens that are
  /// not kept. All zero where there is nothing to choose from. Overwrites the logits; draws
  /// nothing.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> order, std::span<const token> so_far,
                     std::span<double> out) const {
    if (order.size() < logits.size()) return std::fill(out.begin(), out.end(), 0.0);
    penalize(logits, order, so_far);
    if (usable_ && settings_.temperature <= 0)
      return greedy{}.probabilities(logits, order, so_far, out);
    std::fill(out.begin(), out.end(), 0.0);
    const token best = usable_ ? detail::most_likely(logits) : no_token;
    if (best == no_token) return;
    const distribution<T> l = warp(logits, order, logits[detail::slot(best)]);
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (l.keeps(logits[i], i)) out[i] = static_cast<double>(logits[i]) / l.mass;
  }
  /// Draws true with this probability.
  bool accept(double probability) { return fine_uniform() < probability; }
  /// Draws a token with a probability in proportion to its weight.
  token sample(std::span<const double> weights) { return detail::draw(weights, fine_uniform()); }

 private:
  /// Which tokens are kept, and the sum of their weights.
  template <class T>
  struct distribution {
    double mass;
    T least = 0;             ///< heavier tokens are kept,
    std::size_t last{};      ///< of those as heavy as `least` the ones up to this id
    std::size_t ranked = 0;  ///< so many ids in `order`, among them those kept, are drawn in the
                             ///< order by weight; 0: all by id

    bool keeps(T weight, std::size_t id) const {
      return weight > least || (weight == least && id <= last);
    }
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
    if (by == 1 || so_far.empty() || !usable_) return;
    std::fill(mark.begin(), mark.end(), token{0});
    for (const token t : so_far) {
      if (detail::slot(t) >= logits.size() || mark[detail::slot(t)]++ != 0) continue;
      T& l = logits[detail::slot(t)];
      l = static_cast<T>(static_cast<double>(l) * (l > T(0) ? 1 / by : by));
    }
  }

  /// Turns logits into weights, the largest 1, and finds those that are kept. The weights' bits are
  /// the same on every machine.
  template <class T>
  distribution<T> warp(std::span<T> logits, std::span<token> order, T largest) const {
    const double by = 1 / (std::max)(settings_.temperature, 1e-300);
    for (T& l : logits)
      l = static_cast<T>((static_cast<double>(l) - static_cast<double>(largest)) * by);
    if constexpr (std::is_same_v<T, float>)
      ops::exponentials(std::ssize(logits), logits.data());
    else
      for (T& l : logits) l = static_cast<T>(detail::portable_exp(static_cast<double>(l)));
    const std::span<const T> weights = logits;
    distribution<T> l{.mass = 0, .last = weights.size()};
    std::size_t left = weights.size();
    const auto cut = [&](token end) {  // the last that is kept
      l.least = weights[detail::slot(end)];
      l.last = detail::slot(end);
      // Those kept are the first in the order by weight, so all can be looked at instead of many.
      left = l.ranked = detail::gather(weights, order, l.least, T(1), l.last, weights.size() / 16);
    };
    if (const index k = settings_.top_k; k > 0 && k < std::ssize(weights))
      cut(detail::rank(weights, order, left, detail::measured::one, static_cast<double>(k)).id);
    const auto kept_mass = [&] {
      return detail::sum_in_lanes(std::ssize(weights), [&](index i) {
        const auto id = static_cast<std::size_t>(i);
        return l.keeps(weights[id], id) ? static_cast<double>(weights[id]) : 0;
      });
    };
    l.mass = l.ranked > 0 ? kept_mass() : detail::sum_in_lanes(std::ssize(weights), [&](index i) {
      return static_cast<double>(weights[static_cast<std::size_t>(i)]);
    });
    if (settings_.top_p < 1) {
      const double enough = settings_.top_p * l.mass;
      const auto end = detail::rank(weights, order, left, detail::measured::weight, enough);
      cut(end.id);
      l.mass = end.sum;
    }
    if (settings_.min_p > static_cast<double>(l.least)) {
      l.least = static_cast<T>(settings_.min_p);
      if (static_cast<double>(l.least) < settings_.min_p) l.least = std::nextafter(l.least, T(2));
      l.last = weights.size();
      l.mass = kept_mass();
    }
    return l;
  }

  sampling_options settings_;
  random_stream random_;
  bool usable_;
};

/// A sampler behind hooks, each called with the logits, which it may change, and, if it takes a
/// second argument, the tokens so far. A token whose logit a hook makes very negative (-1e30) is
/// never chosen while others are left. Sampler and hooks given by name are referred to, temporaries
/// are kept.
///
///     ln::with_logit_processors choose(ln::greedy{},
///                                      [](std::span<float> logits) { logits[7] = -1e30f; });
template <class Sampler, class... Hooks>
class with_logit_processors {
  static_assert(sizeof...(Hooks) > 0,
                "linnet::with_logit_processors: give it a hook, or use the sampler alone");

 public:
  /// Refers to a sampler and hooks, which are called in this order.
  template <class A, class... Rest>
  requires(sizeof...(Rest) == sizeof...(Hooks)) explicit with_logit_processors(A&& sampler,
                                                                               Rest&&... hooks)
      : sampler_(std::forward<A>(sampler)), hooks_(std::forward<Rest>(hooks)...) {}

  /// The sampler's choice from the changed logits.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far = {}) {
    apply(logits, so_far);
    return detail::choose_token(sampler_, logits, scratch, so_far);
  }
  /// The sampler's distribution for the changed logits.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token> so_far,
                     std::span<double> out) {
    apply(logits, so_far);
    sampler_.probabilities(logits, scratch, so_far, out);
  }
  /// Forwards to the sampler.
  bool accept(double probability) { return sampler_.accept(probability); }
  /// Forwards to the sampler.
  token sample(std::span<const double> weights) { return sampler_.sample(weights); }

 private:
  template <class T>
  void apply(std::span<T> logits, std::span<const token> so_far) {
    std::apply([&](auto&... hook) { (detail::apply_hook(hook, logits, so_far), ...); }, hooks_);
  }

  Sampler sampler_;
  std::tuple<Hooks...> hooks_;
};
template <class Sampler, class... Hooks>
with_logit_processors(Sampler&&, Hooks&&...) -> with_logit_processors<Sampler, Hooks...>;

LINNET_NAMESPACE_END
