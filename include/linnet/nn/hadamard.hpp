// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Layers with a Hadamard transform, which spreads outliers over all channels before they are
/// rounded.

#include <algorithm>

#include <linnet/nn/chain.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/hadamard.hpp>

LINNET_NAMESPACE_BEGIN

/// y = x H on rows of width D, with H / sqrt(D) orthogonal: see ops::hadamard().
template <index D>
struct hadamard_layer : without_parameters {
  static constexpr index in = D, out = D;
  template <class T>
  struct cache {
    T* scratch = nullptr;  ///< [rows, D] gradient on its way back
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index mark = m.scratch.mark();
    const cache<T> c{e.training ? m.scratch.take<T>(e.rows() * D) : nullptr};
    m.scratch.release(mark);
    return c;
  }
  /// Weights may be rotated the other way behind it, see rotate_online().
  template <class Ends, class P>
  static void channels(const Ends& c, P&) {
    c.transforms();
    c.keeps_whole(c.in, "a Hadamard transform");
    c.keeps_whole(c.out, "a Hadamard transform");
  }

  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, cache<T>&, context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](index i) {
      std::copy_n(x.data() + i * D, D, y.data() + i * D);
      ops::hadamard_row(ctx.on.level, D, y.data() + i * D, false);
    });
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D>, view<const T, D> dy, view<T, D> dx,
                       cache<T>& c, context<T>& ctx) {
    ctx.on.threads.each(dy.rows(), [&](index i) {
      T *const d = c.scratch + i * D, *const to = dx.data() + i * D;
      std::copy_n(dy.data() + i * D, D, d);
      ops::hadamard_row(ctx.on.level, D, d, true);
      for (index j = 0; j < D; ++j) to[j] += d[j];
    });
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// A linear map that reads rotated inputs: y = W (x H) (+ b).
template <index In, index Out, bool Bias = false>
using rotated_linear = chain<named<"", hadamard_layer<In>>, named<"", linear<In, Out, Bias>>>;

LINNET_NAMESPACE_END
