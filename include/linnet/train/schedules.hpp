#pragma once
/// @file
/// Learning-rate schedules.

#include <cmath>

#include <linnet/core/types.hpp>

LINNET_NAMESPACE_BEGIN

/// The learning rate of each step (zoo A10, C9); steps count from 1.
struct schedule {
  enum class kind { constant, cosine, inverse_sqrt, inverse_sqrt_linear };

  kind form = kind::constant;
  double peak = 1e-3;  ///< highest rate; for the inverse square roots the factor
  double floor = 0;    ///< rate at the end of a cosine
  index warmup = 0;    ///< steps of warm-up
  index steps = 1;     ///< last step of a cosine

  /// The same rate throughout.
  static constexpr schedule constant(double rate) { return {kind::constant, rate, 0, 0, 1}; }
  /// Linear warm-up to `peak`, then half a cosine down to `floor` at step `steps`.
  static constexpr schedule cosine(double peak, index warmup, index steps, double floor = 0) {
    return {kind::cosine, peak, floor, warmup, steps};
  }
  /// T5: factor / sqrt(max(t, warmup)), so constant during warm-up.
  static constexpr schedule inverse_sqrt(index warmup = 10000, double factor = 1) {
    return {kind::inverse_sqrt, factor, 0, warmup, 1};
  }
  /// t5x: factor * min(1, t / warmup) / sqrt(max(t, warmup)).
  static constexpr schedule inverse_sqrt_linear(index warmup = 20000, double factor = 1) {
    return {kind::inverse_sqrt_linear, factor, 0, warmup, 1};
  }

  /// The rate of step `t` >= 1.
  double at(index t) const {
    const auto now = static_cast<double>(t), w = static_cast<double>(warmup);
    switch (form) {
      case kind::constant:
        return peak;
      case kind::cosine: {
        if (t < warmup) return peak * now / w;
        if (t >= steps) return floor;
        const double progress = (now - w) / (static_cast<double>(steps) - w);
        return floor + 0.5 * (peak - floor) * (1 + std::cos(3.14159265358979323846 * progress));
      }
      case kind::inverse_sqrt:
        return peak / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
      case kind::inverse_sqrt_linear:
        return peak * (t < warmup ? now / w : 1) / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
    }
    return peak;
  }
};

LINNET_NAMESPACE_END
