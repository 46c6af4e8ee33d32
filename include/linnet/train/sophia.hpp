// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sophia-G: steps that a diagonal estimate of the curvature divides, and that end at the rate.

#include <algorithm>
#include <cmath>

#include <linnet/ops/language.hpp>
#include <linnet/train/optimizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A criterion whose labels a model draws itself: the cross-entropy with tokens sampled from the
/// model's own distribution, wherever the batch has a label. Its squared gradient estimates the
/// Gauss-Newton diagonal (Liu et al. 2023, arXiv:2305.14342, section 2.3).
struct sampled_cross_entropy {
  std::uint64_t seed = 0, step = 0;

  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    const index vocabulary = h.vocabulary;
    ops::detail::each_labelled_row(
        on, rows, vocabulary, h.labels + first, h.chunk, h.losses + first, h.dy != nullptr,
        [&](auto k, index i, T* row) {
          using K = decltype(k);
          const T largest = K::template maximum<T>(vocabulary, row);
          const auto sum = static_cast<double>(K::template exp_sum<T>(vocabulary, largest, row));
          const auto place = static_cast<std::uint64_t>(first + i);
          random_stream random(linnet::seed{seed ^ stream_of("sampled labels")},
                               step << 32 ^ place);
          double left = random.uniform() * sum;
          index label = 0;
          for (index j = 0; j < vocabulary; ++j) {
            const auto mass = static_cast<double>(row[j]);
            if (mass > 0) label = j;
            left -= mass;
            if (left < 0) break;
          }
          const double loss = std::log(sum / static_cast<double>(row[label]));
          if (h.dy) {
            K::template scale<T>(vocabulary, static_cast<T>(1 / sum), row);
            row[label] -= T(1);
          }
          return loss;
        });
  }
};

/// Optimizers that estimate curvature, and whose trainers so draw labels from the model.
template <class Optimizer>
concept estimates_curvature = requires(const Optimizer& o) {
  { o.due(index{}) } -> std::same_as<bool>;
};

}  // namespace detail

/// Sophia-G (Liu et al. 2023, arXiv:2305.14342): a step is m / (rho h), at most the rate. Here m is
/// an average of the gradient and h one of the curvature. Before the first estimate each value
/// takes the full rate. Decay is decoupled and applies to tensors with two dimensions only.
///
/// trainer::step() estimates the curvature behind every `every`-th step, by a second backward pass
/// over its batch with labels that the model draws. Who accumulates calls
/// trainer::estimate_curvature() where due().
struct sophia {
  schedule rate = schedule::constant(6e-4);
  double beta1 = 0.965;
  double beta2 = 0.99;  ///< share of the curvature that an estimate keeps
  double rho = 0.04;    ///< smaller ones cut more steps to the rate; the paper's runs .04 to .08
  double decay = 0.1;
  index every = 10;  ///< steps from one estimate of the curvature to the next

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("beta1", self.beta1, detail::between(0, 0.999999));
    f("beta2", self.beta2, detail::between(0, 0.999999));
    f("rho", self.rho, detail::above(0));
    f("decay", self.decay, detail::at_least(0));
    f("every", self.every, detail::count(1));
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "sophia"; }

  /// State of Sophia: moving averages of the gradient and of the curvature.
  template <class M, class T>
  using state = detail::two_moments<M, T>;

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const double lr = rate.at(t);
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient, T* m, T* h) {
          const double keep = info.decays() ? 1 - lr * decay : 1;
          detail::each_trained_value<T>(on, info.size(), [&](index i) {
            const double now = beta1 * static_cast<double>(m[i]) +
                               (1 - beta1) * gradient_scale * static_cast<double>(gradient[i]);
            const double size =
                (std::min)(1.0, std::abs(now) / (rho * static_cast<double>(h[i]) + 1e-15));
            m[i] = static_cast<T>(now);
            x[i] = static_cast<T>(keep * static_cast<double>(x[i]) - lr * (now < 0 ? -size : size));
          });
        },
        s.first, s.second);
  }

  /// Whether the curvature is estimated behind step `t` >= 1.
  bool due(index t) const { return t % every == 0; }
  /// Adds an estimate of the curvature, from gradients of labels that the model has drawn:
  /// h <- beta2 h + (1 - beta2) tokens g^2. Here g, the gradients times `gradient_scale`, is their
  /// mean over `tokens`. Called by every thread of a team.
  template <class M, class T>
  void observe(const ops::execution& on, index tokens, double gradient_scale,
               const gradients<M, T>& g, state<M, T>& s) const {
    const auto count = static_cast<double>(tokens);
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, const auto& gradient, auto& h) {
          if (info.kind == role::moving_average) return;
          detail::each_trained_value<T>(on, info.size(), [&](index i) {
            const double x = gradient_scale * static_cast<double>(gradient[i]);
            h[i] = static_cast<T>(beta2 * static_cast<double>(h[i]) + (1 - beta2) * count * x * x);
          });
        },
        g, s.second);
  }
};

LINNET_NAMESPACE_END
