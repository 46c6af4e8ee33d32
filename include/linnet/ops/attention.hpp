#pragma once
/// @file
/// Softmax attention, forward and backward, in blocks of query rows (zoo D1). No matrix of all
/// queries by all keys is ever held.

#include <linnet/ops/dropout.hpp>
#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Query rows that are worked on at a time.
inline constexpr index attention_rows = 48;

/// One attention call: q[batch, queries, heads*h] against k, v[batch, keys, kv_heads*h].
template <class T>
struct attention_call {
  index batch, queries, keys;  ///< padded lengths; `keys` also strides from sequence to sequence
  index heads, kv_heads, h;
  bool causal;  ///< key j is visible to query i if j <= past + i
  T scale;      ///< of the scores
  const T *q, *k, *v;
  T* out;                              ///< [batch, queries, heads*h]
  const index* past = nullptr;         ///< position of each sequence's first query, or null for 0
  const index* key_lengths = nullptr;  ///< valid keys of each sequence, or null for all
  const T* bias = nullptr;  ///< lines [heads, 2*bias_origin + 1], by key position - query position
  index bias_origin = 0;
  T* scratch = nullptr;  ///< per thread, attention_scratch() values
  index scratch_size = 0;
  dropout_key dropout{};
  int site = 0;
};

/// Gradients of an attention call; everything is added to.
template <class T>
struct attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
  T* d_bias = nullptr;  ///< lines per sequence [batch, heads, 2*bias_origin + 1], or null
};

/// Scratch values that one thread needs.
constexpr index attention_scratch(index keys, index h, bool training) {
  const index wide = round_up(keys, panel_width);
  return (training ? 3 : 1) * attention_rows * wide + (training ? 2 : 1) * h * wide;
}

namespace detail {

/// Everything about one (sequence, key-value head) that both directions share.
template <class T>
struct attention_unit {
  const attention_call<T>& call;
  index b, g, n, kv, valid, past, wide;
  T *scores, *key_columns;

  attention_unit(const attention_call<T>& c, index unit, int rank)
      : call(c),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        n(c.heads * c.h),
        kv(c.kv_heads * c.h),
        valid(c.key_lengths ? c.key_lengths[b] : c.keys),
        past(c.past ? c.past[b] : 0),
        wide(round_up(c.keys, panel_width)),
        scores(c.scratch + rank * c.scratch_size),
        key_columns(scores + attention_rows * wide) {
    if (call.causal) valid = (std::min)(valid, past + call.queries);
  }

  const T* key() const { return call.k + b * call.keys * kv + g * call.h; }
  const T* value() const { return call.v + b * call.keys * kv + g * call.h; }
  /// Keys that query i sees.
  index visible(index i) const { return call.causal ? (std::min)(valid, past + i + 1) : valid; }
  /// columns[h, wide] = x[valid, h]^T with stride kv, zero behind the valid ones.
  void transpose(const T* x, T* columns) const {
    for (index c = 0; c < call.h; ++c) {
      for (index j = 0; j < valid; ++j) columns[c * wide + j] = x[j * kv + c];
      for (index j = valid; j < wide; ++j) columns[c * wide + j] = T(0);
    }
  }
  /// scores[rows, wide] of query rows [i0, i0 + rows) of a head; returns the visible width.
  template <class Kernels>
  index biased_scores(Kernels, index head, index i0, index rows) const {
    const index seen = visible(i0 + rows - 1);
    const T* const q = call.q + (b * call.queries + i0) * n + head * call.h;
    if (rows == 1) {
      Kernels::template dots<T>(seen, call.h, call.scale, q, key(), kv, scores);
    } else {
      Kernels::template multiply<T>(rows, round_up(seen, panel_width), call.h, {q, n, 1},
                                    {key_columns, wide, panel_width}, scores, wide,
                                    {nullptr, call.scale, false});
    }
    if (call.bias)
      for (index i = 0; i < rows; ++i) {
        T* const row = scores + i * wide;
        const T* const line =
            call.bias + head * (2 * call.bias_origin + 1) + call.bias_origin - (past + i0 + i);
        Kernels::template add<T>(visible(i0 + i), row, line, row);
      }
    return seen;
  }
  /// scores[rows, wide] = softmax of query rows [i0, i0 + rows) of a head; returns the visible
  /// width.
  template <class Kernels>
  index probabilities(Kernels kernels, index head, index i0, index rows) const {
    const index seen = biased_scores(kernels, head, i0, rows);
    for (index i = 0; i < rows; ++i) {
      T* const row = scores + i * wide;
      const index count = visible(i0 + i);
      Kernels::template softmax<T>(count, row);
      std::fill(row + count, row + seen, T(0));
    }
    return seen;
  }
  /// Multiplies rows of probabilities, or of their gradient, with the dropout mask.
  void drop(index head, index i0, index rows, index seen, T* x) const {
    if (call.dropout.rate <= 0) return;
    for (index i = 0; i < rows; ++i)
      dropout_multipliers<T>(call.dropout, b, call.site, (head * call.queries + i0 + i) * call.keys,
                             seen, [&](index j, T multiplier) { x[i * wide + j] *= multiplier; });
  }
};

}  // namespace detail

/// out = softmax(scale q k^T + bias) v, with causal and padding masks. Every query must see a key.
template <class T>
void attention(const machine& on, const attention_call<T>& call) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T> u(call, item, on.threads.rank());
      if (call.queries > 1) u.transpose(u.key(), u.key_columns);
      const index group = call.heads / call.kv_heads;
      for (index head = u.g * group; head < (u.g + 1) * group; ++head)
        for (index i0 = 0; i0 < call.queries; i0 += attention_rows) {
          const index rows = (std::min)(attention_rows, call.queries - i0);
          T* const out = call.out + (u.b * call.queries + i0) * u.n + head * call.h;
          if (rows == 1) {  // the sum of the probabilities divides the result instead of them
            const index seen = u.biased_scores(kernels, head, i0, 1);
            const T sum =
                K::template exp_sum<T>(seen, K::template maximum<T>(seen, u.scores), u.scores);
            u.drop(head, i0, 1, seen, u.scores);
            K::template mix<T>(seen, call.h, u.scores, u.value(), u.kv, out);
            K::template scale<T>(call.h, T(1) / sum, out);
            continue;
          }
          const index seen = u.probabilities(kernels, head, i0, rows);
          u.drop(head, i0, rows, seen, u.scores);
          K::template multiply<T>(rows, call.h, seen, {u.scores, u.wide, 1},
                                  {u.value(), u.kv, panel_width}, out, u.n, {});
        }
    });
  });
}

/// The derivative of attention(): adds to dq, dk, dv and d_bias. Probabilities are recomputed.
template <class T>
void attention_backward(const machine& on, const attention_call<T>& call,
                        const attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T> u(call, item, on.threads.rank());
      T* const value_columns = u.key_columns + call.h * u.wide;
      T* const d_scores = value_columns + call.h * u.wide;
      T* const dropped = d_scores + attention_rows * u.wide;
      u.transpose(u.key(), u.key_columns);
      u.transpose(u.value(), value_columns);
      T* const dk = grad.dk + (u.key() - call.k);
      T* const dv = grad.dv + (u.value() - call.v);
      const index group = call.heads / call.kv_heads;
      for (index head = u.g * group; head < (u.g + 1) * group; ++head)
        for (index i0 = 0; i0 < call.queries; i0 += attention_rows) {
          const index rows = (std::min)(attention_rows, call.queries - i0);
          const index seen = u.probabilities(kernels, head, i0, rows);
          const index at = (u.b * call.queries + i0) * u.n + head * call.h;
          std::copy_n(u.scores, rows * u.wide, dropped);
          u.drop(head, i0, rows, seen, dropped);
          // dv += P^T d_out, dP = d_out v^T
          K::template multiply<T>(seen, call.h, rows, {dropped, 1, u.wide},
                                  {grad.d_out + at, u.n, panel_width}, dv, u.kv,
                                  {nullptr, T(1), true});
          K::template multiply<T>(rows, round_up(seen, panel_width), call.h,
                                  {grad.d_out + at, u.n, 1}, {value_columns, u.wide, panel_width},
                                  d_scores, u.wide, {});
          u.drop(head, i0, rows, seen, d_scores);
          for (index i = 0; i < rows; ++i) {
            T* const row = d_scores + i * u.wide;
            const index count = u.visible(i0 + i);
            K::template softmax_backward<T>(count, u.scores + i * u.wide, row, row);
            std::fill(row + count, row + seen, T(0));
            if (grad.d_bias) {
              T* const line = grad.d_bias + (u.b * call.heads + head) * (2 * call.bias_origin + 1) +
                              call.bias_origin - (u.past + i0 + i);
              K::template add<T>(count, line, row, line);
            }
          }
          // dq += scale dS k, dk += scale dS^T q
          K::template multiply<T>(rows, call.h, seen, {d_scores, u.wide, 1},
                                  {u.key(), u.kv, panel_width}, grad.dq + at, u.n,
                                  {nullptr, call.scale, true});
          K::template multiply<T>(seen, call.h, rows, {d_scores, 1, u.wide},
                                  {call.q + at, u.n, panel_width}, dk, u.kv,
                                  {nullptr, call.scale, true});
        }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
