// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Elementwise steps around the recurrence of RWKV-7 (Peng et al. 2025).

#include <linnet/nn/layer.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/nn/recurrent/gate.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = tanh(x) or sigmoid(x), elementwise, between the two factors of a low-rank map.
template <index D, bool Tanh>
struct squash : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T>
  static T value(T x) {
    return Tanh ? std::tanh(x) : sigmoid(x);
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) y.data()[i] = value(x.data()[i]);
    });
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) {
        const T y = value(x.data()[i]);
        dx.data()[i] += dy.data()[i] * (Tanh ? T(1) - y * y : y * (T(1) - y));
      }
    });
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// The rank of RWKV-7's low-rank maps: max(32, 32 round(factor sqrt(d) / 32)).
constexpr index rwkv7_rank(index d, double factor) {
  const auto steps = static_cast<index>(factor * sqrt(static_cast<double>(d)) / 32 + 0.5);
  return 32 * (steps > 1 ? steps : 1);
}

/// Elementwise steps of one head of one token around RWKV-7's recurrence.
template <index N>
struct rwkv7_head {
  static constexpr double slowest = 0.6065306597126334;  ///< e^{-1/2}: decays are above e^-slowest
  static constexpr double norm_floor = 1e-12;

  /// Values of one head: outputs of the linear maps, with parameters, and inputs of the recurrence.
  template <class T>
  struct prepared {
    const T *key, *k_k, *k_a;
    T *decay, *rate;  ///< sigmoids of w and a
    T *w, *k, *remove, *weight;
    T* inverse;  ///< 1 / |key k_k|
  };
  template <class T>
  static void prepare(const prepared<T>& h, const T* w0, const T* a0) {
    T square = 0;
    for (index j = 0; j < N; ++j) {
      h.decay[j] = sigmoid(w0[j] + h.decay[j]);
      h.rate[j] = sigmoid(a0[j] + h.rate[j]);
      h.w[j] = std::exp(-T(slowest) * h.decay[j]);
      h.k[j] = h.key[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
      h.remove[j] = h.key[j] * h.k_k[j];
      square += h.remove[j] * h.remove[j];
    }
    *h.inverse = T(1) / (std::max)(std::sqrt(square), T(norm_floor));
    for (index j = 0; j < N; ++j) {
      h.remove[j] *= *h.inverse;
      h.weight[j] = h.remove[j] * h.rate[j];
    }
  }
  /// From the gradients of w, k, remove and weight: those before the sigmoids in dw and d_weight.
  /// The gradient of the key's map is in d_key, that of key k_k in d_remove. dk stays.
  template <class T>
  static void prepare_backward(const prepared<T>& h, T* dw, const T* dk, T* d_remove, T* d_weight,
                               T* d_key) {
    T along = 0;
    for (index j = 0; j < N; ++j) {
      const T d_rate = d_weight[j] * h.remove[j] + dk[j] * h.key[j] * h.k_a[j];
      d_remove[j] += d_weight[j] * h.rate[j];
      along += d_remove[j] * h.remove[j];
      d_weight[j] = d_rate * h.rate[j] * (T(1) - h.rate[j]);
      dw[j] *= -T(slowest) * h.w[j] * h.decay[j] * (T(1) - h.decay[j]);
    }
    if (*h.inverse >= T(1 / norm_floor)) along = 0;  // divided by the floor, a constant
    for (index j = 0; j < N; ++j) {
      d_remove[j] = (d_remove[j] - h.remove[j] * along) * *h.inverse;
      d_key[j] = d_remove[j] * h.k_k[j] + dk[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
    }
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
