// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// LayerSkip's training recipe (Elhoushi et al. 2024): layer dropout that grows with depth, and
/// losses at early exits. A model trained so can stop early or draft for itself
/// (generate/self_speculative.hpp).

#include <span>

#include <linnet/core/options.hpp>
#include <linnet/core/portable_math.hpp>

LINNET_NAMESPACE_BEGIN

/// Layer dropout in training: a sample skips layer l of L with probability S(t) D(l) rate, where
/// D(l) = 2^(l / (L - 1)) - 1. It is drawn once per sample and layer, for attention and
/// feed-forward together. Nothing is rescaled.
struct layer_dropout {
  double rate = 0;  ///< rate of the last layer (p_max; paper: .1 to .2); 0 turns it off
  index steps = 0;  ///< T of a training from scratch: S(t) = 2^(t / (T - 1)) - 1 rises from 0 to 1
                    ///< over so many steps; 0 for continued training: S = 1

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate,
      detail::option_range{.least = 0, .most = 1, .below = true, .note = "0 turns it off"});
    f("steps", self.steps, detail::count(0, "0 for continued training"));
  }

  /// S(t) rate at optimizer step `t`, counted from 0.
  double at(index t) const {
    if (steps <= 1 || t >= steps - 1) return rate;
    return rate *
           (detail::portable_pow(2, static_cast<double>(t) / static_cast<double>(steps - 1)) - 1);
  }
};

/// Losses of early exits in training: the loss becomes J = sum_l e~(l) CE(g(x_{l+1})). Here x_{l+1}
/// is the stream after layer l, g the model's final norm and head, and e~(l) the normalised C(t, l)
/// e(l). Weights are e(l) = scale (0 + 1 + ... + l) before the last layer, e(L-1) = (L-1) + scale
/// (0 + ... + (L-2)). The curriculum C enables exits step by step; the last one always is. The exit
/// after the first layer has no weight (e(0) = 0). With an objective or z-loss each exit has its
/// loss instead of the cross-entropy. Trainers report J as their loss, evaluate() the last exit's.
struct early_exits {
  double scale = 0;    ///< e_s in [0, 1] (the paper .1 to .2, fine-tuning 1); 0 is plain training
  index rotation = 1;  ///< R: only every R-th exit in a step, the next ones in the next step
  index steps = 0;     ///< T: exits are enabled from the last to the first, one more every
                       ///< T / (2 L) steps; 0 for all from the start

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("scale", self.scale, detail::between(0, 1, "0 is plain training"));
    f("rotation", self.rotation, detail::count(1));
    f("steps", self.steps, detail::count(0, "0: all from the start"));
  }

  /// Whether the curriculum enables exit `l` of `layers` at optimizer step `t`, counted from 0.
  constexpr bool enabled(index t, index l, index layers) const {
    if (l + 1 == layers) return true;
    return l % rotation == t % rotation && 2 * layers * t >= steps * (layers - 1 - l);
  }
  /// The weights e~ of all exits [layers] at optimizer step `t`. They add up to 1.
  void weights(index t, std::span<double> out) const {
    const index layers = std::ssize(out);
    double sum = 0;
    for (index l = 0; l < layers; ++l) {
      const bool last = l + 1 == layers;
      const auto before = static_cast<double>(last ? (l - 1) * l / 2 : l * (l + 1) / 2);
      const double raw = detail::unfused(scale * before) + (last ? static_cast<double>(l) : 0);
      sum += out[static_cast<std::size_t>(l)] = enabled(t, l, layers) ? raw : 0;
    }
    for (double& e : out) e = layers == 1 ? 1 : e / sum;
  }
};

LINNET_NAMESPACE_END
