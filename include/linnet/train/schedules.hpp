// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Learning rate and dropout as functions of the step.

#include <cmath>
#include <numbers>

#include <linnet/core/options.hpp>
#include <linnet/core/portable_math.hpp>

LINNET_NAMESPACE_BEGIN

/// The learning rate of each step; steps count from 1.
struct schedule {
  enum class kind { constant, cosine, inverse_sqrt, inverse_sqrt_linear, warmup_stable_decay };

  kind form = kind::constant;
  double peak = 1e-3;  ///< highest rate; for the inverse square roots the factor
  double floor = 0;    ///< rate at the end of a cosine or a decay
  index warmup = 0;    ///< steps of warm-up
  index steps = 1;     ///< last step of a cosine or a decay
  index decay = 0;     ///< last steps, in which a warm-up-stable-decay falls

  /// A constant learning rate.
  static constexpr schedule constant(double rate) { return {kind::constant, rate, 0, 0, 1, 0}; }
  /// Linear warm-up to `peak`, then half a cosine down to `floor` at step `steps`.
  static constexpr schedule cosine(double peak, index warmup, index steps, double floor = 0) {
    return {kind::cosine, peak, floor, warmup, steps, 0};
  }
  /// The cosine of the Super Tiny Language Models repository, for rerunning its experiments
  /// (Hillier et al. 2024). It goes by (t - warmup) / steps, so it reaches `floor` only `warmup`
  /// steps after step `steps`.
  static constexpr schedule cosine_repo_compat(double peak, index warmup, index steps,
                                               double floor = 0) {
    return cosine(peak, warmup, steps + warmup, floor);
  }
  /// T5: factor / sqrt(max(t, warmup)), so constant during warm-up.
  static constexpr schedule inverse_sqrt(index warmup = 10000, double factor = 1) {
    return {kind::inverse_sqrt, factor, 0, warmup, 1, 0};
  }
  /// t5x: factor * min(1, t / warmup) / sqrt(max(t, warmup)).
  static constexpr schedule inverse_sqrt_linear(index warmup = 20000, double factor = 1) {
    return {kind::inverse_sqrt_linear, factor, 0, warmup, 1, 0};
  }

  /// Linear warm-up to `peak`, which stays until the last `decay` of all `steps`. In these it falls
  /// in a straight line to `floor` (Hu et al. 2024, arXiv:2404.06395). A run can be prolonged from
  /// any step before the decay.
  static constexpr schedule warmup_stable_decay(double peak, index warmup, index steps, index decay,
                                                double floor = 0) {
    return {kind::warmup_stable_decay, peak, floor, warmup, steps, decay};
  }

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("form", self.form, detail::one_of(kinds));
    f("peak", self.peak, detail::at_least(0));
    f("floor", self.floor, detail::at_least(0));
    f("warmup", self.warmup, detail::count(0));
    f("decay", self.decay, detail::count(0));
    const bool falls = self.form == kind::warmup_stable_decay;
    const auto least =
        static_cast<double>(self.warmup) + (falls ? static_cast<double>(self.decay) : 0);
    f("steps", self.steps,
      detail::count((falls || self.form == kind::cosine) && least > 1 ? least : 1,
                    "warmup and decay are part of them"));
  }

  /// The rate of step `t` >= 1.
  double at(index t) const {
    const auto now = static_cast<double>(t), w = static_cast<double>(warmup);
    switch (form) {
      case kind::constant:
        return peak;
      case kind::cosine:
      case kind::warmup_stable_decay: {
        if (t < warmup) return peak * now / w;
        if (t >= steps) return floor;
        if (form == kind::warmup_stable_decay)
          return t <= steps - decay ? peak
                                    : floor + (peak - floor) * static_cast<double>(steps - t) /
                                                  static_cast<double>(decay);
        const double progress = (now - w) / (static_cast<double>(steps) - w);
        const double fall = 1 + detail::portable_angle(std::numbers::pi * progress).cosine;
        return floor + detail::unfused(0.5 * (peak - floor) * fall);
      }
      case kind::inverse_sqrt:
        return peak / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
      case kind::inverse_sqrt_linear:
        return peak * (t < warmup ? now / w : 1) / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
    }
    return peak;
  }

 private:
  static constexpr const char* kinds[] = {"constant", "cosine", "inverse_sqrt",
                                          "inverse_sqrt_linear", "warmup_stable_decay"};
};

/// The dropout of each step; steps count from 1. A number is one, too: that rate
/// throughout.
class dropout_schedule {
 public:
  /// A constant dropout rate.
  constexpr dropout_schedule(double rate = 0) : start_(rate), end_(rate) {}
  /// `start` up to step `first`, then in a straight line to `end` at step `last`, which stays.
  static constexpr dropout_schedule linear(double start, double end, index first, index last) {
    return {start, end, first, last, 0};
  }
  /// Rises from `low` at step 0 to `high` and falls back, in straight lines, once in `steps /
  /// cycles` steps, rounded down. It is `low` throughout if that is below 1.
  static constexpr dropout_schedule triangle(double low, double high, index steps,
                                             index cycles = 4) {
    const index cycle = cycles > 0 ? steps / cycles : 0;
    return cycle > 0 ? dropout_schedule(low, high, 0, 0, cycle) : dropout_schedule(low);
  }
  /// `rate` up to step `last`, none after it: against underfitting (Liu et al. 2023).
  static constexpr dropout_schedule early(double rate, index last) {
    return linear(rate, 0, last, last);
  }
  /// None up to step `last`, `rate` after it: against overfitting (Liu et al. 2023).
  static constexpr dropout_schedule late(double rate, index last) {
    return linear(0, rate, last, last);
  }

  /// The probability of dropping a value in step `t` >= 1.
  constexpr double at(index t) const {
    if (cycle_ > 0) {
      const double up = 2 * static_cast<double>(t % cycle_) / static_cast<double>(cycle_);
      return between(up < 1 ? up : 2 - up);
    }
    if (t <= first_) return start_;
    if (t >= last_) return end_;
    return between(static_cast<double>(t - first_) / static_cast<double>(last_ - first_));
  }
  /// Calls f(number) for each number that it consists of.
  template <class F>
  constexpr void visit_numbers(F&& f) const {
    f(start_), f(end_), f(first_), f(last_), f(cycle_);
  }
  /// Whether every rate is in [0, 1).
  bool valid() const {
    const detail::option_range rates{.least = 0, .most = 1, .below = true};
    return rates.contains(start_) && rates.contains(end_);
  }
  /// A rate of the schedule that is not in this range, if there is one.
  double unfit(const detail::option_range& r) const { return r.contains(start_) ? end_ : start_; }

 private:
  constexpr dropout_schedule(double start, double end, index first, index last, index cycle)
      : start_(start), end_(end), first_(first), last_(last), cycle_(cycle) {}
  constexpr double between(double share) const {
    return start_ + detail::unfused((end_ - start_) * share);
  }

  double start_, end_;          ///< of a triangle: lowest and highest
  index first_ = 0, last_ = 0;  ///< steps at which the straight line begins and ends
  index cycle_ = 0;             ///< steps of a triangle
};

/// The share of weights that are pruned at each step (Zhu and Gupta 2017, arXiv:1710.01878). It
/// rises fast at first, while there is much to prune.
struct sparsity_schedule {
  double start = 0;  ///< up to step `first`
  double end = 0.5;  ///< from step `last` on
  index first = 0;
  index last = 1000;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    const detail::option_range shares{.least = 0, .most = 1, .below = true};
    f("start", self.start, shares);
    f("end", self.end, shares);
    f("first", self.first, detail::count(0));
    f("last", self.last, detail::count(static_cast<double>(self.first)));
  }

  /// The share at step `t` >= 0: end + (start - end) (1 - (t - first) / (last - first))^3.
  constexpr double at(index t) const {
    if (t >= last) return end;
    if (t <= first) return start;
    const double left = static_cast<double>(last - t) / static_cast<double>(last - first);
    return end + (start - end) * left * left * left;
  }
};

LINNET_NAMESPACE_END
