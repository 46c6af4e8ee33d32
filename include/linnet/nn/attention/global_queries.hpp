// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Longformer's global tokens as queries: they attend to all tokens through maps of their own.

#include <algorithm>

#include <linnet/nn/attention/global_tokens.hpp>
#include <linnet/nn/attention/projections.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// How keys are kept; an encoder keeps none.
template <attention_shape A>
inline constexpr kv_code kept_code = A.causal ? A.cache : kv_code::exact;

/// Attention of the tokens at `Globals` to all tokens, or to those before them (Beltagy et al.
/// 2020, section 3.1). Positions that follow each other are one call of softmax attention. Sessions
/// keep keys and values up to the last global token, as no later token asks for more.
template <attention_shape A, class Globals>
struct global_queries {
  using projections = attention_projections<A>;
  static constexpr index in = projections::in, n = projections::n, kv = projections::kv, h = A.d_kv;
  static constexpr index count = Globals::count, runs = Globals::list.runs();
  /// Tokens up to the last global one.
  static constexpr index reach = Globals::list.last() + 1;
  template <class T, bool Keys>
  using buffer = typename pick_kv_buffer<T, kept_code<A>, A.kv_heads, h, Keys>::type;

  template <class Form>
  struct params {
    typename projections::to_query::template params<form::at<Form, storage::part::attention_q>> q{};
    typename projections::to_key::template params<form::at<Form, storage::part::attention_k>> k{};
    typename projections::to_key::template params<form::at<Form, storage::part::attention_v>> v{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    projections::visit_query(f, at / "q_global", p.q...);
    projections::to_key::visit(f, at / "k_global", p.k...);
    projections::to_key::visit(f, at / "v_global", p.v...);
  }

  template <class T>
  struct cache {
    T *x = nullptr, *q = nullptr, *mixed = nullptr;  ///< [queries, in or n], by run and sequence
    T *k = nullptr, *v = nullptr;                    ///< [rows, kv]
    buffer<T, true> keys{};                          ///< what decoding keeps
    buffer<T, false> values{};
    index* first = nullptr;   ///< [runs, batch] position of a run's first query, 0 without one
    index* counts = nullptr;  ///< [runs, batch] its queries
    T *dx = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
    T* scratch = nullptr;  ///< per thread
    index scratch_size = 0, kept = 0;
    int dropout_id = 0;
  };
  /// Plans the gradients in scratch memory, which the caller releases.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const bool cached = e.capacity > 0;
    const index queries = e.batch * queries_before(runs, e.length);
    c.dropout_id = m.dropout_ids;
    m.dropout_ids += static_cast<int>(runs);
    if (cached) {
      c.kept = (std::min)(e.capacity, reach);
      c.keys.plan(m.state, e.batch, c.kept, 0, c.kept, 0);
      c.values.plan(m.state, e.batch, c.kept, 0, c.kept, 0);
    }
    c.x = m.saved.take<T>(queries * in);
    c.q = m.saved.take<T>(queries * n);
    c.mixed = m.saved.take<T>(queries * n);
    c.k = m.saved.take<T>(e.rows() * kv);
    c.v = m.saved.take<T>(e.rows() * kv);
    c.first = m.saved.take<index>(runs * e.batch);
    c.counts = m.saved.take<index>(runs * e.batch);
    if (e.training) {
      c.dx = m.scratch.take<T>(queries * in);
      c.dq = m.scratch.take<T>(queries * n);
      c.d_mixed = m.scratch.take<T>(queries * n);
      c.dk = m.scratch.take<T>(e.rows() * kv);
      c.dv = m.scratch.take<T>(e.rows() * kv);
    }
    c.scratch_size = ops::attention_scratch((std::min)(count, e.length), cached ? c.kept : e.length,
                                            h, {}, e.training, cached && c.keys.gathered());
    c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
    return c;
  }

  /// Writes the rows of global tokens among mixed[rows, n].
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, T* mixed,
                      cache<T>& c, const context<T>& ctx) {
    if (!any_before_reach(ctx)) return;
    const index queries = ctx.batch * queries_before(runs, ctx.length);
    find_queries(c, ctx);
    ops::fill(ctx.on, queries * in, T(0), c.x);
    each_query(c, ctx, [&](index i, index row) { std::copy_n(x.row(row), in, c.x + i * in); });
    // A product for each run: no more rows than a call has, those of one sequence after the other.
    for (index r = 0; r < runs; ++r) {
      const index at = ctx.batch * queries_before(r, ctx.length),
                  some = ctx.batch * queries_of(r, ctx.length);
      if (open(c, ctx, r))
        ops::gemm_each(ctx.on, some, in, c.x + at * in,
                       projections::to_query::product(p.q, c.q + at * n));
    }
    ops::gemm_each(ctx.on, x.rows(), in, x.data(), projections::to_key::product(p.k, c.k),
                   projections::to_key::product(p.v, c.v));
    rotate(c.q, c.k, c, ctx, false);
    if (ctx.past) {
      keep(c, ctx);
      for (index r = 0; r < runs; ++r)
        if (open(c, ctx, r))
          ops::attention(ctx.on, call(c, ctx, r, c.keys.rows(ops::page_tables{}),
                                      c.values.rows(ops::page_tables{})));
    } else {
      for (index r = 0; r < runs; ++r)
        if (open(c, ctx, r)) ops::attention(ctx.on, call(c, ctx, r));
    }
    each_query(c, ctx,
               [&](index i, index row) { std::copy_n(c.mixed + i * n, n, mixed + row * n); });
  }
  /// Adds to the maps' gradients and to dx, from d_mixed[rows, n].
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, const T* d_mixed, view<T, in> dx, const cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const index queries = ctx.batch * queries_before(runs, ctx.length), rows = x.rows();
    ops::fill(ctx.on, queries * n, T(0), c.d_mixed);
    ops::fill(ctx.on, queries * in, T(0), c.dx);
    ops::fill(ctx.on, queries * n, T(0), c.dq);
    ops::fill(ctx.on, rows * kv, T(0), c.dk);
    ops::fill(ctx.on, rows * kv, T(0), c.dv);
    each_query(c, ctx,
               [&](index i, index row) { std::copy_n(d_mixed + row * n, n, c.d_mixed + i * n); });
    for (index r = 0; r < runs; ++r) {
      if (!open(c, ctx, r)) continue;
      const index at = ctx.batch * queries_before(r, ctx.length) * n;
      ops::attention_backward(ctx.on, call(c, ctx, r),
                              {c.d_mixed + at, c.dq + at, c.dk, c.dv, nullptr,
                               A.relative ? ctx.bias.d_lines : nullptr});
    }
    rotate(c.dq, c.dk, c, ctx, true);
    for (index r = 0; r < runs; ++r) {
      const index at = ctx.batch * queries_before(r, ctx.length),
                  some = ctx.batch * queries_of(r, ctx.length);
      if (open(c, ctx, r))
        projections::to_query::template backward<T>(p.q, dp.q, {c.x + at * in, some},
                                                    {c.dq + at * n, some}, {c.dx + at * in, some},
                                                    none, ctx);
    }
    projections::to_key::template backward<T>(p.k, dp.k, x, {c.dk, rows}, dx, none, ctx);
    projections::to_key::template backward<T>(p.v, dp.v, x, {c.dv, rows}, dx, none, ctx);
    each_query(c, ctx, [&](index i, index row) {
      for (index j = 0; j < in; ++j) dx(row, j) += c.dx[i * in + j];
    });
  }
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) return;
    const index first = (std::min)(part.first, c.kept), last = (std::min)(part.tokens, c.kept);
    c.keys.copy(from, to, first, last);
    c.values.copy(from, to, first, last);
  }

  /// Numbers that are kept for each sequence of up to `tokens` tokens.
  static constexpr index state_values(index tokens) { return 2 * kv * (std::min)(tokens, reach); }
  static constexpr index flops(const call_shape& e) {
    const index g = e.batch * Globals::list.before(e.length);
    return 2 * g * in * n + 4 * e.rows() * in * kv + 4 * g * e.length * n;
  }

 private:
  /// Most queries of run `r` in a call of `length` tokens.
  static constexpr index queries_of(index r, index length) {
    return (std::min)(Globals::list.run_begin(r + 1) - Globals::list.run_begin(r), length);
  }
  /// Most queries of all runs before run `r`.
  static constexpr index queries_before(index r, index length) {
    index n_before = 0;
    for (index i = 0; i < r; ++i) n_before += queries_of(i, length);
    return n_before;
  }
  /// Whether some sequence may still bring a global token, or a key for one.
  template <class T>
  static bool any_before_reach(const context<T>& ctx) {
    for (index b = 0; b < ctx.batch; ++b)
      if (ctx.past_of(b) < reach) return true;
    return false;
  }
  /// Finds the queries of each run in the tokens of this call.
  template <class T>
  static void find_queries(const cache<T>& c, const context<T>& ctx) {
    ctx.on.threads.each(runs * ctx.batch, [&](index i) {
      const index r = i / ctx.batch, b = i % ctx.batch, past = ctx.past_of(b);
      const index begin = Globals::list.run_begin(r), end = Globals::list.run_begin(r + 1),
                  from = (std::max)(past, Globals::list.at[begin]),
                  to = (std::min)(past + ctx.length_of(b), Globals::list.at[begin] + end - begin);
      c.counts[i] = (std::max)(to - from, index{0});
      c.first[i] = c.counts[i] > 0 ? from : 0;  // no query looks at tokens that are not there yet
    });
  }
  /// Whether some sequence has queries of run `r` in this call.
  template <class T>
  static bool open(const cache<T>& c, const context<T>& ctx, index r) {
    const index* const counts = c.counts + r * ctx.batch;
    return std::any_of(counts, counts + ctx.batch, [](index some) { return some > 0; });
  }
  /// Calls f(query, row) for all queries of this call.
  template <class T, class F>
  static void each_query(const cache<T>& c, const context<T>& ctx, F&& f) {
    for (index r = 0; r < runs; ++r) {
      const index most = queries_of(r, ctx.length), before = queries_before(r, ctx.length);
      ctx.on.threads.each(ctx.batch * most, [&](index i) {
        const index b = i / most, at = r * ctx.batch + b;
        if (i % most >= c.counts[at]) return;
        f(ctx.batch * before + i, b * ctx.length + c.first[at] - ctx.past_of(b) + i % most);
      });
    }
  }
  /// Stores the new keys and values that a global token may ask for.
  template <class T>
  static void keep(const cache<T>& c, const context<T>& ctx) {
    const auto keys = c.keys.rows(ops::page_tables{});
    const auto values = c.values.rows(ops::page_tables{});
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const index b = row / ctx.length, t = row % ctx.length, token = ctx.past[b] + t;
      if (t >= ctx.length_of(b) || token >= c.kept) return;
      c.keys.put(ctx.on, keys, b, token, c.k + row * kv);
      c.values.put(ctx.on, values, b, token, c.v + row * kv);
    });
  }
  /// Attention of the queries of run `r` to all valid tokens, or to those before them.
  template <class T, class Code>
  static ops::attention_call<T, Code> call(const cache<T>& c, const context<T>& ctx, index r,
                                           const ops::kv_rows<Code>& keys,
                                           const ops::kv_rows<Code>& values) {
    const index at = ctx.batch * queries_before(r, ctx.length) * n;
    auto a = projections::call(ctx.batch, queries_of(r, ctx.length), c.q + at,
                               ctx.past ? c.kept : ctx.length, keys, values, c.mixed + at);
    a.past = c.first + r * ctx.batch;
    if constexpr (A.causal) {
      a.window.after = 0;
      a.query_lengths = c.counts + r * ctx.batch;
    }
    if (!ctx.past) a.key_lengths = ctx.lengths;
    if constexpr (A.relative) {
      a.bias = ctx.bias.lines;
      a.bias_origin = ctx.bias.origin;
    }
    a.scratch = c.scratch;
    a.scratch_size = c.scratch_size;
    a.dropout = ctx.dropout;
    a.dropout_id = c.dropout_id + static_cast<int>(r);
    return a;
  }
  template <class T>
  static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx, index r) {
    return call<T, T>(c, ctx, r, {c.k, ctx.length, kv, h}, {c.v, ctx.length, kv, h});
  }
  /// Applies rotary positions to the global queries and their keys, or the derivative.
  template <class T>
  static void rotate(T* q, T* k, const cache<T>& c, const context<T>& ctx, bool inverse) {
    if constexpr (A.rope != rope_pairing::none) {
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        ops::rope_row(A.rope, A.kv_heads, h, ctx.rope_of(row, h), k + row * kv, inverse);
      });
      each_query(c, ctx, [&](index i, index row) {
        ops::rope_row(A.rope, A.heads, h, ctx.rope_of(row, h), q + i * n, inverse);
      });
    }
  }
};

/// No global tokens.
template <attention_shape A, class Globals>
requires(Globals::count == 0) struct global_queries<A, Globals> : without_parameters {
  static constexpr index reach = 0;
  template <class T>
  struct cache {};
  template <class T>
  static constexpr cache<T> plan(planner&, const call_shape&) {
    return {};
  }
  template <class T>
  static void copy_state(cache<T>&, index, index, const state_part&) {}
  static constexpr index state_values(index) { return 0; }
  static constexpr index flops(const call_shape&) { return 0; }
};

}  // namespace detail

LINNET_NAMESPACE_END
