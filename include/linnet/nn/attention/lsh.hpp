// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Reformer's attention: tokens of similar direction, found by hashing, attend to each other.

#include <linnet/nn/attention/grouping.hpp>
#include <linnet/ops/attention_tile.hpp>
#include <linnet/ops/buckets.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Tokens that a query of lsh sees in its chunk and the one before.
enum class reach {
  chunks,  ///< all of them, as the paper's code does
  bucket   ///< those of its own bucket
};

/// Locality-sensitive hashing attention with shared queries and keys (Kitaev et al. 2020), k = q /
/// |q| and scores q.k without a further 1/sqrt(h). In each of `Rounds` rounds, tokens are sorted by
/// bucket = argmax [q R; -q R], then by position, and cut into chunks of `Bucket`. R is normal and
/// fixed by `Seed` and the layer. More than 64 buckets are numbered by the digits of several such
/// hashes. A token sees its chunk and the one before (the last, for the first), itself only if
/// nothing else. One softmax covers all rounds: exactly that of the rounds weighted by their
/// normalizers, where a key met in several rounds counts once. Buckets and order are constants in
/// backward. A sequence of t valid tokens has 2 ceil(t / (2 Bucket)) buckets, or b^k of k digits
/// that are as many at least. It has ceil(t / Bucket) chunks, of which the last may be short. Up to
/// Bucket tokens make one chunk, and no hash is needed. Padding is not sorted. A token is compared
/// with the values of each digit, so that hashing costs T n b k operations in each round, b <= 64.
/// A causal model sees no later token, but which earlier ones it sees depends on all tokens.
/// Outputs of a prefix differ from those of the prefix alone.
///
/// A session therefore goes by grouping::online. In each round, a token sees those before it in its
/// bucket, back to the start of the chunk of `Bucket` before its own. It has the buckets of the
/// longest text that it was planned for, and so has training with grouping::online. As long as a
/// bucket has no more than Bucket tokens, these are the tokens that reach::bucket sees in training.
/// `reach::chunks` sees neighbours of other buckets too. Of the pairs that 1,024 random tokens make
/// with 8 rounds of 64, a session has 64 % (of clustered ones 67 %) and hardly another. Of those of
/// reach::bucket it has 99 %. With grouping::online a model trains as it decodes.
template <index Bucket = 64, index Rounds = 8, reach Reach = reach::chunks, std::uint64_t Seed = 0,
          grouping Grouping = grouping::whole>
struct lsh : policy {
  static_assert(Bucket > 0 && Rounds > 0,
                "linnet::attention::lsh<Bucket, Rounds>: both must be positive");
  /// The online variant: it trains as this kind decodes.
  using online = lsh<Bucket, Rounds, Reach, Seed, grouping::online>;
  static constexpr bool is_online = Grouping == grouping::online;
  static constexpr bool bidirectional = !is_online, can_truncate = true,
                        noncausal_grouping = !is_online;
  using kind = lsh;
  static std::string name() {
    return "lsh<" + std::to_string(Bucket) + ", " + std::to_string(Rounds) +
           (Reach == reach::bucket ? ", bucket" : "") +
           (Seed != 0 ? ", seed " + std::to_string(Seed) : "") + (is_online ? ", frozen" : "") +
           ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::lsh: queries are keys, so it mixes the tokens of one "
                  "sequence; cross-attention is attention::full's");
    static_assert(A.causal || !is_online,
                  "linnet::attention::lsh: grouping::online is for causal models");
    using groups = linnet::detail::online_groups<A, Bucket, Rounds>;
    using projections = linnet::detail::attention_projections<A, true>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           kv = projections::kv, h = A.d_kv;
    static constexpr index group = A.heads / A.kv_heads;

    template <class Form>
    using params = typename projections::template params<Form>;
    template <class F, class... P>
    LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
    }

    /// Value of `ready` once the rotations are filled in; memory that holds it by chance is
    /// unlikely.
    static constexpr index filled = 0x726f7461746564;
    template <class T>
    struct cache {
      typename projections::template buffers<T> b{};
      typename groups::template cache<T> past{};  ///< of a session
      T* lengths = nullptr;                       ///< [rows, heads] 1 / |q|
      T *largest = nullptr, *sum = nullptr;  ///< [batch, heads, length] of each query's softmax
      std::int32_t* order = nullptr;         ///< [batch, heads, Rounds, length] tokens, sorted
      std::int32_t* chunk = nullptr;         ///< [batch, heads, length, Rounds]: each token's chunk
      std::int32_t* bucket = nullptr;        ///< the same size: each token's bucket
      T* rotations = nullptr;                ///< [heads, Rounds, h, wide], filled in once
      index* ready = nullptr;                ///< `filled` when they are
      std::int32_t* counts = nullptr;        ///< per thread
      T* scratch = nullptr;                  ///< per thread
      index scratch_size = 0, wide = 0, most = 0, buckets = 0;
      index longest = 0;  ///< tokens of the longest text that was planned for
      bool training = false;
      int dropout_id = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), sorted = e.batch * A.heads * Rounds * e.length;
      const bool cached = e.capacity > 0;
      c.dropout_id = m.dropout_ids++;
      c.training = e.training;
      c.most = (std::min)(2 * Bucket, e.length);
      c.longest = (std::max)(e.length, e.capacity);
      const auto hashes = ops::bucket_digits::of(c.longest, Bucket);
      c.wide = round_up((std::max)(hashes.most_columns(), index{1}), ops::panel_width);
      c.buckets = hashes.buckets();
      c.b = projections::template plan<T>(m, e);
      c.b.k = m.saved.take<T>(e.rows() * n);
      if (e.training) c.b.dk = m.scratch.take<T>(e.rows() * n);
      c.lengths = m.saved.take<T>(e.rows() * A.heads);
      c.bucket = m.saved.take<std::int32_t>(sorted);
      if (cached) {
        c.past = groups::template plan<T>(m, e, c.buckets);
      } else {
        c.largest = m.saved.take<T>(e.rows() * A.heads);
        c.sum = m.saved.take<T>(e.rows() * A.heads);
        c.order = m.saved.take<std::int32_t>(sorted);
        c.chunk = m.saved.take<std::int32_t>(sorted);
        c.counts = m.scratch.take<std::int32_t>(e.threads * c.buckets);
      }
      c.rotations = m.state.take<T>(A.heads * Rounds * h * c.wide);
      c.ready = m.state.take<index>(1);
      c.scratch_size = (std::max)(cached ? 0 : ops::attention_tile<T>::size(c.most, h, e.training),
                                  ops::attention_rows * c.wide);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      projections::template project<T, S>(p, x, c.b, ctx);
      linnet::detail::unit_heads(ctx.on, x.rows() * A.heads, h, c.b.q, c.b.k, c.lengths);
      rotations(c, ctx);
      if (ctx.past)
        groups::template run<false>(
            c.past, ctx, c.b.q, c.b.k, c.b.v, T(1),
            [&](index item) { return hash(c, ctx, item, c.longest); }, c.b.mixed);
      else
        mix(c, ctx);
      projections::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      projections::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      ops::fill(ctx.on, x.rows() * n, T(0), c.b.dk);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        for (index i = 0; i < at.rows; ++i) {
          const index query = at.statistics(i, ctx);
          (void)exponentials(kernels, tile, at, i, c.largest[query]);
          K::template scale<T>(tile.keys(), T(1) / c.sum[query], tile.row(i));
        }
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [](index) { return T(1); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, ctx), true);
          // The sum over all rounds of probability times derivative is the output times its own.
          const index query = at.query(i, ctx), t = at.token(i);
          const T all = K::template dot<T>(h, c.b.mixed + query, c.b.d_mixed + query);
          T* const slopes = tile.slopes(i);
          for (index j = 0; j < tile.keys(); ++j)
            slopes[j] = at.key_token(j) == t ? T(0) : tile.row(i)[j] * (slopes[j] - all);
          if constexpr (A.relative) {
            T* const line = ctx.bias.d_of(at.b, A.heads, at.head) - t;
            for (index j = 0; j < tile.keys(); ++j) line[at.key_token(j)] += slopes[j];
          }
        }
        tile.end_backward(kernels, at.rows, T(1));
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.dq + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
        if (at.last)
          for (index j = 0; j < tile.keys(); ++j) {
            const index row = at.b * ctx.length + at.key_token(j);
            T* const dk = c.b.dk + row * n + at.head * h;
            T* const dv = c.b.dv + row * kv + at.head / group * h;
            K::template add<T>(h, dk, tile.dk(j), dk);
            K::template add<T>(h, dv, tile.dv(j), dv);
          }
      });
      linnet::detail::unit_heads_backward(ctx.on, x.rows() * A.heads, h, c.b.k, c.lengths, c.b.dk,
                                          c.b.dq, true);
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Numbers that a session keeps of each sequence of up to `tokens` tokens: keys, values, and
    /// two for each head and round. Each of these has one for each bucket, too.
    static constexpr index state_values(index tokens) {
      return groups::state_values(tokens, ops::bucket_count(tokens, Bucket));
    }
    /// Copies the decoding state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      groups::copy_state(c.past, from, to, part);
    }
    static constexpr index flops(const call_shape& e) {
      const auto hashes = ops::bucket_digits::of(e.length, Bucket);
      return projections::flops(e) + 4 * e.rows() * (std::min)(e.length, 2 * Bucket) * n * Rounds +
             e.rows() * n * 2 * hashes.columns() * Rounds;
    }

   private:
    /// Score of a token with itself: chosen only where there is no other token, yet finite.
    template <class T>
    static constexpr T alone = T(-5e4);

    /// Computes `mixed` from q, k and v of whole sequences.
    template <class T>
    static void mix(cache<T>& c, const context<T>& ctx) {
      sort(c, ctx);
      const index rows = ctx.rows();
      ops::fill(ctx.on, rows * n, T(0), c.b.mixed);
      ops::fill(ctx.on, rows * A.heads, ops::hidden_score<T>, c.largest);
      ops::fill(ctx.on, rows * A.heads, T(0), c.sum);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        for (index i = 0; i < at.rows; ++i) {
          const index query = at.statistics(i, ctx);
          const T before = c.largest[query];
          const T largest = (std::max)(before, K::template maximum<T>(tile.keys(), tile.row(i)));
          const T shrink = std::exp(before - largest);
          c.largest[query] = largest;
          c.sum[query] = shrink * c.sum[query] + exponentials(kernels, tile, at, i, largest);
          K::template scale<T>(h, shrink, c.b.mixed + at.query(i, ctx));
          tile.drop(kernels, ctx.dropout, at.b, c.dropout_id, i, at.first_score(i, ctx), false);
        }
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.mixed + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
      });
      each_head(ctx, [&](index b, index t, index head) {
        const T s = T(1) / c.sum[(b * A.heads + head) * ctx.length + t];
        T* const to = c.b.mixed + (b * ctx.length + t) * n + head * h;
        for (index i = 0; i < h; ++i) to[i] *= s;
      });
    }

    /// A block of queries of one chunk of one head in one round, and its keys.
    template <class T>
    struct block {
      index b, head, round, rows, own, before;
      const std::int32_t *queries, *chunk, *previous;  ///< tokens
      bool last;  ///< no further queries meet these keys in this round
      index token(index i) const { return queries[i]; }
      index key_token(index j) const { return j < before ? previous[j] : chunk[j - before]; }
      /// Where query i starts in rows of n values.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i)) * n + head * h;
      }
      /// Index of query i among the softmax's statistics.
      index statistics(index i, const context<T>& ctx) const {
        return (b * A.heads + head) * ctx.length + token(i);
      }
      /// Index of query i's first score, for dropout.
      index first_score(index i, const context<T>& ctx) const {
        return ((head * Rounds + round) * ctx.length + token(i)) * 2 * Bucket;
      }
    };
    /// exp(score - shift) in place of query i's scores; returns their sum. Frozen keys stand in the
    /// order of their tokens: what comes behind the query itself, and how much, changes no bit.
    template <class Kernels, class T>
    static T exponentials(Kernels, ops::attention_tile<T>& tile, const block<T>& at, index i,
                          T shift) {
      const index keys = tile.keys();
      const index seen = is_online ? at.before + (at.queries - at.chunk) + i + 1 : keys;
      std::fill(tile.row(i) + seen, tile.row(i) + keys, T(0));
      return Kernels::template exp_sum<T>(seen, shift, tile.row(i));
    }
    /// Calls f(b, token, head) for all heads of valid tokens.
    template <class T, class F>
    static void each_head(const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.rows() * A.heads, [&](index i) {
        const index row = i / A.heads, b = row / ctx.length, t = row % ctx.length;
        if (t < ctx.length_of(b)) f(b, t, i % A.heads);
      });
    }
    /// Fills in the rotations, once.
    template <class T>
    static void rotations(cache<T>& c, const context<T>& ctx) {
      if (*c.ready == filled) return;
      ctx.on.threads.each(A.heads * Rounds, [&](index i) {
        ops::fill_rotation(seed{Seed}, (ctx.stack.layer * A.heads * Rounds + i), h, c.wide,
                           c.rotations + i * h * c.wide);
      });
      ctx.on.threads.once([&] { *c.ready = filled; });
    }
    /// The buckets of the tokens of item = (sequence, head, round), among those for `tokens`.
    template <class T>
    static const std::int32_t* hash(const cache<T>& c, const context<T>& ctx, index item,
                                    index tokens) {
      const index b = item / (A.heads * Rounds), head = item / Rounds % A.heads;
      const auto hashes = ops::bucket_digits::of(tokens, Bucket);
      std::int32_t* const bucket = c.bucket + item * ctx.length;
      ctx.on.with_kernels([&](auto kernels) {
        ops::hash_rows(kernels, ctx.length_of(b), h, c.b.q + b * ctx.length * n + head * h, n,
                       {c.rotations + item % (A.heads * Rounds) * h * c.wide, c.wide, hashes.base,
                        c.scratch + ctx.on.threads.rank() * c.scratch_size, hashes.digits},
                       bucket);
      });
      return bucket;
    }
    /// Hashes and sorts the tokens of every sequence, head and round, and numbers the chunks. With
    /// online grouping the chunk before has the number before.
    template <class T>
    static void sort(const cache<T>& c, const context<T>& ctx) {
      const int rank = ctx.on.threads.rank();
      ctx.on.threads.each(ctx.batch * A.heads * Rounds, [&](index item) {
        const index valid = ctx.length_of(item / (A.heads * Rounds));
        // How long a text will be no session knows.
        const index planned = is_online ? c.longest : valid;
        const std::int32_t* const bucket = hash(c, ctx, item, planned);
        std::int32_t* const order = c.order + item * ctx.length;
        std::int32_t* const chunk = c.chunk + item / Rounds * Rounds * ctx.length + item % Rounds;
        ops::sort_by_bucket(valid, ops::bucket_count(planned, Bucket), bucket,
                            c.counts + rank * c.buckets, order);
        std::int32_t number = -1;
        each_chunk(valid, bucket, order, [&](index first, index own, index, index before) {
          number += is_online && before == 0 ? 2 : 1;
          for (index i = first; i < first + own; ++i) chunk[order[i] * Rounds] = number;
        });
      });
    }
    /// Calls f(first, own, previous, before) for the chunks of one head in one round. Places
    /// [first, first + own) of the order are the chunk, [previous, previous + before) the chunk
    /// before.
    template <class F>
    static void each_chunk(index valid, [[maybe_unused]] const std::int32_t* bucket,
                           [[maybe_unused]] const std::int32_t* order, F&& f) {
      if constexpr (is_online) {
        ops::each_bucket_chunk(valid, Bucket, bucket, order,
                               [&](index first, index last, index before) {
                                 f(first, last - first, first - before, before);
                               });
      } else {
        const index chunks = (valid + Bucket - 1) / Bucket;
        const auto count = [&](index u) { return (std::min)(Bucket, valid - u * Bucket); };
        for (index u = 0; u < chunks; ++u) {
          const index previous = ops::chunk_before(u, chunks);
          f(u * Bucket, count(u), previous * Bucket, chunks > 1 ? count(previous) : index{0});
        }
      }
    }
    /// Calls f(kernels, tile, block) for all blocks of queries, with their scores in the tile.
    /// Heads that share values come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      T discount[std::size_t{Rounds + 1}] = {};
      for (index r = 2; r <= Rounds; ++r) discount[r] = std::log(static_cast<T>(r));
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        const index b = item / A.kv_heads, valid = ctx.length_of(b);
        ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                    c.training);
        for (index head = item % A.kv_heads * group; head < (item % A.kv_heads + 1) * group; ++head)
          for (index round = 0; round < Rounds; ++round) {
            const index sorted = ((b * A.heads + head) * Rounds + round) * ctx.length;
            const std::int32_t* const order = c.order + sorted;
            each_chunk(valid, c.bucket + sorted, order,
                       [&](index first, index own, index previous, index before) {
                         block<T> at{b,
                                     head,
                                     round,
                                     0,
                                     own,
                                     before,
                                     order + first,
                                     order + first,
                                     order + previous,
                                     false};
                         ctx.on.with_kernels([&](auto kernels) {
                           run_chunk(kernels, c, ctx, tile, at, discount, f);
                         });
                       });
          }
      });
    }
    template <class Kernels, class T, class F>
    static void run_chunk(Kernels kernels, const cache<T>& c, const context<T>& ctx,
                          ops::attention_tile<T>& tile, block<T>& at, const T* discount, F&& f) {
      const index b = at.b, head = at.head, valid = ctx.length_of(b),
                  all = (b * A.heads + head) * Rounds * ctx.length;
      tile.load_keys(
          at.own + at.before,
          [&](index j) { return c.b.k + (b * ctx.length + at.key_token(j)) * n + head * h; },
          [&](index j) {
            return c.b.v + (b * ctx.length + at.key_token(j)) * kv + head / group * h;
          });
      for (index i0 = 0; i0 < at.own; i0 += ops::attention_rows) {
        at.queries = at.chunk + i0;
        at.rows = (std::min)(ops::attention_rows, at.own - i0);
        at.last = i0 + at.rows == at.own;
        tile.score(kernels, at.rows, T(1), [&](index i) { return c.b.q + at.query(i, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          const index t = at.token(i);
          const sight visible(c, all, t, (valid + Bucket - 1) / Bucket);
          for (index j = 0; j < tile.keys(); ++j) {
            T& score = tile.row(i)[j];
            const index key = at.key_token(j);
            if ((A.causal && key > t) ||
                (Reach == reach::bucket && order_bucket(c, ctx, all, at.round, key) !=
                                               order_bucket(c, ctx, all, at.round, t)))
              score = ops::hidden_score<T>;
            else if (key == t)
              score = alone<T>;
            else
              score += bias(ctx, head, key - t) - discount[meetings(visible, c, ctx, all, t, key)];
          }
        }
        f(kernels, tile, std::as_const(at));
      }
    }
    template <class T>
    static T bias(const context<T>& ctx, index head, index distance) {
      if constexpr (A.relative)
        return ctx.bias.of(head)[distance];
      else
        return T(0);
    }
    template <class T>
    static index order_bucket(const cache<T>& c, const context<T>& ctx, index all, index round,
                              index token) {
      return c.bucket[all + round * ctx.length + token];
    }
    /// The chunks that a token sees in each round.
    struct sight {
      std::int32_t mine[std::size_t{Rounds}], before[std::size_t{Rounds}];
      template <class T>
      sight(const cache<T>& c, index all, index t, index chunks) {
        for (index r = 0; r < Rounds; ++r) {
          mine[r] = c.chunk[all + t * Rounds + r];
          before[r] = is_online ? mine[r] - 1
                                : static_cast<std::int32_t>(ops::chunk_before(mine[r], chunks));
        }
      }
    };
    /// Number of rounds in which token `t` sees `key`.
    template <class T>
    static index meetings(const sight& visible, const cache<T>& c, const context<T>& ctx, index all,
                          index t, index key) {
      if constexpr (Rounds == 1) return 1;
      const std::int32_t* const chunk = c.chunk + all + key * Rounds;
      std::int32_t times = 0;
      for (index r = 0; r < Rounds; ++r) {
        std::int32_t meets = (chunk[r] == visible.mine[r]) | (chunk[r] == visible.before[r]);
        if constexpr (Reach == reach::bucket)
          meets &= order_bucket(c, ctx, all, r, t) == order_bucket(c, ctx, all, r, key);
        times += meets;
      }
      return times;
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
