// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Longformer: a window of neighbours, and a few global tokens that see all and that all see.

#include <algorithm>

#include <linnet/nn/attention/global_queries.hpp>
#include <linnet/ops/attention_tile.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Local and global attention (Beltagy et al. 2020) in O(T (Window + globals)). The tokens at
/// `Globals`, such as global_tokens<0, 17, 40>, are global: all tokens attend to them. They attend
/// to all, through projections q_global, k_global and v_global of their own. Every
/// other token attends, in one softmax, to the global ones and to Window / 2 on either side. Head i
/// looks at every `Dilations`[i]-th token there. The list begins anew where it ends, and is 1 if
/// empty. A causal model has the half of the window that came before. Global tokens then see, and
/// are seen by, what the order of the text allows. The paper starts the global projections as
/// copies of the local ones, which training from a full model's weights should do. Fresh weights
/// are drawn independently. The cache of a session keeps the window, and the tokens up to the last
/// global one, also by its maps.
template <index Window, class Globals, index... Dilations>
struct longformer_at : policy {
  static_assert(Window > 0 && Window % 2 == 0,
                "linnet::attention::longformer: the window has an even number of tokens, half on "
                "each side");
  static_assert(((Dilations > 0) && ...),
                "linnet::attention::longformer: a dilation is 1 (every token) or more");
  static constexpr bool can_truncate = true, evicts = true, supports_int4 = false,
                        supports_pages = false;
  static constexpr auto globals = Globals::list;
  /// The first tokens of a sequence are global whatever they are.
  static constexpr bool counts_tokens = globals.last() + 1 > Globals::count;
  /// The last global token is one of the model's context.
  static constexpr index least_context = Globals::count > 0 ? globals.last() + 1 : 0;
  using kind = longformer_at;
  static std::string name() {
    return "longformer_at<" + std::to_string(Window) + ", " + Globals::name() + dilations();
  }
  /// Distance between neighbours in the window of a head.
  static constexpr index dilation(index head) {
    constexpr index list[] = {Dilations..., 1};
    return list[head % (std::max)(index{sizeof...(Dilations)}, index{1})];
  }
  /// The end of its name.
  static std::string dilations() {
    std::string text;
    ((text += ", " + std::to_string(Dilations)), ...);
    return text + ">";
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
    /// Tokens in front that are global all: no window reaches them.
    static constexpr index lead = Globals::count > 0 && globals.at[0] == 0 ? globals.run_begin(1)
                                                                           : 0;
    /// Most keys of a block of local queries.
    static constexpr index widest = Globals::count + Window + ops::attention_rows;
    using all_tokens = linnet::detail::global_queries<A, Globals>;
    static_assert(linnet::detail::kept_code<A> != kv_code::int4,
                  "linnet::attention::longformer: queries of one block share a copy of their keys, "
                  "which kv::int4 shows to each in another way; take kv::int8");
    template <class T, bool Keys>
    using buffer = typename linnet::detail::pick_kv_buffer<T, linnet::detail::kept_code<A>,
                                                           A.kv_heads, h, Keys>::type;

    template <class Form>
    struct params : projections::template params<Form> {
      [[no_unique_address]] typename all_tokens::template params<Form> all{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
      all_tokens::visit(f, at, p.all...);
    }

    template <class T>
    struct cache {
      typename projections::template buffers<T> b{};
      [[no_unique_address]] typename all_tokens::template cache<T> all{};
      buffer<T, true> keys{};  ///< what decoding keeps
      buffer<T, false> values{};
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0, most = 0;
      bool training = false;
      int dropout_id = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), tokens = (std::max)(e.length, e.capacity);
      c.dropout_id = m.dropout_ids++;
      c.training = e.training;
      c.most = (std::min)(Globals::count + nearby + (std::min)(e.length, ops::attention_rows),
                          tokens + Globals::count - lead);
      if (e.capacity > 0) {
        const index recent = reach + e.length;  // that a call may look at
        c.keys.plan(m.state, e.batch, e.capacity, all_tokens::reach, recent, 0);
        c.values.plan(m.state, e.batch, e.capacity, all_tokens::reach, recent, 0);
      }
      c.b = projections::template plan<T>(m, e);
      c.all = all_tokens::template plan<T>(m, e);
      c.scratch_size = ops::attention_tile<T>::size(c.most, h, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      projections::template project<T, S>(p, x, c.b, ctx);
      if (ctx.past)
        linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.length, false, c.b.k, c.b.v);
      // Padding takes nothing, global rows what all_tokens gives, the rest what is below.
      ctx.on.threads.each(x.rows(), [&](index row) {
        if (row % ctx.length >= ctx.length_of(row / ctx.length))
          std::fill_n(c.b.mixed + row * n, n, T(0));
      });
      if constexpr (Globals::count > 0)
        all_tokens::template forward<T, S>(p.all, x, c.b.mixed, c.all, ctx);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        for (index i = 0; i < at.rows; ++i)
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, ctx), false);
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i)
          if (at.local(i)) std::copy_n(tile.out(i), h, c.b.mixed + at.query(i, ctx));
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
            [&](index i) { return at.local(i) ? T(1) : T(0); });
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
      if constexpr (Globals::count > 0)
        all_tokens::template backward<T, S>(p.all, dp.all, x, c.b.d_mixed, dx, c.all, ctx);
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Copies what one sequence keeps to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      all_tokens::copy_state(c.all, from, to, part);
      if (part.block) return;
      c.keys.copy(from, to, part.first, part.tokens);
      c.values.copy(from, to, part.first, part.tokens);
    }

    /// Numbers that are kept for each sequence of up to `tokens` tokens.
    static constexpr index state_values(index tokens) {
      return 2 * kv * (std::min)(tokens, all_tokens::reach + reach + 1) +
             all_tokens::state_values(tokens);
    }
    static constexpr index flops(const call_shape& e) {
      return projections::flops(e) + all_tokens::flops(e) +
             4 * e.rows() * (std::min)(e.length, nearby + 1 + Globals::count) * n;
    }

   private:
    /// Neighbours of a token in its window, and how far back they may be.
    static constexpr index nearby = A.causal ? half : Window,
                           reach = half * (std::max)({Dilations..., index{1}});
    /// Local queries of one head, every `step`-th token from `origin` on: numbers [i0, i0 + rows)
    /// of these. Their keys are the first `seen` global tokens, then those of numbers from `low`
    /// on. `past` tokens came before this call.
    template <class T>
    struct block {
      index b, head, i0, rows, seen, low, origin, step, past;
      index token(index number) const { return origin + number * step; }
      /// Whether query i is no global token.
      bool local(index i) const { return !globals.holds(token(i0 + i)); }
      /// Token of the key of slot j.
      index key_token(index j) const { return j < seen ? globals.at[j] : token(low + j - seen); }
      /// Where query i, or the key of slot j, starts in its rows.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i0 + i) - past) * n + head * h;
      }
      index key(index j, const context<T>& ctx) const {
        return (b * ctx.length + key_token(j)) * kv + head / group * h;
      }
      /// Index of query i's first score, for dropout.
      index first_score(index i, const context<T>& ctx) const {
        return (head * ctx.length + token(i0 + i)) * widest;
      }
    };
    /// Calls f(kernels, tile, block) for all blocks of local queries, with their probabilities in
    /// the tile. Heads that share keys come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      constexpr index most_rows = ops::attention_rows;
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        ctx.on.with_kernels([&](auto kernels) {
          const index b = item / A.kv_heads, g = item % A.kv_heads, past = ctx.past_of(b),
                      valid = past + ctx.length_of(b);
          ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                      c.training);
          for (index head = g * group; head < (g + 1) * group; ++head) {
            const index step = dilation(head);
            for (index origin = 0; origin < step; ++origin) {
              // Numbers of the first token from `token` on.
              const auto from = [&](index token) {
                return (std::max)(token - origin + step - 1, index{0}) / step;
              };
              const index begin = from(lead), end = from(valid);
              for (index i0 = from((std::max)(lead, past)); i0 < end; i0 += most_rows) {
                const index rows = (std::min)(most_rows, end - i0);
                const index low = (std::max)(begin, i0 - half),
                            high = (std::min)(end, i0 + rows + (A.causal ? 0 : half));
                const index last = origin + (i0 + rows - 1) * step;
                const block<T> at{
                    b,   head,   i0,   rows, globals.before(A.causal ? last + 1 : valid),
                    low, origin, step, past};
                load(tile, c, ctx, at, at.seen + high - low);
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
    /// Loads the keys of a block: rows of this call, or of the cache.
    template <class T>
    static void load(ops::attention_tile<T>& tile, const cache<T>& c, const context<T>& ctx,
                     const block<T>& at, index count) {
      if (!ctx.past)
        return tile.load_keys(
            count, [&](index j) { return c.b.k + at.key(j, ctx); },
            [&](index j) { return c.b.v + at.key(j, ctx); });
      T k[std::size_t{h}], v[std::size_t{h}];
      const auto decoded = [&](const auto& rows, index j, T* to) {
        const index token = at.key_token(j), g = at.head / group;
        rows.load(at.b, g, token, rows.of(at.b, g).place(token), h, to, 1, -1);
        return to;
      };
      const auto keys = c.keys.rows(ops::page_tables{});
      const auto values = c.values.rows(ops::page_tables{});
      tile.load_keys(
          count, [&](index j) { return decoded(keys, j, k); },
          [&](index j) { return decoded(values, j, v); });
    }
    /// Calls f(slot, token, count) for stretches of neighbouring tokens among the keys of a block.
    template <class T, class F>
    static void each_stretch(const block<T>& at, index keys, F&& f) {
      const index first = (std::min)(lead, at.seen);
      f(index{0}, index{0}, first);
      for (index j = first; j < at.seen; ++j) f(j, at.key_token(j), index{1});
      const index count = at.step == 1 ? keys - at.seen : 1;
      for (index j = at.seen; j < keys; j += count) f(j, at.key_token(j), count);
    }
    /// Turns the scores of query i, with `wide` keys of the window's range, into probabilities.
    template <class Kernels, class T>
    static void normalize(Kernels, const ops::attention_tile<T>& tile, const block<T>& at, index i,
                          index wide, const context<T>& ctx) {
      T* const row = tile.row(i);
      T* const window = row + at.seen;
      const index query = at.i0 + i, first = (std::max)(at.low, query - half) - at.low,
                  last = (std::min)(wide, query + (A.causal ? 0 : half) + 1 - at.low);
      if constexpr (A.relative) {
        const T* const line = ctx.bias.of(at.head) - at.token(query);
        each_stretch(at, tile.keys(), [&](index slot, index token, index count) {
          Kernels::template add<T>(count, row + slot, line + token, row + slot);
        });
      }
      std::fill_n(window, first, ops::hidden_score<T>);
      std::fill(window + last, window + wide, ops::hidden_score<T>);
      // A global token is seen as such, once; by a causal query if it came before.
      for (index j = lead; j < at.seen; ++j) {
        const index token = at.key_token(j), number = (token - at.origin) / at.step - at.low;
        if (token >= at.origin && (token - at.origin) % at.step == 0 && number >= 0 &&
            number < wide)
          window[number] = ops::hidden_score<T>;
        if (A.causal && token > at.token(query)) row[j] = ops::hidden_score<T>;
      }
      // Keys behind a causal query change no bit of its sums.
      const index used = A.causal ? at.seen + last : tile.keys();
      std::fill(row + used, row + tile.keys(), T(0));
      Kernels::template softmax<T>(used, row);
    }
  };
};

/// Longformer whose first `Globals` tokens are global, as a classification token or a question in
/// front.
template <index Window = 512, index Globals = 1, index... Dilations>
struct longformer : longformer_at<Window, linnet::detail::first_tokens<Globals>, Dilations...> {
  static_assert(Globals >= 0, "linnet::attention::longformer: the number of global tokens");
  static constexpr index least_context = 0;
  using kind = longformer;
  static std::string name() {
    return "longformer<" + std::to_string(Window) + ", " + std::to_string(Globals) +
           longformer::dilations();
  }
};

}  // namespace attention

LINNET_NAMESPACE_END
