// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Decoding for attention that groups tokens by content: groups that only grow.

#include <algorithm>
#include <cstdint>
#include <utility>

#include <linnet/nn/attention/unit_rows.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Grouping of tokens in attention by content (lsh, routing): by the whole sequence, or online.
///
/// The papers group a whole sequence at once, so that in a causal model too, later tokens decide
/// which earlier ones meet. A session cannot know later tokens. It decides where a token belongs
/// once, when the token comes, from the token itself and those before it. Tokens of one bucket, or
/// nearest to one centroid, are counted off in chunks as they come. A token meets those of its
/// chunk and of the chunk before in its bucket. Where a sequence is split into calls makes no
/// difference but rounding (of which a token as near to two buckets may take either).
enum class grouping {
  whole,  ///< the whole sequence does, as published; sessions go by `online`
  online  ///< a token and those before it do, in training as in sessions: nothing differs
};

}  // namespace attention

namespace detail {

/// The buckets of one text in one grouping, in chunks of `size`. A bucket's tokens are counted off
/// as they come, so that it passes no place of a text twice. A text takes at most its length times
/// the buckets.
struct bucket_chain {
  index size, buckets;
  std::int32_t* member;  ///< [capacity] bucket * size + the token's place in its chunk
  std::int32_t* before;  ///< [capacity] the token before in the bucket, or -1
  std::int32_t* last;  ///< [buckets] each one's last token, or -1; then how many tokens have joined

  /// Numbers of `last`.
  static constexpr index last_size(index buckets) { return buckets + 1; }
  /// Tokens past, past + 1, ... join their buckets. Those behind `past` that had joined are gone.
  void join(index past, index count, const std::int32_t* bucket) const {
    if (past == 0 || last[buckets] > past) take_back(*this, past);
    for (index t = past; t < past + count; ++t) {
      std::int32_t& newest = last[bucket[t - past]];
      const auto first = static_cast<std::int32_t>(bucket[t - past] * size);
      const index place = newest < 0 ? 0 : (member[newest] - first + 1) % size;
      member[t] = first + static_cast<std::int32_t>(place);
      before[t] = std::exchange(newest, static_cast<std::int32_t>(t));
    }
    last[buckets] = static_cast<std::int32_t>(past + count);
  }
  /// Goes on where `from` is behind its first `past` tokens. This has them already, but for the
  /// last token of each bucket.
  void take_back(const bucket_chain& from, index past) const {
    for (index i = 0; i < buckets; ++i) {
      std::int32_t newest = past == 0 ? -1 : from.last[i];
      while (newest >= past) newest = from.before[newest];
      last[i] = newest;
    }
    last[buckets] = static_cast<std::int32_t>(past);
  }
};

/// Cached tokens of a session in `Rounds` groupings, in chunks of `Size`. It holds their keys, one
/// per query head, their values and their groups.
template <attention_shape A, index Size, index Rounds>
struct online_groups {
  static constexpr index h = A.d_kv, n = A.n(), group = A.heads / A.kv_heads;

  template <class T>
  struct cache {
    typename pick_kv_buffer<T, A.cache, A.heads, h, true>::type keys{};
    typename pick_kv_buffer<T, A.cache, A.kv_heads, h, false>::type values{};
    std::int32_t* member = nullptr;  ///< [batch, heads, Rounds, capacity]: bucket * Size + the
                                     ///< token's place in its chunk
    std::int32_t* before = nullptr;  ///< the same size: the token before in the bucket, or -1
    std::int32_t* last = nullptr;    ///< [batch, heads, Rounds, buckets + 1], see bucket_chain
    std::int32_t* met = nullptr;     ///< [most] per thread
    T* scratch = nullptr;            ///< [most, 2 h + 1] per thread
    index capacity = 0, most = 0, buckets = 0;

    /// The buckets of item = (sequence, head, round).
    bucket_chain chain(index item) const {
      return {Size, buckets, member + item * capacity, before + item * capacity,
              last + item * bucket_chain::last_size(buckets)};
    }
  };
  /// Plans the buffers of texts in so many buckets; the caller releases the scratch memory.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e, index buckets) {
    cache<T> c;
    c.capacity = e.capacity;
    c.buckets = buckets;
    c.most = (std::min)(e.capacity, Rounds * (2 * Size - 1) + 1);
    c.keys.plan(m.state, e.batch, e.capacity, 0, e.capacity, e.blocks);
    c.values.plan(m.state, e.batch, e.capacity, 0, e.capacity, e.blocks);
    c.member = m.state.take<std::int32_t>(e.batch * A.heads * Rounds * e.capacity);
    c.before = m.state.take<std::int32_t>(e.batch * A.heads * Rounds * e.capacity);
    c.last =
        m.state.take<std::int32_t>(e.batch * A.heads * Rounds * bucket_chain::last_size(buckets));
    c.met = m.scratch.take<std::int32_t>(c.most * e.threads);
    c.scratch = m.scratch.take<T>(c.most * (2 * h + 1) * e.threads);
    return c;
  }
  static constexpr index state_values(index tokens, index buckets) {
    return tokens * (n + A.kv() + 2 * A.heads * Rounds) +
           A.heads * Rounds * bucket_chain::last_size(buckets);
  }
  /// Nothing kept of a token ever changes. So the last tokens can be taken back, and sequences need
  /// not copy tokens that both begin with. The last tokens of all buckets are found anew.
  template <class T>
  static void copy_state(const cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) {
      c.keys.copy_block(from, to);
      c.values.copy_block(from, to);
      return;
    }
    c.keys.copy(from, to, part.first, part.tokens);
    c.values.copy(from, to, part.first, part.tokens);
    constexpr index all = A.heads * Rounds;
    for (index i = 0; i < all; ++i) {
      for (std::int32_t* const x : {c.member, c.before})
        std::copy(x + (from * all + i) * c.capacity + part.first,
                  x + (from * all + i) * c.capacity + part.tokens,
                  x + (to * all + i) * c.capacity + part.first);
      c.chain(to * all + i).take_back(c.chain(from * all + i), part.tokens);
    }
  }

  /// mixed[rows, n] = softmax(scale q k^T + bias) v over the tokens that each new token meets in
  /// some round. With `Self` it meets itself, else only if it meets nobody else. k[rows, n];
  /// `hash(item)` returns the buckets of the new tokens of item = (sequence, head, round).
  template <bool Self, class T, class Hash>
  static void run(const cache<T>& c, const context<T>& ctx, const T* q, const T* k, const T* v,
                  T scale, Hash&& hash, T* mixed) {
    keep_tokens(c.keys, c.values, ctx, ctx.length, false, k, v);
    ctx.on.threads.each(ctx.batch * A.heads * Rounds, [&](index item) {
      const index b = item / (A.heads * Rounds);
      c.chain(item).join(ctx.past[b], ctx.length_of(b), hash(item));
    });
    const auto keys = key_rows(c.keys, ctx, k, ctx.length, ctx.past);
    const auto values = c.values.rows(ctx.pages);
    ctx.on.threads.each(ctx.rows() * A.heads, [&](index item) {
      const index row = item / A.heads, head = item % A.heads, b = row / ctx.length,
                  t = ctx.past[b] + row % ctx.length, at = row * n + head * h;
      const int rank = ctx.on.threads.rank();
      std::int32_t* const met = c.met + rank * c.most;
      T* const k_met = c.scratch + rank * c.most * (2 * h + 1);
      T* const v_met = k_met + c.most * h;
      T* const p = v_met + c.most * h;
      if (row % ctx.length >= ctx.length_of(b)) {
        std::fill_n(mixed + at, h, T(0));
        return;
      }
      const index count = meet<Self>(c, (b * A.heads + head) * Rounds * c.capacity, t, met);
      for (index j = 0; j < count; ++j) {
        keys.load(b, head, met[j], keys.of(b, head).place(met[j]), h, k_met + j * h, 1,
                  t / ops::token_block);
        values.load(b, head / group, met[j], values.of(b, head / group).place(met[j]), h,
                    v_met + j * h, 1, -1);
      }
      ctx.on.with_kernels([&](auto kernels) {
        using K = decltype(kernels);
        K::template dots<T>(count, h, scale, q + at, k_met, h, p);
        if constexpr (A.relative)
          for (index j = 0; j < count; ++j) p[j] += ctx.bias.of(head)[met[j] - t];
        K::template softmax<T>(count, p);
        K::template mix<T>(count, h, p, v_met, h, mixed + at);
      });
    });
    keep_newest(c.keys, keys, ctx);
  }

 private:
  /// Lists the tokens that token `t` meets in some round, each once, the newest first.
  template <bool Self, class T>
  static index meet(const cache<T>& c, index at, index t, std::int32_t* met) {
    std::int32_t next[std::size_t{Rounds}];
    index left[std::size_t{Rounds}], count = 0;
    for (index r = 0; r < Rounds; ++r) {
      next[r] = c.before[at + r * c.capacity + t];
      left[r] = c.member[at + r * c.capacity + t] % Size + Size;
    }
    if (Self) met[count++] = static_cast<std::int32_t>(t);
    for (;;) {
      const std::int32_t last = *std::max_element(next, next + Rounds);
      if (last < 0) break;
      met[count++] = last;
      for (index r = 0; r < Rounds; ++r)
        if (next[r] == last) next[r] = --left[r] > 0 ? c.before[at + r * c.capacity + last] : -1;
    }
    if (count == 0) met[count++] = static_cast<std::int32_t>(t);
    return count;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
