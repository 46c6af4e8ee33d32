// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Softmax attention, forward and backward, in blocks of query rows (Vaswani et al. 2017, eq.
/// 1). No matrix of all queries by all keys is ever held. Keys and values are read as they are
/// stored.

#include <linnet/ops/attention_unit.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {

/// Attention of the queries of one unit.
template <class T, class Code>
void attend(const attention_unit<T, Code>& u) {
  const attention_call<T, Code>& call = u.call;
  const index group = call.heads / call.kv_heads, h = call.h;
  for (index row = 0, rows = 0; row < u.count; row += rows) {
    const auto some = u.at(row);
    rows = some.rows;
    u.prepare(some, nullptr);
    const index together = u.direct(some) ? (std::min)(group * u.groups, attention_rows) : 1;
    const index end = (u.g + u.groups) * group;
    for (index head = u.g * group, heads = 0; head < end; head += heads) {
      heads = (std::min)(together, end - head);
      u.score(head, heads, some);
      T sums[attention_rows];
      for (index i = 0; i < heads; ++i) {
        T* const p = u.scores + i * u.wide;
        sums[i] = u.template normalize<false>(head + i, some, p);
        u.drop(head + i, some, p);
      }
      T* const out = call.out + (u.b * call.queries + u.origin + row) * u.n + head * h;
      bool more = false;
      for (const auto& s : some) {
        if (s.first == s.last) continue;
        T* const p = u.scores + s.column;
        if (u.direct(some)) {
          if constexpr (!std::is_same_v<Code, int4_code>) {
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
      if (!more)
        for (index i = 0; i < some.rows; ++i) std::fill_n(out + i * u.n, heads * h, T(0));
      else if (some.rows == 1)
        for (index i = 0; i < heads; ++i) u.kernels.scale(h, T(1) / sums[i], out + i * h);
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
    if (call.queries == 1 && !std::is_same_v<Code, int4_code> && group < attention_rows)
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

/// The derivative of attend().
template <class T>
void attend_backward(const execution& on, const attention_unit<T, T>& u,
                     const attention_gradient<T>& grad) {
  const attention_call<T>& call = u.call;
  const index group = call.heads / call.kv_heads, h = call.h, wide = u.wide;
  T* const value_columns = u.values;
  T* const d_scores = value_columns + h * wide;
  T* const dropped = d_scores + attention_rows * wide;
  T* const dk = grad.dk + (u.key.data - call.k.data);
  T* const dv = grad.dv + (u.value.data - call.v.data);
  for (index row = 0; row < u.count; row += attention_rows) {
    const auto some = u.at(row);
    u.prepare(some, value_columns);
    for (index head = u.g * group; head < (u.g + 1) * group; ++head) {
      u.score(head, 1, some);
      (void)u.normalize(head, some, u.scores);
      const index rows = some.rows, at = (u.b * call.queries + u.origin + row) * u.n + head * h;
      const T* const d_out = grad.d_out + at;
      std::copy_n(u.scores, rows * wide, dropped);
      u.drop(head, some, dropped);
      // dv += P^T d_out, dP = d_out v^T
      std::fill_n(d_scores, rows * wide, T(0));
      for (const auto& s : some) {
        const index keys = s.last - s.first;
        u.kernels.multiply(keys, h, rows, {dropped + s.column, 1, wide}, {d_out, u.n, panel_width},
                           dv + s.first * u.value.stride, u.value.stride, {nullptr, T(1), true}, 0);
        u.kernels.multiply(rows, round_up(keys, panel_width), h, {d_out, u.n, 1},
                           {value_columns + s.column, wide, panel_width}, d_scores + s.column, wide,
                           {}, 0);
      }
      u.drop(head, some, d_scores);
      for (index i = 0; i < rows; ++i) {
        T* const d_row = d_scores + i * wide;
        // Where the row sees nothing its probabilities are zero, and so is this.
        on.with_kernels([&](auto kernels) {
          kernels.template softmax_backward<T>(some.used, u.scores + i * wide, d_row, d_row);
        });
        for (const auto& s : some)
          if (grad.d_bias) {
            T* const line = u.bias_line(grad.d_bias + u.b * call.heads * (2 * call.bias_origin + 1),
                                        head, some, s, i);
            const index count = (std::min)(s.last, u.end_of(row + i)) - s.first;
            if (count > 0) u.kernels.add(count, line + s.first, d_row + s.column, line + s.first);
          }
      }
      // dq += scale dS k, dk += scale dS^T q
      for (const auto& s : some) {
        const index keys = s.last - s.first;
        T* const dq = &s == some.part && call.q_first ? grad.dq_first : grad.dq;
        u.kernels.multiply(rows, h, keys, {d_scores + s.column, wide, 1},
                           {u.key.row(s.first), u.key.stride, panel_width}, dq + at, u.n,
                           {nullptr, call.scale, true}, 0);
        u.kernels.multiply(keys, h, rows, {d_scores + s.column, 1, wide},
                           {u.queries(some, s) + at, u.n, panel_width}, dk + s.first * u.key.stride,
                           u.key.stride, {nullptr, call.scale, true}, 0);
      }
    }
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
