// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Longformer: a window of neighbours, and a few global tokens that see all and that all see.

#include <algorithm>

#include <linnet/nn/attention/projections.hpp>
#include <linnet/ops/attention_tile.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Local and global attention (Beltagy et al. 2020) in O(T (Window + Globals)). The first `Globals`
/// tokens of a sequence are global: they attend to all tokens, through projections q_global,
/// k_global and v_global of their own. Every other token attends, in one softmax, to the global
/// ones and to Window / 2 on either side. Head i looks at every `Dilations`[i]-th token there. The
/// list begins anew where it ends, and is 1 if empty. A causal model has the half of the window
/// that came before, and its global tokens see those before them. The paper starts the global
/// projections as copies of the local ones, which training from a full model's weights should do.
/// Fresh weights are drawn independently. Sessions refuse it.
template <index Window = 512, index Globals = 1, index... Dilations>
struct longformer : policy {
  static_assert(Window > 0 && Window % 2 == 0,
                "linnet::attention::longformer: the window has an even number of tokens, half on "
                "each side");
  static_assert(Globals >= 0, "linnet::attention::longformer: the number of global tokens");
  static_assert(((Dilations > 0) && ...),
                "linnet::attention::longformer: a dilation is 1 (every token) or more");
  static constexpr bool supports_cache = false;
  using kind = longformer;
  static std::string name() {
    std::string text = "longformer<" + std::to_string(Window) + ", " + std::to_string(Globals);
    ((text += ", " + std::to_string(Dilations)), ...);
    return text + ">";
  }
  /// Distance between neighbours in the window of a head.
  static constexpr index dilation(index head) {
    constexpr index list[] = {Dilations..., 1};
    return list[head % (std::max)(index{sizeof...(Dilations)}, index{1})];
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::longformer: mixes the tokens of one sequence; "
                  "cross-attention is attention::full's");
    using projections = linnet::detail::attention_projections<A>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           kv = projections::kv, h = A.d_kv;
    static constexpr index half = Window / 2, group = A.heads / A.kv_heads;
    static constexpr bool global = Globals > 0;
    /// Most keys of a block of local queries.
    static constexpr index widest = Globals + Window + ops::attention_rows;

    template <class Form>
    struct global_params {
      typename projections::to_query::template params<form::at<Form, storage::part::attention_q>>
          q{};
      typename projections::to_key::template params<form::at<Form, storage::part::attention_k>> k{};
      typename projections::to_key::template params<form::at<Form, storage::part::attention_v>> v{};
    };
    template <class Form>
    struct params : projections::template params<Form> {
      [[no_unique_address]] std::conditional_t<global, global_params<Form>, std::nullptr_t> all{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
      if constexpr (global) {
        projections::visit_query(f, at / "q_global", p.all.q...);
        projections::to_key::visit(f, at / "k_global", p.all.k...);
        projections::to_key::visit(f, at / "v_global", p.all.v...);
      }
    }

    template <class T>
    struct cache {
      typename projections::template buffers<T> b{};
      T *x = nullptr, *q = nullptr, *mixed = nullptr;  ///< [batch * Globals, in or n]: global rows
      T *k = nullptr, *v = nullptr;                    ///< [rows, kv] for the global queries
      T *dx = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0, most = 0;
      bool training = false;
      int dropout_id = 0, global_dropout_id = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), first = e.batch * (std::min)(Globals, e.length);
      c.dropout_id = m.dropout_ids++;
      c.global_dropout_id = m.dropout_ids++;
      c.training = e.training;
      c.most = (std::min)(widest, e.length);
      c.b = projections::template plan<T>(m, e);
      if (global) {
        c.x = m.saved.take<T>(first * in);
        c.q = m.saved.take<T>(first * n);
        c.mixed = m.saved.take<T>(first * n);
        c.k = m.saved.take<T>(e.rows() * kv);
        c.v = m.saved.take<T>(e.rows() * kv);
        if (e.training) {
          c.dx = m.scratch.take<T>(first * in);
          c.dq = m.scratch.take<T>(first * n);
          c.d_mixed = m.scratch.take<T>(first * n);
          c.dk = m.scratch.take<T>(e.rows() * kv);
          c.dv = m.scratch.take<T>(e.rows() * kv);
        }
      }
      c.scratch_size = ops::attention_tile<T>::size(c.most, h, e.training);
      if (global)
        c.scratch_size = (std::max)(c.scratch_size,
                                    ops::attention_scratch(Globals, e.length, h, {}, e.training));
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.past == nullptr && "linnet::attention::longformer: no cached decoding");
      projections::template project<T, S>(p, x, c.b, ctx);
      if constexpr (global) {
        const index g = globals(ctx);
        ctx.on.threads.each(ctx.batch * g, [&](index i) {
          std::copy_n(x.row(i / g * ctx.length + i % g), in, c.x + i * in);
        });
        ops::gemm_each(ctx.on, ctx.batch * g, in, c.x,
                       projections::to_query::product(p.all.q, c.q));
        ops::gemm_each(ctx.on, x.rows(), in, x.data(), projections::to_key::product(p.all.k, c.k),
                       projections::to_key::product(p.all.v, c.v));
        rotate_global(c.q, c.k, ctx, false);
        ops::attention(ctx.on, call(c, ctx));
      }
      // Global rows take what they were given, padding nothing, the rest what is below.
      ctx.on.threads.each(x.rows(), [&](index row) {
        const index b = row / ctx.length, t = row % ctx.length, g = globals(ctx);
        if (t < g)
          std::copy_n(c.mixed + (b * g + t) * n, n, c.b.mixed + row * n);
        else if (t >= ctx.length_of(b))
          std::fill_n(c.b.mixed + row * n, n, T(0));
      });
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        for (index i = 0; i < at.rows; ++i)
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, ctx), false);
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i)
          std::copy_n(tile.out(i), h, c.b.mixed + at.query(i, ctx));
      });
      projections::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      projections::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [](index) { return T(1); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, ctx), true);
          K::template softmax_backward<T>(tile.keys(), tile.row(i), tile.slopes(i), tile.slopes(i));
          if constexpr (A.relative) {
            T* const line = ctx.bias.d_of(at.b, A.heads, at.head) - at.token(at.i0 + i);
            const T* const slopes = tile.slopes(i);
            each_stretch(at, tile.keys(), [&](index slot, index token, index count) {
              K::template add<T>(count, line + token, slopes + slot, line + token);
            });
          }
        }
        tile.end_backward(kernels, at.rows, projections::template scale<T>);
        for (index i = 0; i < at.rows; ++i)
          K::template add<T>(h, c.b.dq + at.query(i, ctx), tile.out(i), c.b.dq + at.query(i, ctx));
        for (index j = 0; j < tile.keys(); ++j) {
          const index key = at.key(j, ctx);
          K::template add<T>(h, c.b.dk + key, tile.dk(j), c.b.dk + key);
          K::template add<T>(h, c.b.dv + key, tile.dv(j), c.b.dv + key);
        }
      });
      if constexpr (global) global_backward<T, S>(p.all, dp.all, x, dx, c, ctx);
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// 0: this kind keeps nothing between tokens and needs whole sequences.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const call_shape& e) {
      const index g = e.batch * (std::min)(Globals, e.length);
      constexpr index nearby = A.causal ? half : Window;
      return projections::flops(e) + 4 * e.rows() * (std::min)(e.length, nearby + 1 + Globals) * n +
             (global ? 2 * g * in * n + 4 * e.rows() * in * kv + 4 * g * e.length * n : 0);
    }

   private:
    /// Local queries of one head, every `step`-th token from `origin` on: numbers [i0, i0 + rows)
    /// of these. Their keys are the first `seen` tokens, then those of numbers from `low` on.
    template <class T>
    struct block {
      index b, head, i0, rows, seen, low, origin, step;
      index token(index number) const { return origin + number * step; }
      /// Token of the key of slot j.
      index key_token(index j) const { return j < seen ? j : token(low + j - seen); }
      /// Where query i, or the key of slot j, starts in its rows.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i0 + i)) * n + head * h;
      }
      index key(index j, const context<T>& ctx) const {
        return (b * ctx.length + key_token(j)) * kv + head / group * h;
      }
      /// Index of query i's first score, for dropout.
      index first_score(index i, const context<T>& ctx) const {
        return (head * ctx.length + token(i0 + i)) * widest;
      }
    };
    template <class T>
    static index globals(const context<T>& ctx) {
      return (std::min)(Globals, ctx.length);
    }
    /// Calls f(kernels, tile, block) for all blocks of local queries, with their probabilities in
    /// the tile. Heads that share keys come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      constexpr index most_rows = ops::attention_rows;
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        ctx.on.with_kernels([&](auto kernels) {
          const index b = item / A.kv_heads, g = item % A.kv_heads, valid = ctx.length_of(b);
          const index seen = globals(ctx);
          ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                      c.training);
          for (index head = g * group; head < (g + 1) * group; ++head) {
            const index step = dilation(head);
            for (index origin = 0; origin < step; ++origin) {
              // Numbers of the tokens behind the global ones.
              const index begin = (std::max)(seen - origin + step - 1, index{0}) / step,
                          end = (std::max)(valid - origin + step - 1, index{0}) / step;
              for (index i0 = begin; i0 < end; i0 += most_rows) {
                const index rows = (std::min)(most_rows, end - i0);
                const index low = (std::max)(begin, i0 - half),
                            high = (std::min)(end, i0 + rows + (A.causal ? 0 : half));
                const block<T> at{b, head, i0, rows, seen, low, origin, step};
                tile.load_keys(
                    seen + high - low, [&](index j) { return c.b.k + at.key(j, ctx); },
                    [&](index j) { return c.b.v + at.key(j, ctx); });
                tile.score(kernels, rows, projections::template scale<T>,
                           [&](index i) { return c.b.q + at.query(i, ctx); });
                for (index i = 0; i < rows; ++i) normalize(kernels, tile, at, i, high - low, ctx);
                f(kernels, tile, at);
              }
            }
          }
        });
      });
    }
    /// Calls f(slot, token, count) for stretches of neighbouring tokens among the keys of a block.
    template <class T, class F>
    static void each_stretch(const block<T>& at, index keys, F&& f) {
      f(index{0}, index{0}, at.seen);
      const index count = at.step == 1 ? keys - at.seen : 1;
      for (index j = at.seen; j < keys; j += count) f(j, at.key_token(j), count);
    }
    /// Turns the scores of query i, with `nearby` keys of the window's range, into probabilities.
    template <class Kernels, class T>
    static void normalize(Kernels, const ops::attention_tile<T>& tile, const block<T>& at, index i,
                          index nearby, const context<T>& ctx) {
      T* const row = tile.row(i);
      T* const window = row + at.seen;
      const index query = at.i0 + i, first = (std::max)(at.low, query - half) - at.low,
                  last = (std::min)(nearby, query + (A.causal ? 0 : half) + 1 - at.low);
      if constexpr (A.relative) {
        const T* const line = ctx.bias.of(at.head) - at.token(query);
        each_stretch(at, tile.keys(), [&](index slot, index token, index count) {
          Kernels::template add<T>(count, row + slot, line + token, row + slot);
        });
      }
      std::fill_n(window, first, ops::hidden_score<T>);
      std::fill(window + last, window + nearby, ops::hidden_score<T>);
      // What comes behind a causal query changes no bit of its sums.
      const index used = A.causal ? at.seen + last : tile.keys();
      std::fill(row + used, row + tile.keys(), T(0));
      Kernels::template softmax<T>(used, row);
    }
    /// Attention of the global queries to all valid tokens, or to those before them.
    template <class T>
    static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      auto a = projections::call(ctx.batch, globals(ctx), c.q, ctx.length, c.k, c.v, c.mixed);
      a.key_lengths = ctx.lengths;
      if constexpr (A.causal) a.window.after = 0;
      if constexpr (A.relative) {
        a.bias = ctx.bias.lines;
        a.bias_origin = ctx.bias.origin;
      }
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      a.dropout = ctx.dropout;
      a.dropout_id = c.global_dropout_id;
      return a;
    }
    template <class T, class S>
    static void global_backward(const global_params<form::packed<T, S>>& p,
                                global_params<form::gradient<T>>& dp, view<const T, in> x,
                                view<T, in> dx, const cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index g = globals(ctx), first = ctx.batch * g, rows = x.rows();
      ctx.on.threads.each(first, [&](index i) {
        std::copy_n(c.b.d_mixed + (i / g * ctx.length + i % g) * n, n, c.d_mixed + i * n);
      });
      ops::fill(ctx.on, first * in, T(0), c.dx);
      ops::fill(ctx.on, first * n, T(0), c.dq);
      ops::fill(ctx.on, rows * kv, T(0), c.dk);
      ops::fill(ctx.on, rows * kv, T(0), c.dv);
      ops::attention_backward(
          ctx.on, call(c, ctx),
          {c.d_mixed, c.dq, c.dk, c.dv, nullptr, A.relative ? ctx.bias.d_lines : nullptr});
      rotate_global(c.dq, c.dk, ctx, true);
      projections::to_query::template backward<T>(p.q, dp.q, {c.x, first}, {c.dq, first},
                                                  {c.dx, first}, none, ctx);
      projections::to_key::template backward<T>(p.k, dp.k, x, {c.dk, rows}, dx, none, ctx);
      projections::to_key::template backward<T>(p.v, dp.v, x, {c.dv, rows}, dx, none, ctx);
      ctx.on.threads.each(first, [&](index i) {
        T* const to = dx.row(i / g * ctx.length + i % g);
        for (index j = 0; j < in; ++j) to[j] += c.dx[i * in + j];
      });
    }
    /// Applies rotary positions to the global queries and their keys, or the derivative.
    template <class T>
    static void rotate_global(T* q, T* k, const context<T>& ctx, bool inverse) {
      if constexpr (A.rope != rope_pairing::none) {
        const index g = globals(ctx);
        ctx.on.threads.each(ctx.rows(), [&](index row) {
          const index b = row / ctx.length, t = row % ctx.length;
          const T* const table = ctx.rope_of(row, h);
          ops::rope_row(A.rope, A.kv_heads, h, table, k + row * kv, inverse);
          if (t < g) ops::rope_row(A.rope, A.heads, h, table, q + (b * g + t) * n, inverse);
        });
      }
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
