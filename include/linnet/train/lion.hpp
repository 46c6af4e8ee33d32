// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Optimizers with one average of the gradients: Lion, and stochastic gradient descent with
/// momentum.

#include <linnet/train/optimizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Lion: steps of one size, by the sign of an average (Chen et al. 2023, arXiv:2302.06675). Rates
/// are 3 to 10 times smaller than AdamW's, decays as many times larger. Decay is decoupled and
/// applies to tensors with two dimensions only.
struct lion {
  schedule rate = schedule::constant(1e-4);
  double beta1 = 0.9;   ///< share of the average in the step
  double beta2 = 0.99;  ///< share of the average that a step keeps
  double decay = 0.1;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("beta1", self.beta1, detail::between(0, 0.999999));
    f("beta2", self.beta2, detail::between(0, 0.999999));
    f("decay", self.decay, detail::at_least(0));
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "lion"; }

  /// State of Lion: a moving average of the gradient.
  template <class M, class T>
  using state = detail::one_moment<M, T>;

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const double lr = rate.at(t);
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient, T* m) {
          const double keep = info.decays() ? 1 - lr * decay : 1;
          detail::each_trained_value<T>(on, info.size(), [&](index i) {
            const double now = gradient_scale * static_cast<double>(gradient[i]);
            const auto before = static_cast<double>(m[i]);
            const double c = beta1 * before + (1 - beta1) * now;
            const double sign = c > 0 ? 1 : c < 0 ? -1 : 0;
            x[i] = static_cast<T>(keep * static_cast<double>(x[i]) - lr * sign);
            m[i] = static_cast<T>(beta2 * before + (1 - beta2) * now);
          });
        },
        s.first);
  }
};

/// Stochastic gradient descent with momentum, as PyTorch has it: without dampening, and with decay
/// as a part of the gradient of tensors with two dimensions.
struct sgd {
  schedule rate = schedule::constant(1e-2);
  double momentum = 0.9;
  bool nesterov = false;  ///< looks ahead by one step of the momentum (Sutskever et al. 2013)
  double decay = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("momentum", self.momentum, detail::between(0, 0.999999));
    f("nesterov", self.nesterov, detail::one_of(detail::false_or_true));
    f("decay", self.decay, detail::at_least(0));
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "sgd"; }

  /// State of SGD: the velocity of each value.
  template <class M, class T>
  using state = detail::one_moment<M, T>;

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const double lr = rate.at(t);
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient, T* velocity) {
          const double pull = info.decays() ? decay : 0;
          detail::each_trained_value<T>(on, info.size(), [&](index i) {
            const double now = gradient_scale * static_cast<double>(gradient[i]) +
                               pull * static_cast<double>(x[i]);
            const double v = momentum * static_cast<double>(velocity[i]) + now;
            velocity[i] = static_cast<T>(v);
            x[i] = static_cast<T>(static_cast<double>(x[i]) -
                                  lr * (nesterov ? now + momentum * v : v));
          });
        },
        s.first);
  }
};

LINNET_NAMESPACE_END
