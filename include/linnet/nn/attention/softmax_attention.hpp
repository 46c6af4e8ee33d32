// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Softmax attention as a layer: self or cross, causal or bidirectional, with rotary or relative
/// positions and a key-value cache. Heads may be multi-head, grouped-query or multi-query.

#include <linnet/nn/attention/attention_cost.hpp>
#include <linnet/nn/attention/gated_keys.hpp>
#include <linnet/nn/attention/projections.hpp>
#include <linnet/nn/virtual_tokens.hpp>
#include <linnet/ops/hadamard.hpp>
#include <linnet/ops/heads.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Layer of softmax attention in which a query sees the keys in its window. With `Slots`, a query's
/// distance to the window's `first` keys is counted in kept tokens (Xiao et al. 2023).
template <attention_shape A, ops::attention_window Window, bool Slots = false>
struct softmax_attention {
  using projections = attention_projections<A>;
  static constexpr index in = projections::in, out = projections::out, n = projections::n,
                         kv = projections::kv;
  static constexpr bool adds_residual = true;
  static constexpr ops::attention_window window = Window;
  /// Most tokens that are kept, and so the largest distance to the first ones.
  static constexpr index kept = Slots ? Window.first + Window.before + 1 : ops::any_distance;
  static constexpr bool two_queries = Slots && A.rope != rope_pairing::none;
  /// Whether no ops::attention_tap is shown it.
  static constexpr bool hidden = two_queries || Window.block > 0;
  /// Whether queries and keys are rotated, by their positions or by a Hadamard transform.
  static constexpr bool rotates = A.rope != rope_pairing::none || A.hadamard;
  /// Whether adapters may put keys and values before its own.
  static constexpr bool takes_virtual_keys =
      !A.cross && !Slots && !A.hadamard && Window.block == 0 &&
      !linnet::detail::rounds_channels(A.cache);  // whose keys are from before their positions
  /// Whether a cache keeps keys as they are before their positions, and rotates what it reads.
  template <class T>
  static constexpr bool rotates_cached =
      linnet::detail::rounds_channels(A.cache) && std::is_same_v<T, float>;
  static_assert(!linnet::detail::rounds_channels(A.cache) || (!A.cross && !A.hadamard));
  static constexpr bool takes_gated_keys = takes_virtual_keys && A.causal;
  template <class T, bool Keys>
  using buffer =
      typename linnet::detail::pick_kv_buffer<T, A.cache, A.kv_heads, A.d_kv, Keys>::type;
  using to_query = typename projections::to_query;
  using to_key = typename projections::to_key;
  using to_value = typename projections::to_value;
  /// Whether the maps to queries, keys and values are matrices that share one call.
  static constexpr bool together = A.projections.plain() && !A.qk_norm;
  using to_output = typename projections::to_output;

  template <class Form>
  using params = typename projections::template params<Form>;
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    projections::visit(f, at, p...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    projections::channels(c, p);
  }

  template <class T>
  struct cache {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [key rows, kv]
    T *q_first = nullptr, *dq_first = nullptr;   ///< [rows, n], rotated to their slots
    buffer<T, false> values{};
    buffer<T, true> keys{};  ///< what decoding keeps
    typename projections::template projection_caches<T> inner{};
    T* mixed = nullptr;        ///< [rows, n] before the output projection
    T* head_scores = nullptr;  ///< [rows, heads] of a predictor
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
    T* scratch = nullptr;  ///< per thread
    index scratch_size = 0;
    index capacity = 0;  ///< tokens that a sequence may have in decoding
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const bool cached = e.capacity > 0;
    const index keys = A.cross ? e.memory : e.length;
    c.dropout_id = m.dropout_ids++;
    if (!hidden) m.attention.add(A.heads, e.batch, e.length, keys, n, kv);
    const index stored = A.cross ? e.memory : e.capacity;
    c.capacity = stored;
    if (cached) {
      const index blocks = A.cross ? 0 : e.blocks;
      const index recent = window.before + e.length;  // that a call may look at
      c.keys.plan(m.state, e.batch, stored, window.first, recent, blocks);
      c.values.plan(m.state, e.batch, stored, window.first, recent, blocks);
    }
    c.q = m.saved.take<T>(e.rows() * n);
    if (two_queries) c.q_first = m.saved.take<T>(e.rows() * n);
    c.mixed = m.saved.take<T>(e.rows() * n);
    if (projections::predicts) c.head_scores = m.saved.take<T>(e.rows() * A.heads);
    const index key_values = e.batch * keys * kv;
    arena& passing = cached ? m.scratch : m.saved;
    const index mark = m.scratch.mark();
    c.k = passing.take<T>(key_values);
    c.v = passing.take<T>(key_values);
    if (e.training) {
      c.dq = m.scratch.take<T>(e.rows() * n);
      if (two_queries) c.dq_first = m.scratch.take<T>(e.rows() * n);
      c.dk = m.scratch.take<T>(key_values);
      c.dv = m.scratch.take<T>(key_values);
      c.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    c.scratch_size = ops::attention_scratch(e.length, cached ? stored : keys, A.d_kv, window,
                                            e.training, cached && c.keys.gathered());
    c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
    c.inner = projections::template plan_projections<T>(m, e, keys);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    const bool cached = ctx.past != nullptr;
    const timed<S> time(ctx.on.threads, operation::attention_input);
    if constexpr (is_profiled<S>) projections::template add_input_cost<T, S>(time, ctx);
    if constexpr (projections::predicts)
      projections::to_scores::template forward<T, S>(p.predictor, x, {c.head_scores, rows},
                                                     c.inner.scores, ctx);
    if constexpr (A.cross) {
      to_query::template forward<T>(p.q, x, {c.q, rows}, c.inner.q, ctx);
      if (!ctx.memory.cached) {
        const view<const T, in> memory(ctx.memory.states, ctx.batch * ctx.memory.length);
        if constexpr (together) {
          ops::gemm_each(ctx.on, memory.rows(), in, memory.data(), to_key::product(p.k, c.k),
                         to_key::product(p.v, c.v));
        } else {
          to_key::template forward<T>(p.k, memory, {c.k, memory.rows()}, c.inner.k, ctx);
          to_value::template forward<T>(p.v, memory, {c.v, memory.rows()}, c.inner.v, ctx);
        }
        if (cached)
          linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.memory.length, true, c.k, c.v);
      }
    } else {
      if constexpr (together) {
        ops::gemm_each(ctx.on, rows, in, x.data(), to_query::product(p.q, c.q),
                       to_key::product(p.k, c.k), to_key::product(p.v, c.v));
      } else {
        to_query::template forward<T>(p.q, x, {c.q, rows}, c.inner.q, ctx);
        to_key::template forward<T>(p.k, x, {c.k, rows}, c.inner.k, ctx);
        to_value::template forward<T>(p.v, x, {c.v, rows}, c.inner.v, ctx);
      }
      time.next(operation::attention);
      const auto keep = [&] {
        if (cached) linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.length, false, c.k, c.v);
      };
      if constexpr (rotates_cached<T>) {
        if (ctx.on.largest_keys)
          linnet::detail::note_largest(ctx.on, rows, kv, c.k,
                                       ctx.on.largest_keys + ctx.stack.layer * kv);
        keep();
      }
      if constexpr (rotates)
        ctx.on.threads.each(rows, [&](index row) {
          if (two_queries) {
            std::copy_n(c.q + row * n, n, c.q_first + row * n);
            rotate_row(c.q_first, A.heads, row, ctx, false, kept);
          }
          rotate_row(c.q, A.heads, row, ctx, false);
          if (!(rotates_cached<T> && cached)) rotate_row(c.k, A.kv_heads, row, ctx, false);
        });
      if constexpr (takes_virtual_keys) linnet::detail::put_virtual_keys(ctx, kv, c.k, c.v);
      if constexpr (!rotates_cached<T>) keep();
    }
    if constexpr (A.cross) time.next(operation::attention);
    if constexpr (is_profiled<S>) time.add(attention_cost<A, T>(window, ctx));
    if (cached) {
      // Of the encoder's keys none are as they were given, wherever a query stands.
      auto keys = linnet::detail::key_rows(c.keys, ctx, A.cross ? nullptr : c.k, ctx.length,
                                           A.cross ? nullptr : ctx.past);
      if constexpr (rotates_cached<T> && A.rope != rope_pairing::none)
        keys.angles = ctx.rope.table, keys.pairing = A.rope;
      ops::attention(ctx.on, call(c, ctx, keys, c.values.rows(ctx.pages)));
      if (!A.cross) linnet::detail::keep_newest(c.keys, keys, ctx);
    } else {
      if constexpr (linnet::detail::is_fake<S> && A.cache != kv_code::int4 && !rotates_cached<T>) {
        const index keys = ctx.batch * (A.cross ? ctx.memory.length : ctx.length);
        buffer<T, true>::fake(ctx.on, keys, c.k);
        buffer<T, false>::fake(ctx.on, keys, c.v);
      }
      const auto a = call(c, ctx, plain(c.k, ctx), plain(c.v, ctx));
      ops::attention(ctx.on, a);
      show<T>(a, ctx, nullptr);
    }
    if constexpr (takes_gated_keys) linnet::detail::add_gated(ctx, gated<T>(), c.q, c.mixed);
    if constexpr (projections::predicts) ops::keep_heads(ctx.on, chosen(c, rows), c.mixed);
    time.next(operation::attention_output);
    if constexpr (is_profiled<S>) projections::template add_output_cost<T, S>(time, rows);
    to_output::template forward<T>(p.o, {c.mixed, rows}, y, c.inner.o, ctx, residual);
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows(), key_rows = ctx.batch * (A.cross ? ctx.memory.length : ctx.length);
    const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
    const view<T, kv> dk(c.dk, key_rows), dv(c.dv, key_rows);
    constexpr direction back = direction::backward;
    const timed<S> time(ctx.on.threads, operation::attention_output, back);
    if constexpr (is_profiled<S>) projections::template add_output_cost<T, S>(time, rows, back);
    ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
    to_output::template backward<T>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, c.inner.o, ctx);
    time.next(operation::attention);
    if constexpr (is_profiled<S>) time.add(attention_cost<A, T>(window, ctx, back));
    if constexpr (projections::predicts) ops::keep_heads(ctx.on, chosen(c, rows), c.d_mixed);
    ops::fill(ctx.on, dq.size(), T(0), dq.data());
    if (two_queries) ops::fill(ctx.on, dq.size(), T(0), c.dq_first);
    ops::fill(ctx.on, dk.size(), T(0), dk.data());
    ops::fill(ctx.on, dv.size(), T(0), dv.data());
    const auto a = call(c, ctx, plain(c.k, ctx), plain(c.v, ctx));
    const ops::attention_gradient<T> gradient{
        d_mixed.data(), dq.data(),  dk.data(),
        dv.data(),      c.dq_first, A.relative ? ctx.bias.d_lines : nullptr};
    ops::attention_backward(ctx.on, a, gradient);
    show<T>(a, ctx, &gradient);
    if constexpr (takes_virtual_keys) linnet::detail::virtual_keys_backward(ctx, kv, c.dk, c.dv);
    if constexpr (takes_gated_keys)
      linnet::detail::gated_backward(ctx, gated<T>(), c.q, c.d_mixed, c.dq);
    if constexpr (!A.cross && rotates)
      ctx.on.threads.each(rows, [&](index row) {
        rotate_row(c.dq, A.heads, row, ctx, true);
        rotate_row(c.dk, A.kv_heads, row, ctx, true);
        if (two_queries) {
          rotate_row(c.dq_first, A.heads, row, ctx, true, kept);
          for (index j = row * n; j < (row + 1) * n; ++j) c.dq[j] += c.dq_first[j];
        }
      });
    time.next(operation::attention_input);
    if constexpr (is_profiled<S>) projections::template add_input_cost<T, S>(time, ctx, back);
    to_query::template backward<T>(p.q, dp.q, x, dq, dx, c.inner.q, ctx);
    const view<const T, in> source(A.cross ? ctx.memory.states : x.data(), key_rows);
    const view<T, in> d_source(A.cross ? ctx.memory.d_states : dx.data(), key_rows);
    to_key::template backward<T>(p.k, dp.k, source, dk, d_source, c.inner.k, ctx);
    to_value::template backward<T>(p.v, dp.v, source, dv, d_source, c.inner.v, ctx);
  }

  /// Copies the keys and values of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) {
      c.keys.copy_block(from, to);
      c.values.copy_block(from, to);
      return;
    }
    if constexpr (requires { c.keys.move(part.pages, from, part.first, part.tokens); })
      if (part.token) {
        c.keys.move(part.pages, from, part.first, part.tokens);
        c.values.move(part.pages, from, part.first, part.tokens);
        return;
      }
    const index first = A.cross ? 0 : part.first, last = A.cross ? part.memory : part.tokens;
    c.keys.copy(from, to, first, last);
    c.values.copy(from, to, first, last);
  }

  /// Numbers that the key-value cache holds for each sequence of up to `tokens` tokens.
  static constexpr index state_values(index tokens) {
    return 2 * kv * (std::min)(tokens, window.first + (std::min)(window.before, tokens) + 1);
  }

  static constexpr index flops(const call_shape& e) {
    const index queries = e.length, keys = A.cross ? e.memory : e.length;
    call_shape key_rows = e;
    key_rows.length = keys;
    const index recent = window.block > 0 && window.bounded()
                             ? window.block
                             : (std::min)(window.before, keys) + (std::min)(window.after, keys) + 1;
    const index seen = window.bounded() ? (std::min)(keys, window.first + recent) : keys;
    return projections::predictor_flops(e) + to_query::flops(e) + to_output::flops(e) +
           to_key::flops(key_rows) + to_value::flops(key_rows) + e.batch * 4 * queries * seen * n;
  }

 private:
  /// Shapes of attention to an adapter's keys.
  template <class T>
  static constexpr linnet::detail::gated_shape<T> gated() {
    return {A.heads, A.kv_heads, A.d_kv, projections::template scale<T>};
  }
  /// The heads that a predictor has scored.
  template <class T>
  static ops::scored_heads<T> chosen(const cache<T>& c, index rows) {
    return {rows, A.heads, A.d_kv, c.head_scores, T(A.least_score)};
  }
  /// Buffer of the keys or values of this call.
  template <class T>
  static ops::kv_rows<T> plain(const T* x, const context<T>& ctx) {
    return {x, A.cross ? ctx.memory.length : ctx.length, kv, A.d_kv};
  }
  /// Arguments of the attention call, forward and backward.
  template <class T, class Code>
  static ops::attention_call<T, Code> call(const cache<T>& c, const context<T>& ctx,
                                           const ops::kv_rows<Code>& keys,
                                           const ops::kv_rows<Code>& values) {
    ops::attention_call<T, Code> a{};
    a.batch = ctx.batch;
    a.queries = ctx.length;
    a.keys = A.cross ? ctx.memory.length : ctx.past ? c.capacity : ctx.length;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = A.d_kv;
    a.window = window;
    a.scale = projections::template scale<T>;
    a.q = c.q;
    a.q_first = c.q_first;
    a.kept = kept;
    a.k = keys;
    a.v = values;
    a.out = c.mixed;
    a.past = A.cross ? nullptr : ctx.past;
    if (!A.cross) {
      a.documents = ctx.documents;
      a.tree = ctx.tree;
    } else if (ctx.memory.documents) {
      a.documents = ctx.documents;
      a.key_documents = ctx.memory.documents;
    }
    if (A.causal) a.prefix = ctx.prefix, a.query_lengths = ctx.lengths;
    // A causal query sees only earlier keys, which are valid as long as the query is.
    a.key_lengths = A.cross ? ctx.memory.lengths : A.causal ? nullptr : ctx.lengths;
    if constexpr (A.relative) {
      a.bias = ctx.bias.lines;
      a.bias_origin = ctx.bias.origin;
    }
    a.scratch = c.scratch;
    a.scratch_size = c.scratch_size;
    a.dropout = ctx.dropout;
    a.dropout_id = c.dropout_id;
    a.head_scores = c.head_scores;
    a.least_score = T(A.least_score);
    return a;
  }
  /// Shows a call to an ops::attention_tap.
  template <class T>
  static void show(ops::attention_call<T> a, const context<T>& ctx,
                   const ops::attention_gradient<T>* gradient) {
    if (ctx.on.attention == nullptr || hidden) return;
    a.query_lengths = ctx.lengths;  // of encoders as well
    const auto& tap = *static_cast<const ops::attention_tap<T>*>(ctx.on.attention);
    tap.call(tap.object, ctx.on, a, gradient);
  }
  /// Applies rotary positions in place to one row of x[rows, heads * d_kv], then the Hadamard
  /// transform, or the derivatives of both. `limit` keeps positions below it.
  template <class T>
  static void rotate_row(T* x, index heads, index row, const context<T>& ctx, bool inverse,
                         index limit = ops::any_distance) {
    T* const from = x + row * heads * A.d_kv;
    const auto mix = [&] {
      for (index head = 0; head < heads; ++head)
        ops::hadamard_row(ctx.on.level, A.d_kv, from + head * A.d_kv, inverse);
    };
    if constexpr (A.hadamard)
      if (inverse) mix();
    if constexpr (A.rope != rope_pairing::none) {
      const index position = ctx.position_of(row);
      const T* const angles =
          position < limit ? ctx.rope_of(row, A.d_kv) : ctx.rope.table + (limit - 1) * A.d_kv;
      ops::rope_row(A.rope, heads, A.d_kv, angles, from, inverse);
    }
    if constexpr (A.hadamard)
      if (!inverse) mix();
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
