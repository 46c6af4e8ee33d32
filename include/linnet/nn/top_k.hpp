// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Maps that read the largest of their inputs alone.

#include <linnet/nn/chain.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/top_k.hpp>

LINNET_NAMESPACE_BEGIN

/// y = x where |x| is among the `K` largest of its row, else 0, on rows of width D. Of equal ones
/// the first stay. Derivatives flow through what stays.
template <index D, index K>
struct top_k_layer : without_parameters {
  static_assert(K > 0 && K <= D, "linnet::top_k_layer: from 1 to all values of a row stay");
  static constexpr index in = D, out = D;
  template <class T>
  struct cache {
    T* magnitudes = nullptr;  ///< [rows, D]
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index mark = m.scratch.mark();
    const cache<T> c{m.scratch.take<T>(e.rows() * D)};
    m.scratch.release(mark);
    return c;
  }
  /// Scales would change which are the largest.
  template <class Ends, class P>
  static void channels(const Ends& c, P&) {
    c.passes();
    c.fix(c.in, "a choice of the largest");
    c.fix(c.out, "a choice of the largest");
  }

  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, cache<T>& c, context<T>& ctx) {
    ops::top_k(ctx.on, {x.rows(), D, K}, x.data(), c.magnitudes, y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       cache<T>& c, context<T>& ctx) {
    ops::top_k_backward(ctx.on, {x.rows(), D, K}, x.data(), dy.data(), c.magnitudes, dx.data());
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// A linear map that reads the `K` largest of its inputs: y = W top_k(x) (+ b).
template <index In, index Out, index K, bool Bias = false>
using top_k_linear = chain<named<"", top_k_layer<In, K>>, named<"", linear<In, Out, Bias>>>;

LINNET_NAMESPACE_END
