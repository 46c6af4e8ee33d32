#pragma once
/// @file
/// Softmax attention as a layer: self or cross, causal or bidirectional, multi-head, grouped-query
/// or multi-query, with rotary or relative positions and a key-value cache.

#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/attention.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Full softmax attention (Vaswani et al. 2017; grouped-query: Ainslie et al. 2023).
struct full : policy {
  static std::string name() { return "full"; }
  template <attention_shape A>
  struct layer {
    static_assert(A.heads % A.kv_heads == 0,
                  "linnet::attention::full: heads must be a multiple of kv_heads");
    static_assert(A.rope == rope_pairing::none || A.d_kv % 2 == 0,
                  "linnet::attention::full: rotary positions need an even head width d_kv");
    static constexpr index in = A.d_model, out = A.d_model, n = A.n(), kv = A.kv();
    using to_query = linnet::linear<in, n, A.bias>;
    using to_key = linnet::linear<in, kv, A.bias>;
    using to_output = linnet::linear<n, out, A.bias>;

    template <class Form>
    struct params {
      typename to_query::template params<Form> q{};
      typename to_key::template params<Form> k{}, v{};
      typename to_output::template params<Form> o{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      // T5's small initial queries replace the missing 1/sqrt(d_kv) (zoo A6).
      const auto small = [&](const path& where, const tensor_info& info, auto&... leaf) {
        tensor_info changed = info;
        if (!A.scaled) changed.deviation /= linnet::detail::root(A.d_kv);
        f(where, changed, leaf...);
      };
      to_query::visit(small, at / "q", p.q...);
      to_key::visit(f, at / "k", p.k...);
      to_key::visit(f, at / "v", p.v...);
      to_output::visit(f, at / "o", p.o...);
    }

    template <class T>
    struct cache {
      T *q = nullptr, *k = nullptr,
        *v = nullptr;      ///< [rows, n], [key rows, kv]; k and v are the cache in decoding
      T* mixed = nullptr;  ///< [rows, n] before the output map
      T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
      T* new_keys = nullptr;  ///< [rows, kv] on their way into the cache
      T* new_values = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0;
      index stride = 0;  ///< keys per sequence in k and v
      int site = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const bool cached = e.capacity > 0;
      const index key_rows = A.cross ? e.batch * e.memory : e.rows();
      m.product(e.rows(), in, n, e);
      m.product(key_rows, in, kv, e);
      m.product(e.rows(), n, out, e);
      c.site = m.sites++;
      c.stride = A.cross ? e.memory : cached ? e.capacity : e.length;
      const index key_values = e.batch * c.stride * kv;
      c.q = m.keep.take<T>(e.rows() * n);
      arena& lasting = cached ? m.state : m.keep;
      c.k = lasting.take<T>(key_values);
      c.v = lasting.take<T>(key_values);
      c.mixed = m.keep.take<T>(e.rows() * n);
      const index mark = m.scratch.mark();
      if (cached && !A.cross) {
        c.new_keys = m.scratch.take<T>(e.rows() * kv);
        c.new_values = m.scratch.take<T>(e.rows() * kv);
      }
      if (e.training) {
        c.dq = m.scratch.take<T>(e.rows() * n);
        c.dk = m.scratch.take<T>(key_values);
        c.dv = m.scratch.take<T>(key_values);
        c.d_mixed = m.scratch.take<T>(e.rows() * n);
      }
      c.scratch_size = ops::attention_scratch(c.stride, A.d_kv, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      if constexpr (A.cross) {
        to_query::template forward<T, S>(p.q, x, {c.q, rows}, none, ctx);
        if (!ctx.memory_cached)
          ops::products<T, S, 2>(
              ctx.on, ctx.batch * ctx.memory_length, in, ctx.memory,
              {to_key::template product<T, S>(p.k, c.k), to_key::template product<T, S>(p.v, c.v)});
      } else {
        const bool cached = ctx.past != nullptr;
        T* const keys = cached ? c.new_keys : c.k;
        T* const values = cached ? c.new_values : c.v;
        ops::products<T, S, 3>(
            ctx.on, rows, in, x.data(),
            {to_query::template product<T, S>(p.q, c.q), to_key::template product<T, S>(p.k, keys),
             to_key::template product<T, S>(p.v, values)});
        if (cached || A.rope != rope_pairing::none)
          ctx.on.threads.each(rows, [&](index row) {
            const index b = row / ctx.length, t = row % ctx.length;
            rotate_row(c.q, A.heads, row, ctx, false);
            rotate_row(keys, A.kv_heads, row, ctx, false);
            if (!cached || t >= ctx.length_of(b)) return;
            const index to = (b * c.stride + ctx.past[b] + t) * kv;
            std::copy_n(keys + row * kv, kv, c.k + to);
            std::copy_n(values + row * kv, kv, c.v + to);
          });
      }
      ops::attention(ctx.on, call(c, ctx));
      to_output::template forward<T, S>(p.o, {c.mixed, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows(),
                  key_rows = ctx.batch * (A.cross ? ctx.memory_length : ctx.length);
      const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
      const view<T, kv> dk(c.dk, key_rows), dv(c.dv, key_rows);
      ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
      to_output::template backward<T, S>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, none, ctx);
      ops::fill(ctx.on, dq.size(), T(0), dq.data());
      ops::fill(ctx.on, dk.size(), T(0), dk.data());
      ops::fill(ctx.on, dv.size(), T(0), dv.data());
      ops::attention_backward(
          ctx.on, call(c, ctx),
          {d_mixed.data(), dq.data(), dk.data(), dv.data(), A.relative ? ctx.d_bias : nullptr});
      if constexpr (!A.cross && A.rope != rope_pairing::none)
        ctx.on.threads.each(rows, [&](index row) {
          rotate_row(c.dq, A.heads, row, ctx, true);
          rotate_row(c.dk, A.kv_heads, row, ctx, true);
        });
      to_query::template backward<T, S>(p.q, dp.q, x, dq, dx, none, ctx);
      const view<const T, in> source(A.cross ? ctx.memory : x.data(), key_rows);
      const view<T, in> d_source(A.cross ? ctx.d_memory : dx.data(), key_rows);
      to_key::template backward<T, S>(p.k, dp.k, source, dk, d_source, none, ctx);
      to_key::template backward<T, S>(p.v, dp.v, source, dv, d_source, none, ctx);
    }

    /// Numbers that the key-value cache holds for each sequence of up to `tokens` tokens.
    static constexpr index state_values(index tokens) { return 2 * tokens * kv; }

    static constexpr index flops(const extents& e) {
      const index queries = e.length, keys = A.cross ? e.memory : e.length;
      return e.batch * (2 * queries * 2 * in * n + 2 * keys * 2 * in * kv + 4 * queries * keys * n);
    }

   private:
    /// The call that both directions describe.
    template <class T>
    static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      const bool cached = ctx.past != nullptr;
      ops::attention_call<T> a{};
      a.batch = ctx.batch;
      a.queries = ctx.length;
      a.keys = A.cross ? ctx.memory_length : cached ? c.stride : ctx.length;
      a.heads = A.heads;
      a.kv_heads = A.kv_heads;
      a.h = A.d_kv;
      a.causal = A.causal;
      a.scale = A.scaled ? T(1 / linnet::detail::root(A.d_kv)) : T(1);
      a.q = c.q;
      a.k = c.k;
      a.v = c.v;
      a.out = c.mixed;
      a.past = A.cross ? nullptr : ctx.past;
      // A causal query sees only earlier keys, which are valid as long as the query is.
      a.key_lengths = A.cross ? ctx.memory_lengths : A.causal ? nullptr : ctx.lengths;
      if constexpr (A.relative) {
        a.bias = ctx.bias;
        a.bias_origin = ctx.bias_origin;
      }
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      a.dropout = ctx.dropout;
      a.site = c.site;
      return a;
    }
    /// Rotary positions on one row of x[rows, heads * d_kv], in place.
    template <class T>
    static void rotate_row(T* x, index heads, index row, const context<T>& ctx, bool inverse) {
      if constexpr (A.rope != rope_pairing::none) {
        const index position = ctx.past_of(row / ctx.length) + row % ctx.length;
        ops::rope_row(A.rope, heads, A.d_kv, ctx.rope + position * A.d_kv, x + row * heads * A.d_kv,
                      inverse);
      }
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
