// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Routing attention: tokens attend to tokens nearest to the same k-means centroid.

#include <algorithm>
#include <limits>

#include <linnet/nn/attention/grouping.hpp>
#include <linnet/ops/attention_tile.hpp>
#include <linnet/ops/buckets.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Content-based sparse attention (Roy et al. 2021). Queries and keys have unit length, and each
/// head has `Clusters` centroids. Each centroid takes the `Window` queries and the `Window` keys of
/// a sequence that point most its way. Of a shorter sequence it takes all, of equals the earlier.
/// They attend to each other with scores sqrt(h) q.k, that is q and k of length sqrt(h) divided by
/// sqrt(h). A token in several clusters gets the mean of their outputs, one in none zero. With
/// Clusters = Window = sqrt(T), O(T^1.5). A causal layer shares queries and keys, so that a token
/// always finds itself, and masks later ones.
///
/// Centroids are tensors of role::moving_average. Backward adds to each the queries and keys
/// nearest to it, and a trainer moves it there (k-means by a running average). They have no
/// derivative, the choice of tokens is a constant in backward, and parameter counts include them.
///
/// Caution: which tokens a centroid takes depends on the whole sequence, in a causal model too. An
/// earlier output can change with a later token's groups.
///
/// A session therefore goes by grouping::online: a token belongs to its nearest centroid alone.
/// That is the paper's definition, of which the `Window` best are its balanced approximation. A
/// token sees those that came there before it, back to the start of the chunk of `Window` before
/// its own. Let 1,024 random tokens make pairs in 32 clusters of 32, after 20 rounds of k-means. A
/// session has 78 % of these pairs, and 23 % of its own are others. Of the tokens, 12 % are in no
/// cluster in training and in one of a session. With grouping::online a model trains as it decodes.
template <index Clusters, index Window, grouping Grouping = grouping::whole>
struct routing : policy {
  static_assert(Clusters > 0 && Window > 0,
                "linnet::attention::routing<Clusters, Window>: both must be positive");
  /// The online variant: it trains as this kind decodes.
  using online = routing<Clusters, Window, grouping::online>;
  static constexpr bool is_online = Grouping == grouping::online;
  static constexpr bool bidirectional = !is_online, can_truncate = true,
                        noncausal_grouping = !is_online;
  using kind = routing;
  static std::string name() {
    return "routing<" + std::to_string(Clusters) + ", " + std::to_string(Window) +
           (is_online ? ", frozen" : "") + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::routing: mixes the tokens of one sequence; cross-attention "
                  "is attention::full's");
    static_assert(A.causal || !is_online,
                  "linnet::attention::routing: grouping::online is for causal models");
    using groups = linnet::detail::online_groups<A, Window, 1>;
    /// Most queries, or keys, of a group.
    static constexpr index widest = is_online ? 2 * Window : Window;
    static constexpr bool shares = A.causal;
    using projections = linnet::detail::attention_projections<A, shares>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           kv = projections::kv, h = A.d_kv;
    static constexpr index group = A.heads / A.kv_heads;
    /// Number of heads of the keys, and their width.
    static constexpr index key_heads = shares ? A.heads : A.kv_heads, keys = key_heads * h;

    template <class Form>
    struct params : projections::template params<Form> {
      typename Form::vector centroids{};  ///< [heads * Clusters, h]
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
      f(at / "centroids",
        tensor_info{A.heads * Clusters, h, role::moving_average, 1 / linnet::detail::sqrt(h)},
        p.centroids...);
    }

    template <class T>
    struct cache {
      typename projections::template buffers<T>
          b{};  ///< q and k of unit length; shared ones are the same
      typename groups::template cache<T> past{};     ///< of a session
      T *q_lengths = nullptr, *k_lengths = nullptr;  ///< 1 / |q| [rows, heads], 1 / |k|
      std::int32_t* queries =
          nullptr;                   ///< [batch, heads, members] tokens of each cluster, in order
      std::int32_t* keys = nullptr;  ///< likewise
      std::int32_t* nearest = nullptr;  ///< [batch, heads, length] where they are online
      T* share = nullptr;               ///< [batch, heads, length] 1 / clusters of each query
      T* scratch = nullptr;             ///< per thread
      std::int32_t* order = nullptr;    ///< [order_size] per thread
      index scratch_size = 0, order_size = 0, most = 0;
      index members = 0;  ///< Clusters * Window, or the length where they are online
      bool training = false;
      int dropout_id = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), tokens = e.rows() * A.heads;
      const bool cached = e.capacity > 0;
      c.dropout_id = m.dropout_ids++;
      c.training = e.training;
      c.most = (std::min)(widest, e.length);
      c.members = is_online ? e.length : Clusters * Window;
      c.b = projections::template plan<T>(m, e);
      c.q_lengths = m.saved.take<T>(tokens);
      if (is_online || cached) c.nearest = m.saved.take<std::int32_t>(tokens);
      if (cached) c.past = groups::template plan<T>(m, e, Clusters);
      if (!cached) {
        c.queries = m.saved.take<std::int32_t>(e.batch * A.heads * c.members);
        c.order_size = (std::max)(e.length, Clusters);
        c.order = m.scratch.take<std::int32_t>(c.order_size * e.threads);
        if (!is_online) c.share = m.saved.take<T>(tokens);
      }
      if (shares) {
        c.b.k = c.b.q;
        c.b.dk = c.b.dq;
        c.k_lengths = c.q_lengths;
        c.keys = c.queries;
      } else {
        c.k_lengths = m.saved.take<T>(e.rows() * key_heads);
        c.keys = m.saved.take<std::int32_t>(e.batch * A.heads * c.members);
      }
      c.scratch_size = cached ? Clusters
                              : (std::max)({ops::attention_tile<T>::size(c.most, h, e.training),
                                            e.length, Clusters});
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      const index rows = x.rows();
      projections::template project<T, S>(p, x, c.b, ctx);
      linnet::detail::unit_heads(ctx.on, rows * A.heads, h, c.b.q, c.b.q, c.q_lengths);
      if constexpr (!shares)
        linnet::detail::unit_heads(ctx.on, rows * A.kv_heads, h, c.b.k, c.b.k, c.k_lengths);
      if (ctx.past)
        groups::template run<true>(
            c.past, ctx, c.b.q, c.b.k, c.b.v, scale<T>,
            [&](index item) { return follow(p.centroids, c, ctx, item); }, c.b.mixed);
      else
        mix(p.centroids, c, ctx);
      projections::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      const index rows = x.rows();
      projections::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [&](index i) { return at.share(i, c, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, c), true);
          T* const slopes = tile.slopes(i);
          K::template softmax_backward<T>(tile.keys(), tile.row(i), slopes, slopes);
          if constexpr (A.relative) {
            T* const line = ctx.bias.d_of(at.b, A.heads, at.head) - at.token(i);
            for (index j = 0; j < tile.keys(); ++j) line[at.keys[j]] += slopes[j];
          }
        }
        tile.end_backward(kernels, at.rows, scale<T>);
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.dq + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
        if (at.last)
          for (index j = 0; j < tile.keys(); ++j) {
            T* const dk = c.b.dk + at.key(j, ctx);
            T* const dv = c.b.dv + at.value(j, ctx);
            K::template add<T>(h, dk, tile.dk(j), dk);
            K::template add<T>(h, dv, tile.dv(j), dv);
          }
      });
      gather(p.centroids, dp.centroids, c, ctx);
      linnet::detail::unit_heads_backward(ctx.on, rows * A.heads, h, c.b.q, c.q_lengths, c.b.dq,
                                          c.b.dq, false);
      if constexpr (!shares)
        linnet::detail::unit_heads_backward(ctx.on, rows * A.kv_heads, h, c.b.k, c.k_lengths,
                                            c.b.dk, c.b.dk, false);
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Numbers that a session keeps of each sequence of up to `tokens` tokens: keys, values, and
    /// two for each head. Each head has one for each cluster, too.
    static constexpr index state_values(index tokens) {
      return groups::state_values(tokens, Clusters);
    }
    /// Copies the decoding state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      groups::copy_state(c.past, from, to, part);
    }
    static constexpr index flops(const call_shape& e) {
      const index window = (std::min)(Window, e.length);
      return projections::flops(e) + 4 * e.batch * Clusters * window * window * n +
             (shares ? 2 : 4) * e.rows() * Clusters * n;
    }

   private:
    /// Length of queries and of keys, sqrt(h); their product is divided by sqrt(h).
    template <class T>
    static constexpr T scale = T(linnet::detail::sqrt(h));

    /// Computes `mixed` from q, k and v of whole sequences.
    template <class T>
    static void mix(const T* centroids, cache<T>& c, const context<T>& ctx) {
      choose(centroids, c, ctx);
      ops::fill(ctx.on, ctx.rows() * n, T(0), c.b.mixed);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        for (index i = 0; i < at.rows; ++i)
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, c), false);
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i) {
          const T share = at.share(i, c, ctx);
          T* const to = c.b.mixed + at.query(i, ctx);
          for (index j = 0; j < h; ++j) to[j] += share * tile.out(i)[j];
        }
      });
    }

    /// A block of queries of one cluster of one head, and its keys.
    template <class T>
    struct block {
      index b, head, first, asked, answers;  ///< first: number of its first query
      const std::int32_t *queries, *keys;    ///< tokens
      index i0 = 0, rows = 0;
      bool last = false;  ///< no further queries meet these keys
      index token(index i) const { return queries[i0 + i]; }
      /// Where query i, key j and value j start in their rows.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i)) * n + head * h;
      }
      index key(index j, const context<T>& ctx) const {
        return (b * ctx.length + keys[j]) * layer::keys + head * key_heads / A.heads * h;
      }
      index value(index j, const context<T>& ctx) const {
        return (b * ctx.length + keys[j]) * kv + head / group * h;
      }
      /// The share of query i's output that this cluster contributes.
      T share(index i, const cache<T>& c, const context<T>& ctx) const {
        return is_online ? T(1) : c.share[(b * A.heads + head) * ctx.length + token(i)];
      }
      /// Index of query i's first score, for dropout.
      index first_score(index i, const cache<T>& c) const {
        return (head * c.members + first + i0 + i) * widest;
      }
    };
    /// Number of the first centroid of a head that x[h] points most to. It is -1 where a product is
    /// not finite.
    template <class T>
    static index nearest(const T* centroids, index head, const T* x, const cache<T>& c,
                         const context<T>& ctx) {
      T* const along = c.scratch + ctx.on.threads.rank() * c.scratch_size;
      ctx.on.with_kernels([&](auto kernels) {
        decltype(kernels)::template dots<T>(Clusters, h, T(1), x, centroids + head * Clusters * h,
                                            h, along);
      });
      if (!finite(along, Clusters)) return -1;
      return std::max_element(along, along + Clusters) - along;
    }
    template <class T>
    static bool finite(const T* x, index count) {
      return std::all_of(x, x + count, [](T value) { return is_finite(value); });
    }
    /// The nearest centroids of the tokens of item = (sequence, head). The query of a token that
    /// has none becomes NaN, so that the output shows it.
    template <class T>
    static const std::int32_t* follow(const T* centroids, const cache<T>& c, const context<T>& ctx,
                                      index item) {
      const index b = item / A.heads, head = item % A.heads;
      std::int32_t* const to = c.nearest + item * ctx.length;
      for (index t = 0; t < ctx.length_of(b); ++t) {
        T* const q = c.b.q + (b * ctx.length + t) * n + head * h;
        const index which = nearest(centroids, head, q, c, ctx);
        if (which < 0) std::fill_n(q, h, std::numeric_limits<T>::quiet_NaN());
        to[t] = static_cast<std::int32_t>((std::max)(which, index{0}));
      }
      return to;
    }
    /// Tokens that each centroid takes, and the number of clusters that each query is in.
    template <class T>
    static void choose(const T* centroids, cache<T>& c, const context<T>& ctx) {
      if constexpr (is_online) {
        ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
          ops::sort_by_bucket(
              ctx.length_of(item / A.heads), Clusters, follow(centroids, c, ctx, item),
              c.order + ctx.on.threads.rank() * c.order_size, c.queries + item * c.members);
        });
        return;
      }
      ctx.on.threads.each(ctx.batch * A.heads * Clusters, [&](index item) {
        const index b = item / (A.heads * Clusters), which = item % (A.heads * Clusters),
                    head = which / Clusters, row = b * ctx.length;
        const T* const centroid = centroids + which * h;
        take(centroid, c.b.q + row * n + head * h, n, c.queries + item * Window, c, ctx, b);
        if constexpr (!shares)
          take(centroid, c.b.k + row * kv + head / group * h, kv, c.keys + item * Window, c, ctx,
               b);
      });
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index window = (std::min)(Window, ctx.length_of(item / A.heads));
        T* const share = c.share + item * ctx.length;
        std::fill_n(share, ctx.length, T(0));
        for (index k = 0; k < Clusters; ++k) {
          // Tokens of a centroid that is no number show it.
          const bool usable = finite(centroids + (item % A.heads * Clusters + k) * h, h);
          const T one = usable ? T(1) : std::numeric_limits<T>::quiet_NaN();
          for (index i = 0; i < window; ++i)
            share[c.queries[(item * Clusters + k) * Window + i]] += one;
        }
        for (index t = 0; t < ctx.length; ++t)
          if (share[t] > T(0)) share[t] = T(1) / share[t];
      });
    }
    /// The valid rows of x, `stride` apart, that point most like the centroid, in order.
    template <class T>
    static void take(const T* centroid, const T* x, index stride, std::int32_t* to,
                     const cache<T>& c, const context<T>& ctx, index b) {
      const index valid = ctx.length_of(b), window = (std::min)(Window, valid);
      const int rank = ctx.on.threads.rank();
      T* const along = c.scratch + rank * c.scratch_size;
      std::int32_t* const order = c.order + rank * c.order_size;
      ctx.on.with_kernels([&](auto kernels) {
        decltype(kernels)::template dots<T>(valid, h, T(1), centroid, x, stride, along);
      });
      for (index t = 0; t < valid; ++t) {
        order[t] = static_cast<std::int32_t>(t);
        // No order holds what is not finite: it comes first, so that it does not get lost.
        if (!is_finite(along[t])) along[t] = (std::numeric_limits<T>::max)();
      }
      std::nth_element(order, order + window - 1, order + valid,
                       [&](std::int32_t i, std::int32_t j) {
                         return along[i] != along[j] ? along[i] > along[j] : i < j;
                       });
      std::sort(order, order + window);
      std::copy_n(order, window, to);
    }
    /// Calls f(kernels, tile, block) for all blocks of queries, with their probabilities in the
    /// tile. Heads that share values come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        const index b = item / A.kv_heads, g = item % A.kv_heads;
        ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                    c.training);
        for (index head = g * group; head < (g + 1) * group; ++head)
          each_group(c, ctx, b, head, [&](block<T> at) {
            ctx.on.with_kernels([&](auto kernels) { run_group(kernels, c, ctx, tile, at, f); });
          });
      });
    }
    /// Calls f(block) for the groups of one head: clusters, or chunks of them where the chunk
    /// before is seen too.
    template <class T, class F>
    static void each_group(const cache<T>& c, const context<T>& ctx, index b, index head, F&& f) {
      const index valid = ctx.length_of(b), item = b * A.heads + head;
      const std::int32_t* const asking = c.queries + item * c.members;
      const std::int32_t* const asked = c.keys + item * c.members;
      if constexpr (is_online) {
        ops::each_bucket_chunk(valid, Window, c.nearest + item * ctx.length, asking,
                               [&](index first, index last, index before) {
                                 f(block<T>{b, head, first, last - first, last - first + before,
                                            asking + first, asking + first - before});
                               });
      } else {
        const index window = (std::min)(Window, valid);
        for (index first = 0; first < c.members; first += Window)
          f(block<T>{b, head, first, window, window, asking + first, asked + first});
      }
    }
    template <class Kernels, class T, class F>
    static void run_group(Kernels kernels, const cache<T>& c, const context<T>& ctx,
                          ops::attention_tile<T>& tile, block<T>& at, F&& f) {
      const index head = at.head, before = at.answers - at.asked;
      tile.load_keys(
          at.answers, [&](index j) { return c.b.k + at.key(j, ctx); },
          [&](index j) { return c.b.v + at.value(j, ctx); });
      for (index i0 = 0; i0 < at.asked; i0 += ops::attention_rows) {
        at.i0 = i0;
        at.rows = (std::min)(ops::attention_rows, at.asked - i0);
        at.last = i0 + at.rows == at.asked;
        tile.score(kernels, at.rows, scale<T>, [&](index i) { return c.b.q + at.query(i, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          T* const row = tile.row(i);
          if constexpr (A.relative) {
            const T* const line = ctx.bias.of(head) - at.token(i);
            for (index j = 0; j < tile.keys(); ++j) row[j] += line[at.keys[j]];
          }
          // Sorted and shared, the keys up to the query itself come first.
          const index seen = A.causal ? before + i0 + i + 1 : tile.keys();
          Kernels::template softmax<T>(seen, row);
          std::fill(row + seen, row + tile.keys(), T(0));
        }
        f(kernels, tile, std::as_const(at));
      }
    }
    /// Adds each query and key to the sum that its nearest centroid follows; samples that skip the
    /// layer add nothing.
    template <class T>
    static void gather(const T* centroids, T* sums, const cache<T>& c, const context<T>& ctx) {
      ctx.on.threads.each(A.heads, [&](index head) {
        const auto add_nearest = [&](const T* x) {
          const index which = (std::max)(nearest(centroids, head, x, c, ctx), index{0});
          T* const to = sums + (head * Clusters + which) * h;
          for (index i = 0; i < h; ++i) to[i] += x[i];
        };
        for (index b = 0; b < ctx.batch; ++b)
          for (index t = 0; !ctx.skips(b) && t < ctx.length_of(b); ++t) {
            add_nearest(c.b.q + (b * ctx.length + t) * n + head * h);
            if constexpr (!shares)
              add_nearest(c.b.k + (b * ctx.length + t) * kv + head / group * h);
          }
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
