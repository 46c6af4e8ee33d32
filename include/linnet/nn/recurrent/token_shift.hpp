// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The token shift of RWKV: every channel reads a mixture of this token and the one before it.

#include <algorithm>
#include <array>

#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Which of two neighbouring tokens a mixing parameter is the weight of; the other has the rest.
enum class mixed_by {
  current,  ///< RWKV-4: mu x_t + (1 - mu) x_{t-1}
  previous  ///< RWKV-7: x_t + mu (x_{t-1} - x_t)
};

/// Makes `Count` mixtures of neighbouring rows of x[rows, D], each with a parameter vector mu[D].
/// The row before the first of a sequence is zero; while decoding it is kept from call to call.
template <index D, index Count, mixed_by By>
struct token_shift {
  static constexpr auto count = static_cast<std::size_t>(Count);

  template <class T>
  struct cache {
    std::array<T*, count> mixed{};  ///< [rows, D]
    T* last = nullptr;              ///< [batch, D] last row of each sequence, while decoding
    T* gradient = nullptr;          ///< [rows, D] of one mixture, while training
  };
  /// Takes scratch memory for `gradient`, which the calling layer releases.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    for (T*& one : c.mixed) one = m.saved.take<T>(e.rows() * D);
    if (e.capacity > 0) c.last = m.state.take<T>(e.batch * D);
    if (e.training) c.gradient = m.scratch.take<T>(e.rows() * D);
    return c;
  }

  /// Copies the last row of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_sequence(c.last, D, from, to, part);
  }

  /// Computes c.mixed from x.
  template <class T>
  static void forward(const std::array<const T*, count>& mu, const T* x, const cache<T>& c,
                      const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const index b = row / ctx.length, t = row % ctx.length;
      const T* const now = x + row * D;
      const T* const before = t > 0 ? now - D : ctx.past_of(b) > 0 ? c.last + b * D : nullptr;
      for (std::size_t m = 0; m < count; ++m) {
        T* const y = c.mixed[m] + row * D;
        for (index j = 0; j < D; ++j) {
          const T old = before ? before[j] : T(0);
          y[j] = now[j] + previous(mu[m][j]) * (old - now[j]);
        }
      }
    });
    if (ctx.past)
      ctx.on.threads.each(ctx.batch, [&](index b) {
        std::copy_n(x + (b * ctx.length + ctx.length_of(b) - 1) * D, D, c.last + b * D);
      });
  }
  /// Adds to dx and d_mu the gradient of one mixture, which is in c.gradient.
  template <class T>
  static void backward(const T* mu, T* d_mu, const T* x, T* dx, const cache<T>& c,
                       const context<T>& ctx) {
    const T* const dy = c.gradient;
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const bool last = row % ctx.length == ctx.length - 1;
      const T* const d_now = dy + row * D;
      for (index j = 0; j < D; ++j) {
        const T share = previous(mu[j]);
        dx[row * D + j] += (T(1) - share) * d_now[j] + (last ? T(0) : share * d_now[D + j]);
      }
    });
    const auto [first, end] = ctx.on.threads.range(D);
    for (index row = 0; row < ctx.rows(); ++row)
      for (index j = first; j < end; ++j) {
        const T now = x[row * D + j], old = row % ctx.length > 0 ? x[(row - 1) * D + j] : T(0);
        const T change = dy[row * D + j] * (old - now);
        d_mu[j] += By == mixed_by::previous ? change : -change;
      }
    ctx.on.threads.wait();
  }

  /// Numbers that each sequence keeps while decoding.
  static constexpr index state_values() { return D; }

 private:
  template <class T>
  static T previous(T mu) {
    return By == mixed_by::previous ? mu : T(1) - mu;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
