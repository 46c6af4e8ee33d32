// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The part of softmax attention that forward and backward share: which keys a block of query rows
/// sees, their scores and probabilities.

#include <algorithm>
#include <cmath>

#include <linnet/ops/attention_call.hpp>
#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {

/// The kernels of a level that attention calls. What calls them is compiled once for all levels.
template <class T, class Code>
struct attention_kernels {
  void (*multiply)(index M, index N, index K, const simd::rows_operand<T>& a,
                   const simd::columns_operand<T>& b, T* c, index ldc, const simd::epilogue<T>& e,
                   index slack);
  void (*dots)(index first, index last, index n, T scale, const T* x,
               const simd::token_rows<Code>& k, T* y, const simd::head_rows& heads);
  void (*mix)(index first, index last, index n, const T* p, const simd::token_rows<Code>& v, T* y,
              bool accumulate, const simd::head_rows& heads);
  bool (*all_finite)(index rows, index n, const T* x, index stride);
  void (*add)(index n, const T* a, const T* b, T* y);
  void (*scale)(index n, T a, T* x);
  T (*maximum)(index n, const T* x);
  T (*exp_sum)(index n, T most, T* x);
  void (*drop)(std::uint64_t stream, std::uint64_t where, simd::word limit, T scale, index first,
               index n, T* x, T* other);

  static attention_kernels of(simd::level level) {
    return simd::dispatch(level, [](auto kernels) {
      using K = decltype(kernels);
      attention_kernels k{K::template multiply<T>,
                          nullptr,
                          nullptr,
                          K::template all_finite<T>,
                          K::template add<T>,
                          K::template scale<T>,
                          K::template maximum<T>,
                          K::template exp_sum<T>,
                          K::template drop<T>};
      if constexpr (!only_decoded<Code>)
        k.dots = K::template dots<T, Code>, k.mix = K::template mix<T, Code>;
      return k;
    });
  }
};

LINNET_UNFUSED_BEGIN
/// y[n] += scale x[n]
template <class T>
LINNET_UNFUSED void add_multiple(index n, T scale, const T* x, T* y) {
  for (index i = 0; i < n; ++i) y[i] += scale * x[i];
}
LINNET_UNFUSED_END

/// A product out[rows, h] (+)= p[rows, keys] v[keys, h] of probabilities and values.
template <class T>
struct value_mix {
  index rows, h, keys;
  index shared;  ///< all rows see the keys before it
  const T* p;
  index ldp;
  const T* v;
  index ldv;
  T* out;
  index ldo;
  bool accumulate = false;

  /// Computes it. A row ignores keys that it does not see, even if they are not finite:
  /// sees(row, key) is false.
  template <class Kernels, class Sees>
  void run(const Kernels& kernels, Sees&& sees) const {
    const auto finite = [&](index j, index count) {
      return kernels.all_finite(count, h, v + j * ldv, ldv);
    };
    const bool clean = shared >= keys || finite(shared, keys - shared);
    bool add = accumulate;
    for (index from = 0, to = keys;; from = to + 1, add = true) {
      if (!clean)
        for (to = (std::max)(from, shared); to < keys && finite(to, 1);) ++to;
      kernels.multiply(rows, h, to - from, {p + from, ldp, 1}, {v + from * ldv, ldv, panel_width},
                       out, ldo, {nullptr, T(1), add}, 0);
      if (to == keys) return;
      for (index i = 0; i < rows; ++i)
        if (sees(i, to)) add_multiple(h, p[i * ldp + to], v + to * ldv, out + i * ldo);
    }
  }
};

/// Blocks of query rows, each of one head, that read a tile of keys while it is prepared.
inline constexpr index attention_pairs = 8;

/// A softmax whose scores come in tiles (Milakov and Gimelshein 2018): the largest score so far,
/// and the sum of all exp(score - most).
template <class T>
struct online_softmax {
  T most = T(0), sum = T(0);
};

/// Everything about a sequence and some of its key-value heads that both directions share.
template <class T, class Code>
struct attention_unit {
  /// Keys [first, last) whose scores begin at a column.
  struct stretch {
    index first = 0, last = 0, column = 0;
  };
  /// Some query rows of a head and what they see.
  struct block {
    index row, rows;  ///< queries [row, row + rows)
    index view;       ///< block of tokens that they see as given, where codes differ by that, or -1
    stretch part[2];  ///< the first keys and the near ones; without `first` only the latter
    index used;       ///< columns of scores

    const stretch* begin() const { return part; }
    const stretch* end() const { return part + 2; }
  };
  /// Query rows [row, row + rows) in blocks, and heads, that go through the tiles together.
  struct batch {
    index row, rows = 0, head, heads;
    index blocks = 0;
    block part[attention_pairs];
    /// Where the rows of block `i` and head `head + k` begin among those of all.
    index place(index i, index k) const {
      return (i * heads + k) * (blocks == 1 ? part[0].rows : attention_rows);
    }
  };
  /// Keys whose columns are prepared: the first ones and a tile of the near ones.
  struct tile_keys {
    stretch part[2]{};
    index view = -1;
  };

  const attention_call<T, Code>& call;
  attention_kernels<T, Code> kernels;
  index b, g, groups;   ///< sequence, first key-value head and how many that are read together
  index origin, count;  ///< queries [origin, origin + count) of it: a document, or all
  index key_origin;     ///< its first key
  index n, valid, past, prefix;
  index tile, wide;  ///< keys of a tile, columns of scores
  bool by_view;      ///< what a query sees of a key depends on the query's block of tokens
  simd::token_rows<Code> key, value;
  T *scores, *key_columns, *values;

  /// The `together` heads from head `unit` of all sequences on, of the document that begins at
  /// query `from`. Its tokens are numbered from 0, as if it were a sequence of its own.
  attention_unit(const execution& on, const attention_call<T, Code>& c, index unit,
                 index together = 1, index from = 0)
      : call(c),
        kernels(attention_kernels<T, Code>::of(on.level)),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        groups(together),
        origin(from),
        count(c.queries_from(b, from).last - from),
        key_origin(from),
        n(c.heads * c.h),
        valid((c.key_lengths ? c.key_lengths[b] : c.keys) - from),
        past(c.past ? c.past[b] : 0),
        prefix(c.prefix ? c.prefix[b] : 0),
        tile(c.window.splits(c.tile) ? c.tile : any_distance),
        wide(c.window.width(c.keys, (std::min)(c.queries, attention_rows), c.tile)),
        by_view(std::is_same_v<Code, int4_code> && c.past),
        key(c.k.of(b, g)),
        value(c.v.of(b, g)),
        scores(c.scratch + on.threads.rank() * c.scratch_size),
        key_columns(scores + attention_rows * wide),
        values(key_columns + c.h * wide) {
    // Keys behind the last valid query of a causal sequence were never there.
    const index queries = (c.query_lengths ? c.query_lengths[b] : c.queries) - from;
    const index later = call.window.block > 0 ? 0 : call.window.after;
    valid = (std::min)(valid, (std::max)(prefix, past + queries + later));
    if (!c.documents) return;
    const auto seen = c.keys_from(b, from);
    key_origin = seen.first;
    if (c.key_documents) valid = (c.key_lengths ? c.key_lengths[b] : c.keys) - key_origin;
    valid = (std::clamp)(valid, index{0}, seen.last - seen.first);
    key.data += key_origin * key.stride;
    value.data += key_origin * value.stride;
  }

  /// End of the keys that query i sees.
  index end_of(index i) const {
    return (std::min)(valid, (std::max)(prefix, call.window.end_of(past + i)));
  }
  /// Beginning of the keys that query i sees, not counting the `first` ones.
  index begin_of(index i) const { return call.window.begin_of(past + i); }
  /// Whether kernels read keys and values where they are: one query, codes that they know.
  bool direct(const block& some) const {
    return some.rows == 1 && !only_decoded<Code> && (!call.tree.parents || call.queries == 1);
  }
  /// Position of query i.
  index position_of(index i) const {
    return past + (call.tree.depths ? call.tree.depths[b * call.queries + i] : i);
  }
  /// Calls f(j) for each of the keys [past, past + i] of a tree that query i sees, or that it does
  /// not see. The last first.
  template <class F>
  void each_in_tree(index i, bool seen, F&& f) const {
    for (index j = i, next = i; j >= 0; --j) {
      const bool ancestor = j == next;
      if (ancestor) next = call.tree.parents[b * call.queries + j];
      if (ancestor == seen) f(past + j);
    }
  }
  /// Whether query i sees key j.
  bool sees(index i, index j) const {
    if (j >= end_of(i) || !call.tree.parents || j < past) return j < end_of(i);
    bool found = false;
    each_in_tree(i, true, [&](index seen) { found = found || seen == j; });
    return found;
  }
  block at(index row) const {
    const index first = call.window.first;
    block some{row, (std::min)(attention_rows, count - row), -1, {}, 0};
    if (by_view) {  // all of a block's queries have one view
      some.view = (std::max)(past + row, prefix - 1) / simd::token_block;
      some.rows = (std::min)(some.rows, (some.view + 1) * simd::token_block - past - row);
    }
    const index step = direct(some) ? 1 : panel_width, last = end_of(row + some.rows - 1);
    some.part[0].last = (std::min)(first, last);
    some.part[1] = {begin_of(row), last, round_up(some.part[0].last, step)};
    some.part[1].first = (std::min)(some.part[1].first, last);
    some.used = some.part[1].column + last - some.part[1].first;
    return some;
  }

  /// columns[h, wide] = rows of one stretch, transposed, zero behind them.
  void transpose(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
                 index view, T* columns) const {
    const index end = s.column + round_up(s.last - s.first, panel_width);
    for (index j = s.first; j < s.last; ++j)
      all.load(b, g, j, key_origin + rows.place(j), call.h, columns + s.column + j - s.first, wide,
               view);
    for (index c = 0; c < call.h; ++c)
      std::fill(columns + c * wide + s.column + s.last - s.first, columns + c * wide + end, T(0));
  }
  /// The blocks of query rows and the heads, up to `end`, that go through the tiles together. There
  /// is one block where keys never come in several tiles.
  batch from(index row, index head, index end) const {
    batch some{row, 0, head, 0, 0, {}};
    const block first = at(row);
    const index group = call.heads / call.kv_heads;
    some.heads = (std::min)(
        end - head, direct(first) ? (std::min)(group * groups, attention_rows) : attention_pairs);
    // As many for all heads of a group.
    const index most =
        tile == any_distance || group > attention_pairs ? 1 : attention_pairs / some.heads;
    do {
      const block next = at(row + some.rows);
      if (some.blocks > 0 && direct(next)) break;
      some.part[some.blocks++] = next;
      some.rows += next.rows;
    } while (!direct(first) && some.blocks < most && row + some.rows < count);
    return some;
  }
  /// Calls f(tile) for the tiles of keys that some blocks see. Tiles begin at multiples of `tile`,
  /// whatever lengths a call has.
  template <class F>
  void each_tile(const batch& some, F&& f) const {
    const block &first_block = some.part[0], &last_block = some.part[some.blocks - 1];
    const index first = last_block.part[0].last, low = first_block.part[1].first,
                high = last_block.part[1].last, begin = low / tile * tile;
    const index step = direct(first_block) ? 1 : panel_width;
    for (index from = first > 0 ? 0 : begin; from < (std::max)(first, high);
         from = (std::max)(from + tile, begin)) {
      tile_keys t;
      if (from == 0) t.part[0].last = first;
      t.part[1] = {(std::max)(low, from),
                   (std::min)(from + tile, call.window.bounded() ? high : valid),
                   round_up(t.part[0].last, step)};
      t.part[1].last = (std::max)(t.part[1].first, t.part[1].last);
      f(t);
    }
  }
  /// The keys of a tile that a block sees.
  static block within(const block& whole, const tile_keys& t) {
    block some = whole;
    some.part[0].last = (std::min)(whole.part[0].last, t.part[0].last);
    some.part[1] = t.part[1];
    some.part[1].last = (std::clamp)(whole.part[1].last, t.part[1].first, t.part[1].last);
    some.used = some.part[1].column + some.part[1].last - some.part[1].first;
    return some;
  }
  /// Prepares the keys of a tile for a block, unless they are; `now` tells which are prepared.
  void prepare(const block& some, const tile_keys& t, T* value_columns, tile_keys& now) const {
    if (direct(some) && !value_columns) return;
    bool same = true;
    for (int i = 0; i < 2; ++i)
      same = same && t.part[i].first == now.part[i].first && t.part[i].last == now.part[i].last &&
             t.part[i].column == now.part[i].column;
    const index older = (std::min)(now.view, some.view);
    if (same && now.view == some.view) return;
    now = t;
    now.view = some.view;
    for (const stretch& s : t.part) {
      if (s.first == s.last) continue;
      if (same) {  // the view has moved by some blocks
        const index known = (older - 1) * simd::token_block - s.first;
        const index skip =
            (std::clamp)(known, index{0}, s.last - s.first) / panel_width * panel_width;
        transpose({s.first + skip, s.last, s.column + skip}, key, call.k, some.view, key_columns);
        continue;
      }
      transpose(s, key, call.k, some.view, key_columns);
      if (value_columns) transpose(s, value, call.v, -1, value_columns);
      if (call.v.plain() && std::is_same_v<T, Code>) continue;
      for (index j = s.first; j < s.last; ++j)
        call.v.load(b, g, j, key_origin + value.place(j), call.h,
                    values + (s.column + j - s.first) * call.h, 1, -1);
    }
  }
  /// x[i] *= the scales of a stretch of codes, in the row of each of `heads` heads.
  void rescale(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
               index heads, T* x) const {
    for (index i = 0; i < heads && all.scales; ++i, x += wide)
      for (index j = s.first, at = g + i / (heads / groups); j < s.last; ++j)
        x[j - s.first] *= static_cast<T>(all.scale(b, rows.place(j), at));
  }

  /// The queries that a stretch of keys is compared with.
  const T* queries(const block& some, const stretch& s) const {
    return &s == some.part && call.q_first ? call.q_first : call.q;
  }
  /// scores[rows, wide] = scale q k^T of some query rows of a head. Of a single row that kernels
  /// read directly: a row for each of `heads` heads that follow each other.
  void score(index head, index heads, const block& some) const {
    const index q_at = (b * call.queries + origin + some.row) * n + head * call.h;
    for (const stretch& s : some) {
      if (s.first == s.last) continue;
      const T* const q = queries(some, s) + q_at;
      if (direct(some)) {
        if constexpr (!only_decoded<Code>) {
          kernels.dots(s.first, s.last, call.h, call.scale, q, key, scores + s.column,
                       {groups, call.k.slot, heads / groups, call.h, wide});
          rescale(s, key, call.k, heads, scores + s.column);
        }
      } else {
        kernels.multiply(some.rows, round_up(s.last - s.first, panel_width), call.h, {q, n, 1},
                         {key_columns + s.column, wide, panel_width}, scores + s.column, wide,
                         {nullptr, call.scale, false}, 0);
      }
    }
  }
  /// Adds position biases to the scores of row `i` of a block and hides those between what it sees.
  /// Returns how many columns are in use, 0 if it sees nothing; zero behind them.
  index open(index head, const block& some, index i, T* row) const {
    index used = 0;
    for (const stretch& s : some) {
      const index begin = &s == some.part ? s.first : begin_of(some.row + i);
      const index from = (std::clamp)(begin, s.first, s.last);
      const index to = (std::clamp)(end_of(some.row + i), from, s.last);
      const index at = s.column + from - s.first;
      if (to == from) continue;
      if (call.bias) {
        const T* const line = bias_line(call.bias, head, some, s, i);
        const index text = call.tree.parents ? (std::clamp)(past, from, to) : to;
        kernels.add(text - from, row + at, line + from, row + at);
        if (call.tree.parents) {  // ancestors stand at their depths
          index position = position_of(some.row + i);
          each_in_tree(some.row + i, true, [&](index j) {
            if (j >= from && j < to) row[s.column + j - s.first] += line[position];
            --position;
          });
        }
      }
      if (call.tree.parents)
        each_in_tree(some.row + i, false, [&](index j) {
          if (j >= from && j < to) row[s.column + j - s.first] = T(-1e30);
        });
      std::fill(row + used, row + (std::max)(used, at), T(-1e30));
      used = at + to - from;
    }
    std::fill(row + used, row + some.used, T(0));
    return used;
  }
  /// Turns the `used` first scores of a row into probabilities among these and all before; if not
  /// `Whole`, times the sum. Returns the factor of what was summed up before.
  template <bool Whole = true>
  T normalize(index used, online_softmax<T>& so_far, T* row) const {
    if (used == 0) return T(1);
    const online_softmax<T> before = so_far;
    so_far.most = kernels.maximum(used, row);
    T shrink = T(0);
    if (before.sum != T(0)) {
      so_far.most = (std::max)(before.most, so_far.most);
      shrink = static_cast<T>(
          linnet::detail::portable_exp(static_cast<double>(before.most - so_far.most)));
    }
    const T sum = kernels.exp_sum(used, so_far.most, row),
            old = linnet::detail::unfused(shrink * before.sum);
    so_far.sum = old + sum;
    if (!Whole) return shrink;
    kernels.scale(used, T(1) / so_far.sum, row);
    return old / so_far.sum;
  }
  /// Where key 0 is in the line of position biases of row `i` of a block. Padding behind a full
  /// cache has no place in the line and takes the last one.
  template <class Line>
  Line* bias_line(Line* lines, index head, const block& some, const stretch& s, index i) const {
    const index position = (std::min)(position_of(some.row + i), call.bias_origin);
    return lines + head * (2 * call.bias_origin + 1) + call.bias_origin -
           (&s == some.part ? (std::min)(position, call.kept - 1) : position);
  }
  /// Multiplies rows of probabilities, or of their gradient, with the dropout mask.
  void drop(index head, const block& some, T* x) const {
    for (index i = 0; i < some.rows; ++i)
      for (const stretch& s : some)
        ops::drop(kernels, call.dropout, b, call.dropout_id,
                  (head * call.queries + origin + some.row + i) * call.keys + key_origin + s.first,
                  s.last - s.first, x + i * wide + s.column);
  }
};

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
