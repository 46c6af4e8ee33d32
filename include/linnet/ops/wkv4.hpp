// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The recurrence of RWKV-4: per channel, an average of all past values, weighted by e^key and an
/// exponential decay (Peng et al. 2023, arXiv:2305.13048).

#include <cmath>

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Tokens between two stored states of a recurrence; backward computes those between them again.
inline constexpr index recurrent_chunk = 16;
/// Stored states of a sequence.
constexpr index recurrent_chunks(index length) {
  return (length + recurrent_chunk - 1) / recurrent_chunk;
}

/// Arguments of RWKV-4's recurrence. With w = -e^decay and u = bonus, per channel, y_t = (P_{t-1} +
/// e^{u + k_t} v_t) / (Q_{t-1} + e^{u + k_t}). P_t = e^w P_{t-1} + e^{k_t} v_t, and Q_t has ones in
/// place of v.
template <class T>
struct wkv4_call {
  index batch, length, d;
  const T *decay, *bonus;        ///< [d]
  const T *k, *v;                ///< [batch, length, d]
  T* y;                          ///< [batch, length, d]
  T* state = nullptr;            ///< [batch, 3, d] P, Q and their exponent, from call to call
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, chunks, 3, d] states for backward, or null
};
/// Gradients of RWKV-4's recurrence, all overwritten.
template <class T>
struct wkv4_gradients {
  const T* dy;           ///< [batch, length, d]
  T *dk, *dv;            ///< [batch, length, d]
  T *d_decay, *d_bonus;  ///< [batch, d] sums over each sequence
};

namespace detail {

/// Channels that one thread works on at a time.
inline constexpr index wkv4_channels = 16;
/// Exponent of an empty sum.
inline constexpr double nothing = -1e38;

/// The sums P and Q times e^-o, and o, of some channels. Sums are relative to the largest exponent
/// in them, so that no key overflows.
template <class T>
struct wkv4_state {
  static constexpr index width = wkv4_channels;
  alignas(64) T p[width], q[width], o[width];

  wkv4_state() {
    std::fill_n(p, width, T(0));
    std::fill_n(q, width, T(0));
    std::fill_n(o, width, T(nothing));
  }
  /// Loads some channels of [3, d].
  void load(const T* from, index d, index count) {
    std::copy_n(from, count, p);
    std::copy_n(from + d, count, q);
    std::copy_n(from + 2 * d, count, o);
  }
  void store(T* to, index d, index count) const {
    std::copy_n(p, count, to);
    std::copy_n(q, count, to + d);
    std::copy_n(o, count, to + 2 * d);
  }
  /// Adds one token to the state.
  template <class Kernels>
  void step(Kernels, index count, const T* w, const T* k, const T* v) {
    alignas(64) T e[std::size_t{2 * width}] = {};
    for (index c = 0; c < count; ++c) {
      const T decayed = o[c] + w[c], top = (std::max)(decayed, k[c]);
      e[c] = decayed - top;
      e[width + c] = k[c] - top;
      o[c] = top;
    }
    Kernels::template exp_sum<T>(2 * width, T(0), e);
    for (index c = 0; c < count; ++c) {
      p[c] = e[c] * p[c] + e[width + c] * v[c];
      q[c] = e[c] * q[c] + e[width + c];
    }
  }
};

/// Calls f(kernels, sequence, first channel, channels, w) for this thread's share of the channels.
template <class T, class F>
void each_wkv4(const execution& on, const wkv4_call<T>& a, F&& f) {
  const index blocks = (a.d + wkv4_channels - 1) / wkv4_channels;
  on.threads.each(a.batch * blocks, [&](index unit) {
    const index first = unit % blocks * wkv4_channels,
                count = (std::min)(wkv4_channels, a.d - first);
    T w[wkv4_channels];
    for (index c = 0; c < count; ++c) w[c] = -std::exp(a.decay[first + c]);
    simd::dispatch(on.level, [&](auto kernels) { f(kernels, unit / blocks, first, count, w); });
  });
}

}  // namespace detail

/// Computes y of all tokens, and the states that backward needs. Rows behind `valid` get zeros and
/// change no state.
template <class T>
void wkv4(const execution& on, const wkv4_call<T>& a) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> s;
    T* const kept = a.state ? a.state + b * 3 * a.d + first : nullptr;
    if (a.past && a.past[b] > 0) s.load(kept, a.d, count);
    const index valid = a.valid ? a.valid[b] : a.length;
    for (index t = 0; t < a.length; ++t) {
      const index at = (b * a.length + t) * a.d + first;
      T* const y = a.y + at;
      if (t >= valid) {
        std::fill_n(y, count, T(0));
        continue;
      }
      if (a.starts && t % recurrent_chunk == 0)
        s.store(a.starts + (b * recurrent_chunks(a.length) + t / recurrent_chunk) * 3 * a.d + first,
                a.d, count);
      alignas(64) T e[std::size_t{2 * width}] = {};
      for (index c = 0; c < count; ++c) {
        const T now = a.bonus[first + c] + a.k[at + c], top = (std::max)(s.o[c], now);
        e[c] = s.o[c] - top;
        e[width + c] = now - top;
      }
      K::template exp_sum<T>(2 * width, T(0), e);
      for (index c = 0; c < count; ++c)
        y[c] = (e[c] * s.p[c] + e[width + c] * a.v[at + c]) / (e[c] * s.q[c] + e[width + c]);
      s.step(kernels, count, w, a.k + at, a.v + at);
    }
    if (kept) s.store(kept, a.d, count);
  });
}

/// Derivatives of wkv4(), of a call that began from an empty state and stored its `starts`. GP and
/// GQ, the gradients of P and Q, run backwards in time with an exponent of their own: GP_{t-1} =
/// s_t + e^w GP_t and GQ_{t-1} = -s_t y_t + e^w GQ_t, where s_t = dy_t / denominator.
template <class T>
void wkv4_backward(const execution& on, const wkv4_call<T>& a, const wkv4_gradients<T>& g) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> before[recurrent_chunk];  // each token of a chunk
    detail::wkv4_state<T> later;                    // GP, GQ and their exponent
    T d_decay[width] = {}, d_bonus[width] = {};
    const index chunks = recurrent_chunks(a.length);
    for (index chunk = chunks; chunk-- > 0;) {
      const index t0 = chunk * recurrent_chunk, n = (std::min)(recurrent_chunk, a.length - t0);
      before[0].load(a.starts + (b * chunks + chunk) * 3 * a.d + first, a.d, count);
      for (index i = 0; i + 1 < n; ++i) {
        const index at = (b * a.length + t0 + i) * a.d + first;
        before[i + 1] = before[i];
        before[i + 1].step(kernels, count, w, a.k + at, a.v + at);
      }
      for (index i = n; i-- > 0;) {
        const auto& s = before[i];
        const index at = (b * a.length + t0 + i) * a.d + first;
        const T *const k = a.k + at, *const v = a.v + at, *const y = a.y + at;
        alignas(64) T e[std::size_t{6 * width}] = {};
        T exponent[width];
        for (index c = 0; c < count; ++c) {
          const T now = a.bonus[first + c] + k[c], top = (std::max)(s.o[c], now);
          const T decayed = later.o[c] + w[c];
          exponent[c] = (std::max)(decayed, -top);
          e[c] = s.o[c] - top;
          e[width + c] = now - top;
          e[2 * width + c] = k[c] + later.o[c];           // at most 0
          e[3 * width + c] = s.o[c] + w[c] + later.o[c];  // likewise
          e[4 * width + c] = decayed - exponent[c];
          e[5 * width + c] = -top - exponent[c];
        }
        K::template exp_sum<T>(6 * width, T(0), e);
        for (index c = 0; c < count; ++c) {
          const T share = g.dy[at + c] / (e[c] * s.q[c] + e[width + c]);
          const T now = e[width + c] * share, then = e[2 * width + c];
          const T through_now = now * (v[c] - y[c]);
          g.dv[at + c] = now + then * later.p[c];
          g.dk[at + c] = through_now + then * (later.p[c] * v[c] + later.q[c]);
          d_bonus[c] += through_now;
          d_decay[c] += e[3 * width + c] * (later.p[c] * s.p[c] + later.q[c] * s.q[c]);
          later.p[c] = e[4 * width + c] * later.p[c] + e[5 * width + c] * share;
          later.q[c] = e[4 * width + c] * later.q[c] - e[5 * width + c] * share * y[c];
          later.o[c] = exponent[c];
        }
      }
    }
    for (index c = 0; c < count; ++c) {
      g.d_decay[b * a.d + first + c] = d_decay[c] * w[c];  // dw / d decay = w
      g.d_bonus[b * a.d + first + c] = d_bonus[c];
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
