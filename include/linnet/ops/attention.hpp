// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Softmax attention, forward and backward, in blocks of query rows (Vaswani et al. 2017, eq.
/// 1). Keys come in tiles (Milakov and Gimelshein 2018; Dao et al. 2022), so that no more than
/// attention_rows by attention_keys scores, and those of a window's first keys, are ever held. Keys
/// and values are read as they are stored.

#include <linnet/ops/attention_unit.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {

/// One tile of keys for `heads` heads of a block of queries: adds to their output what is seen
/// there. `so_far` has an entry for each row, or for each head of a single one; `more` tells that
/// the output has something of other tiles.
template <class T, class Code>
void attend_tile(const attention_unit<T, Code>& u,
                 const typename attention_unit<T, Code>::block& some, index head, index heads,
                 online_softmax<T>* so_far, bool more) {
  const attention_call<T, Code>& call = u.call;
  const index h = call.h, row = some.row;
  const bool direct = u.direct(some);
  T* const out = call.out + (u.b * call.queries + u.origin + row) * u.n + head * h;
  u.score(head, heads, some);
  for (index i = 0; i < (direct ? heads : some.rows); ++i) {
    T* const p = u.scores + i * u.wide;
    const index used = u.open(direct ? head + i : head, some, direct ? 0 : i, p);
    const T kept = some.rows == 1 ? u.template normalize<false>(used, so_far[i], p)
                                  : u.normalize(used, so_far[i], p);
    if (more && kept != T(1)) u.kernels.scale(h, kept, out + i * (direct ? h : u.n));
    if (direct) u.drop(head + i, some, p);
  }
  if (!direct) u.drop(head, some, u.scores);
  for (const auto& s : some) {
    if (s.first == s.last) continue;
    T* const p = u.scores + s.column;
    if (direct) {
      if constexpr (!only_decoded<Code>) {
        u.rescale(s, u.value, call.v, heads, p);
        u.kernels.mix(s.first, s.last, h, p, u.value, out, more,
                      {u.groups, call.v.slot, heads / u.groups, u.wide, h});
      }
    } else {
      const T* v = u.values + s.column * h;
      index ldv = h;
      if constexpr (std::is_same_v<T, Code>)
        if (call.v.plain()) v = u.value.row(s.first), ldv = u.value.stride;
      const auto begin_of = [&](index i) {
        return &s == some.part ? s.first : u.begin_of(row + i);
      };
      const index shared =
          begin_of(some.rows - 1) > s.first
              ? 0
              : (std::max)((call.tree.parents ? u.past : u.end_of(row)) - s.first, index{0});
      const detail::value_mix<T> mix{
          some.rows, h, s.last - s.first, shared, p, u.wide, v, ldv, out, u.n, more};
      mix.run(u.kernels, [&](index i, index j) {
        return s.first + j >= begin_of(i) && u.sees(row + i, s.first + j);
      });
    }
    more = true;
  }
}

/// Attention of the queries of one unit.
template <class T, class Code>
void attend(const attention_unit<T, Code>& u) {
  const attention_call<T, Code>& call = u.call;
  const index group = call.heads / call.kv_heads, h = call.h, end = (u.g + u.groups) * group;
  typename attention_unit<T, Code>::tile_keys prepared;
  for (index row = 0, rows = 0; row < u.count; row += rows)
    for (index head = u.g * group, heads = 0; head < end; head += heads) {
      const auto all = u.from(row, head, end);
      rows = all.rows, heads = all.heads;
      const index together = u.direct(all.part[0]) ? heads : 1;
      online_softmax<T> so_far[attention_pairs * attention_rows];
      bool more[attention_pairs] = {};
      u.each_tile(all, [&](const auto& tile) {
        for (index i = 0; i < all.blocks; ++i) {
          const auto some = u.within(all.part[i], tile);
          if (some.part[0].last == 0 && some.part[1].first == some.part[1].last) continue;
          u.prepare(some, tile, nullptr, prepared);
          for (index k = 0; k < heads; k += together)
            attend_tile(u, some, head + k, together, so_far + all.place(i, k), more[i]);
          more[i] = true;
        }
      });
      for (index i = 0; i < all.blocks; ++i) {
        const auto& some = all.part[i];
        T* const out = call.out + (u.b * call.queries + u.origin + some.row) * u.n + head * h;
        for (index r = 0; r < some.rows && !more[i]; ++r)
          std::fill_n(out + r * u.n, heads * h, T(0));
        for (index k = 0; k < heads && more[i] && some.rows == 1; ++k)
          if (const T sum = so_far[all.place(i, k)].sum; sum != T(0))  // else it saw no key
            u.kernels.scale(h, T(1) / sum, out + k * h);
      }
    }
}

}  // namespace detail

/// out = softmax(scale q k^T + bias) v over the keys in each query's window. Every query must see a
/// key. What attention_call::skips() is 0.
template <class T, class Code>
void attention(const execution& on, const attention_call<T, Code>& call) {
  const index group = call.heads / call.kv_heads;
  const auto [first, last] = on.threads.range(call.batch * call.kv_heads);
  for (index item = first, groups = 1; item < last; item += groups) {
    if (call.skips(item)) {
      std::fill_n(call.out + item * group * call.h, group * call.h, T(0));
      groups = 1;
      continue;
    }
    // One query reads the keys and values of all heads together, as they lie in memory.
    if (call.queries == 1 && !only_decoded<Code> && group < attention_rows)
      groups =
          (std::min)({last - item, call.kv_heads - item % call.kv_heads, attention_rows / group});
    for (index i = 1; i < groups; ++i)
      if (call.skips(item + i)) groups = i;
    for (index from = 0; from < call.queries;) {
      const detail::attention_unit<T, Code> u(on, call, item, groups, from);
      detail::attend(u);
      from += u.count;
    }
  }
  on.threads.wait();
}

namespace detail {

/// Memory and sums of the derivative of a block of queries.
template <class T>
struct attention_slopes {
  T *value_columns, *d_scores, *dropped;
  T *dk, *dv;                 ///< of key and value 0 of the unit
  online_softmax<T>* so_far;  ///< of each row
  T* inner;                   ///< of each row: the sum of probability times derivative
};

/// The probabilities of a block of queries among the keys of a tile, in u.scores, and their
/// derivatives, in to.d_scores. If `sums` is true, so_far and inner go on with this tile. If not,
/// they are those of all tiles.
template <class T>
void probabilities_of_tile(const execution& on, const attention_unit<T, T>& u,
                           const attention_gradient<T>& grad,
                           const typename attention_unit<T, T>::block& some, index head, bool sums,
                           const attention_slopes<T>& to) {
  const index rows = some.rows, wide = u.wide, h = u.call.h;
  const T* const d_out = grad.d_out + (u.b * u.call.queries + u.origin + some.row) * u.n + head * h;
  T factor[attention_rows];
  index used[attention_rows];
  u.score(head, 1, some);
  for (index i = 0; i < rows; ++i) {
    T* const p = u.scores + i * wide;
    used[i] = u.open(head, some, i, p);
    factor[i] = T(1);
    if (sums) {
      factor[i] = u.normalize(used[i], to.so_far[i], p);
    } else if (used[i] > 0) {
      (void)u.kernels.exp_sum(used[i], to.so_far[i].most, p);
      u.kernels.scale(used[i], T(1) / to.so_far[i].sum, p);
    }
  }
  // dP = d_out v^T
  std::fill_n(to.d_scores, rows * wide, T(0));
  for (const auto& s : some)
    u.kernels.multiply(rows, round_up(s.last - s.first, panel_width), h, {d_out, u.n, 1},
                       {to.value_columns + s.column, wide, panel_width}, to.d_scores + s.column,
                       wide, {}, 0);
  u.drop(head, some, to.d_scores);
  for (index i = 0; i < rows && sums; ++i)
    on.with_kernels([&](auto kernels) {
      to.inner[i] = linnet::detail::unfused(factor[i] * to.inner[i]) +
                    kernels.template dot<T>(some.used, u.scores + i * wide, to.d_scores + i * wide);
    });
}

/// Adds what a block of queries has for the gradients of the keys of a tile, and of itself.
template <class T>
void attend_tile_backward(const execution& on, const attention_unit<T, T>& u,
                          const attention_gradient<T>& grad,
                          const typename attention_unit<T, T>::block& some, index head,
                          const attention_slopes<T>& to) {
  const attention_call<T>& call = u.call;
  const index h = call.h, wide = u.wide, rows = some.rows,
              at = (u.b * call.queries + u.origin + some.row) * u.n + head * h;
  const T* const d_out = grad.d_out + at;
  // dv += P^T d_out
  std::copy_n(u.scores, rows * wide, to.dropped);
  u.drop(head, some, to.dropped);
  for (const auto& s : some)
    u.kernels.multiply(s.last - s.first, h, rows, {to.dropped + s.column, 1, wide},
                       {d_out, u.n, panel_width}, to.dv + s.first * u.value.stride, u.value.stride,
                       {nullptr, T(1), true}, 0);
  for (index i = 0; i < rows; ++i) {
    T* const d_row = to.d_scores + i * wide;
    // Where the row sees nothing its probabilities are zero, and so is this.
    on.with_kernels([&](auto kernels) {
      kernels.template softmax_backward<T>(some.used, to.inner[i], u.scores + i * wide, d_row,
                                           d_row);
    });
    for (const auto& s : some)
      if (grad.d_bias) {
        T* const line = u.bias_line(grad.d_bias + u.b * call.heads * (2 * call.bias_origin + 1),
                                    head, some, s, i);
        const index count = (std::min)(s.last, u.end_of(some.row + i)) - s.first;
        if (count > 0) u.kernels.add(count, line + s.first, d_row + s.column, line + s.first);
      }
  }
  // dq += scale dS k, dk += scale dS^T q
  for (const auto& s : some) {
    const index keys = s.last - s.first;
    T* const dq = &s == some.part && call.q_first ? grad.dq_first : grad.dq;
    u.kernels.multiply(rows, h, keys, {to.d_scores + s.column, wide, 1},
                       {u.key.row(s.first), u.key.stride, panel_width}, dq + at, u.n,
                       {nullptr, call.scale, true}, 0);
    u.kernels.multiply(keys, h, rows, {to.d_scores + s.column, 1, wide},
                       {u.queries(some, s) + at, u.n, panel_width}, to.dk + s.first * u.key.stride,
                       u.key.stride, {nullptr, call.scale, true}, 0);
  }
}

/// The derivative of attend(). Of several tiles of keys, a first pass finds each row's sums,
/// and a second one the probabilities (Dao et al. 2022, algorithm 4).
template <class T>
void attend_backward(const execution& on, const attention_unit<T, T>& u,
                     const attention_gradient<T>& grad) {
  const index group = u.call.heads / u.call.kv_heads, end = (u.g + 1) * group;
  typename attention_unit<T, T>::tile_keys prepared;
  for (index row = 0, rows = 0; row < u.count; row += rows)
    for (index head = u.g * group, heads = 0; head < end; head += heads) {
      const auto all = u.from(row, head, end);
      rows = all.rows, heads = all.heads;
      online_softmax<T> so_far[attention_pairs * attention_rows];
      T inner[attention_pairs * attention_rows] = {};
      index tiles = 0;
      u.each_tile(all, [&](const auto&) { ++tiles; });
      for (int pass = tiles > 1 ? 0 : 1; pass < 2; ++pass)
        u.each_tile(all, [&](const auto& tile) {
          for (index i = 0; i < all.blocks; ++i) {
            const auto some = u.within(all.part[i], tile);
            if (some.part[0].last == 0 && some.part[1].first == some.part[1].last) continue;
            T* const d_scores = u.values + u.call.h * u.wide;
            for (index k = 0; k < heads; ++k) {
              const index pair = all.place(i, k);
              const attention_slopes<T> to{u.values,
                                           d_scores,
                                           d_scores + attention_rows * u.wide,
                                           grad.dk + (u.key.data - u.call.k.data),
                                           grad.dv + (u.value.data - u.call.v.data),
                                           so_far + pair,
                                           inner + pair};
              u.prepare(some, tile, to.value_columns, prepared);
              probabilities_of_tile(on, u, grad, some, head + k, pass == 0 || tiles == 1, to);
              if (pass == 1) attend_tile_backward(on, u, grad, some, head + k, to);
            }
          }
        });
    }
}

}  // namespace detail

/// The derivative of attention(): adds to dq, dk, dv and d_bias. Probabilities are recomputed.
template <class T>
void attention_backward(const execution& on, const attention_call<T>& call,
                        const attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    for (index from = 0; from < call.queries;) {
      const detail::attention_unit<T, T> u(on, call, item, 1, from);
      detail::attend_backward(on, u, grad);
      from += u.count;
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
