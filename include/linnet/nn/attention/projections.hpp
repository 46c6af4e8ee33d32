// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Parts common to kinds of attention: the projections around the mixing of tokens, and buffers and
/// rotary positions for kinds that read whole sequences.

#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/projection.hpp>
#include <linnet/nn/timed.hpp>
#include <linnet/ops/attention.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Scores of heads, B (A x); nothing of rank 0.
template <index D, index Rank, index Heads>
struct head_predictor
    : chain<named<"reduce", linear<D, Rank>>, named<"score", linear<Rank, Heads>>> {
  static_assert(Rank <= D, "linnet::attention::contextual: the rank is at most d_model");
};
template <index D, index Heads>
struct head_predictor<D, 0, Heads> : without_parameters, without_cache {};

/// LayerNorm of each of `Heads` heads of width H, with one scale and bias for all of them.
template <index Heads, index H>
struct head_norm {
  using one = norm::layer_norm::layer<H, real{1e-5}>;
  static constexpr index in = Heads * H, out = in;
  template <class Form>
  using params = typename one::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    one::visit(f, at, p...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P&) {
    c.keeps_whole(c.in, "heads that a norm reads");
    c.keeps_whole(c.out, "heads that a norm writes");
  }
  template <class T>
  using cache = typename one::template cache<T>;
  template <class T>
  static constexpr cache<T> plan(planner& m, call_shape e) {
    e.length *= Heads;
    return one::template plan<T>(m, e);
  }
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    one::template forward<T, S>(p, {x.data(), x.rows() * Heads}, {y.data(), y.rows() * Heads}, c,
                                ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows() * Heads;
    one::template backward<T, S>(p, dp, {x.data(), rows}, {dy.data(), rows}, {dx.data(), rows}, c,
                                 ctx);
  }
  static constexpr index flops(const call_shape&) { return 0; }
};
/// A projection to heads, with a norm of each behind it if `Normed`.
template <class Map, index Heads, index H, bool Normed>
struct head_projection : std::type_identity<Map> {};
template <class Map, index Heads, index H>
struct head_projection<Map, Heads, H, true>
    : std::type_identity<chain<named<"", Map>, named<"norm", head_norm<Heads, H>>>> {};

/// The projections x -> q, k, v and mixed -> y, and the steps that self-attention over whole
/// sequences takes around its mixing. With `SharedKey` there are no keys here: the kind makes them
/// from the queries.
template <attention_shape A, bool SharedKey = false>
struct attention_projections {
  static_assert(A.heads % A.kv_heads == 0,
                "linnet::attention: heads must be a multiple of kv_heads");
  static_assert(A.rope == rope_pairing::none || A.d_kv % 2 == 0,
                "linnet::attention: rotary positions need an even head width d_kv");
  static constexpr index in = A.d_model, out = A.d_model, n = A.n(), kv = A.kv(), h = A.d_kv;
  static_assert(
      !A.qk_norm || (A.projections.plain() && A.scaled),
      "linnet::attention::qk_norm: it takes plain maps of scaled scores: no sharing::lora, "
      "low_rank or T5");
  using to_value = projection<in, kv, A.bias, A.projections>;
  using to_query = typename head_projection<projection<in, n, A.bias, A.projections>, A.heads, h,
                                            A.qk_norm>::type;
  using to_key = typename head_projection<to_value, A.kv_heads, h, A.qk_norm>::type;
  using to_output = output_projection<n, out, A.bias, A.projections>;
  static constexpr bool predicts = A.predictor > 0;
  using to_scores = head_predictor<in, A.predictor, A.heads>;

  /// Factor of the scores.
  template <class T>
  static constexpr T scale = T(A.scaled ? 1 / sqrt(h) : 1);

  template <class Form>
  struct params {
    typename to_query::template params<form::at<Form, storage::part::attention_q>> q{};
    [[no_unique_address]] std::conditional_t<
        SharedKey, std::nullptr_t,
        typename to_key::template params<form::at<Form, storage::part::attention_k>>>
        k{};
    typename to_value::template params<form::at<Form, storage::part::attention_v>> v{};
    typename to_output::template params<form::at<Form, storage::part::attention_o>> o{};
    [[no_unique_address]] std::conditional_t<predicts, typename to_scores::template params<Form>,
                                             std::nullptr_t>
        predictor{};
  };
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    visit_query(f, at / "q", p.q...);
    if constexpr (!SharedKey) to_key::visit(f, at / "k", p.k...);
    to_value::visit(f, at / "v", p.v...);
    to_output::visit(f, at / "o", p.o...);
    if constexpr (predicts) to_scores::visit(f, at / "predictor", p.predictor...);
  }
  /// Mixing tokens multiplies all values of a head by one number; those of a softmax add up to 1.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index values = c.open(kv, h), queries = c.open(n, h), keys = c.open(kv, h),
                source = A.cross ? c.memory : c.in;
    for (const index channels : {queries, keys}) {
      c.fix(channels, "scores of attention");
      c.accompanies(channels, values);
    }
    c.matches(queries, keys, A.rope);
    c.keeps_constants(values);
    if (A.relative) c.accompanies(c.heads, values);
    if constexpr (predicts) {
      const index scores = c.open(A.heads);
      c.keeps_whole(scores, "heads that a predictor chooses");
      c.keeps_whole(values, "heads that a predictor chooses");
      to_scores::channels(c.between(c.in, scores), p.predictor);
    }
    to_query::channels(c.between(c.in, queries), p.q);
    to_key::channels(c.between(source, keys), p.k);
    to_value::channels(c.between(source, values), p.v);
    to_output::channels(c.between(values, c.out), p.o);
  }
  /// Query projection: T5's small initial values replace the missing 1/sqrt(d_kv).
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit_query(F&& f, const parameter_path& at, P&... p) {
    if constexpr (A.scaled)
      to_query::visit(f, at, p...);
    else
      to_query::visit(detail::with_smaller_start<std::remove_reference_t<F>>{f, sqrt(h)}, at, p...);
  }

  /// Buffers of the projections themselves; empty where each is one matrix.
  template <class T>
  struct projection_caches {
    typename to_query::template cache<T> q{};
    typename to_key::template cache<T> k{};
    typename to_value::template cache<T> v{};
    typename to_output::template cache<T> o{};
    typename to_scores::template cache<T> scores{};
  };
  /// Plans the projections for calls `e` with `key_rows` rows of keys and values for each sequence.
  template <class T>
  static constexpr projection_caches<T> plan_projections(planner& m, const call_shape& e,
                                                         index key_rows) {
    call_shape keys = e;
    keys.length = key_rows;
    projection_caches<T> c;
    c.q = to_query::template plan<T>(m, e);
    c.k = to_key::template plan<T>(m, keys);
    c.v = to_value::template plan<T>(m, keys);
    c.o = to_output::template plan<T>(m, e);
    if constexpr (predicts) c.scores = to_scores::template plan<T>(m, e);
    return c;
  }

  /// Notes the work of the products that make queries, keys and values; of a source whose keys are
  /// cached, that of the queries alone.
  template <class T, class S, class Scope>
  static void add_input_cost(const Scope& time, const context<T>& ctx,
                             direction way = direction::forward) {
    using linnet::storage::part;
    const index rows = ctx.rows(), keys = !A.cross            ? rows
                                          : ctx.memory.cached ? 0
                                                              : ctx.batch * ctx.memory.length;
    time.add(layer_cost<to_query, T, storage::at<S, part::attention_q>>(rows, way));
    if (keys == 0) return;
    if constexpr (!SharedKey)
      time.add(layer_cost<to_key, T, storage::at<S, part::attention_k>>(keys, way));
    time.add(layer_cost<to_value, T, storage::at<S, part::attention_v>>(keys, way));
  }
  /// Notes the work of the output projection.
  template <class T, class S, class Scope>
  static void add_output_cost(const Scope& time, index rows, direction way = direction::forward) {
    time.add(layer_cost<to_output, T, storage::at<S, storage::part::attention_o>>(rows, way));
  }

  /// Buffers around the mixing.
  template <class T>
  struct buffers {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [rows, kv]
    T* mixed = nullptr;                          ///< [rows, n] before the output projection
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
  };
  /// Plans the gradients in scratch memory, which the caller releases.
  template <class T>
  static constexpr buffers<T> plan(planner& m, const call_shape& e) {
    buffers<T> b;
    m.product(e.rows(), in, n, e);
    m.product(e.rows(), in, kv, e);
    m.product(e.rows(), n, out, e);
    b.q = m.saved.take<T>(e.rows() * n);
    if (!SharedKey) b.k = m.saved.take<T>(e.rows() * kv);
    b.v = m.saved.take<T>(e.rows() * kv);
    b.mixed = m.saved.take<T>(e.rows() * n);
    if (e.training) {
      b.dq = m.scratch.take<T>(e.rows() * n);
      if (!SharedKey) b.dk = m.scratch.take<T>(e.rows() * kv);
      b.dv = m.scratch.take<T>(e.rows() * kv);
      b.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    return b;
  }

  /// x -> q, k (unless shared) and v; queries and keys rotated where the model has such positions.
  template <class T, class S, class P>
  static void project(const P& p, view<const T, in> x, const buffers<T>& b, const context<T>& ctx) {
    const timed<S> time(ctx.on.threads, operation::attention_input);
    if constexpr (is_profiled<S>) add_input_cost<T, S>(time, ctx);
    if constexpr (SharedKey)
      ops::gemm_each(ctx.on, x.rows(), in, x.data(), to_query::product(p.q, b.q),
                     to_value::product(p.v, b.v));
    else
      ops::gemm_each(ctx.on, x.rows(), in, x.data(), to_query::product(p.q, b.q),
                     to_key::product(p.k, b.k), to_value::product(p.v, b.v));
    rotate(b.q, b.k, ctx, false);
  }
  /// mixed -> y
  template <class T, class S, class P>
  static void finish(const P& p, view<T, out> y, const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    const timed<S> time(ctx.on.threads, operation::attention_output);
    if constexpr (is_profiled<S>) add_output_cost<T, S>(time, y.rows());
    to_output::template forward<T>(p.o, {b.mixed, y.rows()}, y, none, ctx);
  }
  /// dy -> d_mixed, and zeros in dq, dk (unless shared) and dv.
  template <class T, class S, class P, class D>
  static void finish_backward(const P& p, D& dp, view<const T, out> dy, const buffers<T>& b,
                              context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = dy.rows();
    const timed<S> time(ctx.on.threads, operation::attention_output, direction::backward);
    if constexpr (is_profiled<S>) add_output_cost<T, S>(time, rows, direction::backward);
    ops::fill(ctx.on, rows * n, T(0), b.d_mixed);
    to_output::template backward<T>(p.o, dp.o, {b.mixed, rows}, dy, {b.d_mixed, rows}, none, ctx);
    ops::fill(ctx.on, rows * n, T(0), b.dq);
    if constexpr (!SharedKey) ops::fill(ctx.on, rows * kv, T(0), b.dk);
    ops::fill(ctx.on, rows * kv, T(0), b.dv);
  }
  /// dq, dk (unless shared) and dv -> dx
  template <class T, class S, class P, class D>
  static void project_backward(const P& p, D& dp, view<const T, in> x, view<T, in> dx,
                               const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    const timed<S> time(ctx.on.threads, operation::attention_input, direction::backward);
    if constexpr (is_profiled<S>) add_input_cost<T, S>(time, ctx, direction::backward);
    rotate(b.dq, b.dk, ctx, true);
    to_query::template backward<T>(p.q, dp.q, x, {b.dq, rows}, dx, none, ctx);
    if constexpr (!SharedKey)
      to_key::template backward<T>(p.k, dp.k, x, {b.dk, rows}, dx, none, ctx);
    to_key::template backward<T>(p.v, dp.v, x, {b.dv, rows}, dx, none, ctx);
  }

  /// Floating-point operations of a predictor of heads.
  static constexpr index predictor_flops(const call_shape& e) {
    if constexpr (predicts) return to_scores::flops(e);
    return 0;
  }
  /// Floating-point operations of the projections.
  static constexpr index flops(const call_shape& e) {
    return 2 * e.rows() * in * (2 * n + (SharedKey ? 1 : 2) * kv);
  }

  /// Softmax attention of these queries over some keys, [batch, keys], of as many heads.
  template <class T, class Code>
  static ops::attention_call<T, Code> call(index batch, index queries, const T* q, index keys_,
                                           const ops::kv_rows<Code>& k, const ops::kv_rows<Code>& v,
                                           T* to) {
    ops::attention_call<T, Code> a{};
    a.batch = batch;
    a.queries = queries;
    a.keys = keys_;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = h;
    a.scale = scale<T>;
    a.q = q;
    a.k = k;
    a.v = v;
    a.out = to;
    return a;
  }
  template <class T>
  static ops::attention_call<T> call(index batch, index queries, const T* q, index keys_,
                                     const T* k, const T* v, T* to) {
    return call<T, T>(batch, queries, q, keys_, {k, keys_, kv, h}, {v, keys_, kv, h}, to);
  }

  /// Applies rotary positions to queries, and to keys that have a projection of their own, or the
  /// derivative.
  template <class T>
  static void rotate(T* q, T* k, const context<T>& ctx, bool inverse) {
    if constexpr (A.rope != rope_pairing::none)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const T* const table = ctx.rope_of(row, h);
        ops::rope_row(A.rope, A.heads, h, table, q + row * n, inverse);
        if constexpr (!SharedKey)
          ops::rope_row(A.rope, A.kv_heads, h, table, k + row * kv, inverse);
      });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
