#pragma once
/// @file
/// Learning-rate schedules and optimizers.

#include <cmath>

#include <linnet/model/weights.hpp>

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

/// AdamW (Loshchilov and Hutter 2019; zoo H): decay is decoupled and applies to tensors with two
/// dimensions only.
struct adamw {
  schedule rate = schedule::constant(1e-3);
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double decay = 0.01;

  /// What it remembers of each tensor: moving averages of the gradient and of its square.
  template <class M, class T>
  struct state {
    gradients<M, T> first, second;

    static constexpr index bytes() { return 2 * gradients<M, T>::bytes(); }
    bool valid() const { return first.valid() && second.valid(); }
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::machine& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const double lr = rate.at(t);
    const double correct1 = 1 - std::pow(beta1, static_cast<double>(t));
    const double correct2 = std::sqrt(1 - std::pow(beta2, static_cast<double>(t)));
    M::visit(
        [&](const path&, const tensor_info& info, auto& values, const auto& gradient, auto& m,
            auto& v) {
          T* data = nullptr;
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
            data = values;
          else
            data = values.data;
          ops::detail::in_slices<T>(on, info.size(), [&](index at, index count) {
            simd::dispatch(on.level, [&](auto k) {
              // lr * (m / correct1) / (sqrt(v) / correct2 + eps), with the corrections moved out
              decltype(k)::template adamw<T>(count, T(gradient_scale), T(beta1), T(beta2),
                                             T(lr * correct2 / correct1), T(eps * correct2),
                                             info.decays() ? T(lr * decay) : T(0), gradient + at,
                                             m + at, v + at, data + at);
            });
          });
        },
        path{}, w.tree(), g.tree(), s.first.tree(), s.second.tree());
  }
};

LINNET_NAMESPACE_END
