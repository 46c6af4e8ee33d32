// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Linear attention as a layer: a kernel of features instead of the softmax.

#include <linnet/nn/attention/projections.hpp>
#include <linnet/ops/linear_attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// The feature map f(x) = elu(x) + 1 of Katharopoulos et al. 2020: x + 1 for x > 0, else e^x. A map
/// of your own has the same three members and must be positive, as the denominators are its sums.
struct elu_plus_one {
  static std::string name() { return "elu_plus_one"; }
  /// y[n] = f(x[n]); `Kernels` is the kernel type of the running instruction-set level.
  template <class Kernels, class T>
  static void map(index n, const T* x, T* y) {
    for (index i = 0; i < n; ++i) y[i] = x[i] > T(0) ? T(0) : x[i];
    (void)Kernels::template exp_sum<T>(n, T(0), y);
    for (index i = 0; i < n; ++i) y[i] += x[i] > T(0) ? x[i] : T(0);
  }
  /// f'(x), given y = f(x).
  template <class T>
  static T derivative(T x, T y) {
    return x > T(0) ? T(1) : y;
  }
};

/// Linear attention (Katharopoulos et al. 2020, eq. 7): o_i = sum_j f(q_i).f(k_j) v_j / (sum_j
/// f(q_i).f(k_j) + 1e-6). Time and memory are linear in the length; decoding keeps one matrix and
/// one vector per key-value head, whatever the length. Causal and bidirectional, multi-head and
/// grouped-query, with or without rotary positions (which turn the numerator's features, Su et al.
/// 2021). T5's relative bias is a matter of softmax scores and is not used; there is no dropout
/// inside.
template <class FeatureMap = elu_plus_one>
struct linear : policy {
  static constexpr bool can_truncate = false;  ///< the state cannot forget its last tokens
  static constexpr bool relative_bias = false;
  using kind = linear;
  static std::string name() { return "linear<" + FeatureMap::name() + ">"; }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::linear: mixes one sequence; it has no cross-attention");
    using projections = linnet::detail::attention_projections<A>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           kv = projections::kv;
    static constexpr index state_size = ops::linear_attention_state(A.d_kv);
    using to_query = typename projections::to_query;
    using to_key = typename projections::to_key;
    using to_output = typename projections::to_output;

    template <class Form>
    using params = typename projections::template params<Form>;
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      to_query::visit(f, at / "q", p.q...);
      to_key::visit(f, at / "k", p.k...);
      to_key::visit(f, at / "v", p.v...);
      to_output::visit(f, at / "o", p.o...);
    }

    template <class T>
    struct cache {
      T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [rows, kv]
      T* mixed = nullptr;                          ///< [rows, n] before the output projection
      T* state = nullptr;                          ///< [batch, kv_heads, state] while decoding
      T* denominators = nullptr;                   ///< [rows, heads] while training
      T* boundaries = nullptr;                     ///< [batch, kv_heads, blocks, state] likewise
      T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index rows = e.rows();
      m.product(rows, in, n, e);
      m.product(rows, in, kv, e);
      m.product(rows, n, out, e);
      if (e.capacity > 0) c.state = m.state.take<T>(e.batch * A.kv_heads * state_size);
      c.q = m.saved.take<T>(rows * n);
      c.k = m.saved.take<T>(rows * kv);
      c.v = m.saved.take<T>(rows * kv);
      c.mixed = m.saved.take<T>(rows * n);
      const index mark = m.scratch.mark();
      if (e.training) {
        const index blocks = A.causal ? ops::linear_attention_blocks(e.length) : 1;
        c.denominators = m.saved.take<T>(rows * A.heads);
        c.boundaries = m.saved.take<T>(e.batch * A.kv_heads * blocks * state_size);
        c.dq = m.scratch.take<T>(rows * n);
        c.dk = m.scratch.take<T>(rows * kv);
        c.dv = m.scratch.take<T>(rows * kv);
        c.d_mixed = m.scratch.take<T>(rows * n);
      }
      c.scratch_size = ops::linear_attention_scratch(e.length, A.d_kv, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      ops::gemm_each(ctx.on, rows, in, x.data(), to_query::product(p.q, c.q),
                     to_key::product(p.k, c.k), to_key::product(p.v, c.v));
      ops::linear_attention<FeatureMap>(ctx.on, call(c, ctx));
      to_output::template forward<T>(p.o, {c.mixed, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
      const view<T, kv> dk(c.dk, rows), dv(c.dv, rows);
      ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
      to_output::template backward<T>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, none, ctx);
      ops::linear_attention_backward<FeatureMap>(
          ctx.on, call(c, ctx),
          ops::linear_attention_gradient<T>{d_mixed.data(), dq.data(), dk.data(), dv.data()});
      to_query::template backward<T>(p.q, dp.q, x, dq, dx, none, ctx);
      to_key::template backward<T>(p.k, dp.k, x, dk, dx, none, ctx);
      to_key::template backward<T>(p.v, dp.v, x, dv, dx, none, ctx);
    }

    /// Numbers in the state of one sequence, whatever its length.
    static constexpr index state_values(index) { return A.kv_heads * state_size; }

    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      copy_sequence(c.state, A.kv_heads * state_size, from, to, part);
    }
    static constexpr index flops(const call_shape& e) {
      constexpr index h = A.d_kv, most = ops::linear_attention_rows;
      const index whole = e.length / most, rest = e.length % most;
      // Scores and their sums of values inside the blocks of a causal layer.
      const index inside = A.causal ? 4 * h * (whole * most * most + rest * rest) : 0;
      return e.rows() * (2 * in * (n + 2 * kv) + 2 * n * out) +
             e.batch * (A.heads * inside + 2 * e.length * h * h * (A.heads + A.kv_heads));
    }

   private:
    /// Arguments of the attention call, forward and backward.
    template <class T>
    static ops::linear_attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      ops::linear_attention_call<T> a{};
      a.batch = ctx.batch;
      a.length = ctx.length;
      a.heads = A.heads;
      a.kv_heads = A.kv_heads;
      a.h = A.d_kv;
      a.causal = A.causal;
      a.q = c.q;
      a.k = c.k;
      a.v = c.v;
      a.out = c.mixed;
      a.denominators = c.denominators;
      a.boundaries = c.boundaries;
      a.state = c.state;
      a.lengths = ctx.lengths;
      a.past = ctx.past;
      a.pairing = A.rope;
      a.rope = ctx.rope.table;
      a.rope_positions = ctx.rope.positions;
      a.rope_beyond = ctx.rope.beyond;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
