// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The AdamW optimizer. Any class with its members is an optimizer, see train/optimizer.hpp.

#include <cmath>

#include <linnet/train/optimizer.hpp>

LINNET_NAMESPACE_BEGIN

/// AdamW (Loshchilov and Hutter 2019): decay is decoupled and applies to tensors with two
/// dimensions only.
struct adamw {
  schedule rate = schedule::constant(1e-3);
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double decay = 0.01;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("beta1", self.beta1, detail::between(0, 0.999999));
    f("beta2", self.beta2, detail::between(0, 0.999999));
    f("eps", self.eps, detail::at_least(1e-30));
    f("decay", self.decay, detail::at_least(0));
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "adamw"; }

  /// State of AdamW for each tensor: moving averages of the gradient and of its square.
  template <class M, class T>
  using state = detail::two_moments<M, T>;

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    detail::each_trained_tensor(w, g, moves_tensors<T>{*this, on, t, gradient_scale}, s.first,
                                s.second);
  }

  /// A gradient and its moving averages.
  template <class T>
  struct averaged {
    const T* gradient;
    T *first, *second;
  };
  /// Step `t` >= 1 of x[n]. Called by every thread of a team.
  template <class T>
  void move(const ops::execution& on, index t, double gradient_scale, bool decays, index n,
            const averaged<T>& by, T* x) const {
    const double lr = rate.at(t);
    using linnet::detail::portable_pow;
    const double correct1 = 1 - portable_pow(beta1, static_cast<double>(t));
    const double correct2 = std::sqrt(1 - portable_pow(beta2, static_cast<double>(t)));
    ops::detail::in_slices<T>(on, n, [&](index at, index count) {
      on.with_kernels([&](auto k) {
        // lr * (m / correct1) / (sqrt(v) / correct2 + eps), with the corrections moved out
        decltype(k)::template adamw<T>(count, T(gradient_scale), T(beta1), T(beta2),
                                       T(lr * correct2 / correct1), T(eps * correct2),
                                       decays ? T(lr * decay) : T(0), by.gradient + at,
                                       by.first + at, by.second + at, x + at);
      });
    });
  }

 private:
  template <class T>
  struct moves_tensors {
    const adamw& by;
    const ops::execution& on;
    index t;
    double gradient_scale;

    void operator()(const parameter_path&, const tensor_info& info, T* x, const T* gradient, T* m,
                    T* v) const {
      by.move(on, t, gradient_scale, info.decays(), info.size(), averaged<T>{gradient, m, v}, x);
    }
  };
};

LINNET_NAMESPACE_END
