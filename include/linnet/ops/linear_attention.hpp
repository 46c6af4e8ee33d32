// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Linear attention, forward and backward, in blocks of rows with a state between them
/// (Katharopoulos et al. 2020). No matrix of all queries by all keys is ever held.

#include <algorithm>

#include <linnet/ops/attention.hpp>
#include <linnet/ops/relative_bias.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Rows that are worked on at a time.
inline constexpr index linear_attention_rows = 64;
/// Added to the denominators.
inline constexpr double linear_attention_eps = 1e-6;

/// Blocks of rows that `length` tokens make.
constexpr index linear_attention_blocks(index length) {
  return (length + linear_attention_rows - 1) / linear_attention_rows;
}
/// Numbers of the state of one key-value head: S[h, h], the sum of f(k) v^T, then z[h], the sum of
/// f(k).
constexpr index linear_attention_state(index h) { return h * h + h; }
/// Scratch values that one thread needs.
constexpr index linear_attention_scratch(index length, index h, bool training) {
  const index rows = (std::min)(linear_attention_rows, length), wide = round_up(rows, panel_width);
  const index forward = 4 * rows * h + h * wide + rows * wide + linear_attention_state(h) + h;
  const index backward = 4 * rows * h + h * wide + rows + 3 * h * h + 2 * h;
  return forward + (training ? backward : 0);
}

/// One call: q[batch, length, heads*h] against k, v[batch, length, kv_heads*h].
template <class T>
struct linear_attention_call {
  index batch, length, heads, kv_heads, h;
  bool causal;  ///< token j is visible to token i if j <= i
  const T *q, *k, *v;
  T* out;                     ///< [batch, length, heads*h]; zero at padding
  T* denominators = nullptr;  ///< [batch, length, heads], for the backward pass
  T* boundaries = nullptr;    ///< [batch, kv_heads, blocks, state], the state before each block
                              ///< (bidirectional: one block, the whole sum), for the same
  T* state = nullptr;         ///< [batch, kv_heads, state] from call to call, with `past`
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence that the state has seen, or null
  rope_pairing pairing = rope_pairing::none;
  const T* rope = nullptr;  ///< cosines and sines [rope_positions, h]
  index rope_positions = index{1} << 48;
  const T* rope_beyond = nullptr;  ///< those of later positions, [batch, length, h]
  T* scratch = nullptr;            ///< per thread, linear_attention_scratch() values
  index scratch_size = 0;

  /// Blocks whose state is kept for the backward pass.
  index blocks() const { return causal ? linear_attention_blocks(length) : 1; }
};

/// Gradients of a call; dq, dk and dv are overwritten.
template <class T>
struct linear_attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
};

namespace detail {

/// Everything about one (sequence, key-value head) that both directions share.
template <class Map, class Kernels, class T>
struct linear_attention_unit {
  const linear_attention_call<T>& call;
  index b, g, h, n, kv, valid, past, rows_max, wide;
  T* next;  ///< scratch that is free
  T *fq, *fk, *rq, *rk, *key_columns, *scores, *state, *sum;

  linear_attention_unit(const linear_attention_call<T>& c, index unit, int rank)
      : call(c),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        h(c.h),
        n(c.heads * c.h),
        kv(c.kv_heads * c.h),
        valid(c.lengths ? c.lengths[b] : c.length),
        past(c.past ? c.past[b] : 0),
        rows_max((std::min)(linear_attention_rows, c.length)),
        wide(round_up(rows_max, panel_width)),
        next(c.scratch + rank * c.scratch_size) {
    fq = take(rows_max * h);
    fk = take(rows_max * h);
    rq = rotated() ? take(rows_max * h) : fq;
    rk = rotated() ? take(rows_max * h) : fk;
    key_columns = take(h * wide);
    scores = take(rows_max * wide);
    state = take(linear_attention_state(h));
    sum = take(h);
  }
  T* take(index count) {
    T* const here = next;
    next += count;
    return here;
  }
  const T* angles(index i) const {
    return past + i < call.rope_positions ? call.rope + (past + i) * h
                                          : call.rope_beyond + (b * call.length + i) * h;
  }
  bool rotated() const { return call.pairing != rope_pairing::none; }
  index first_head() const { return g * (call.heads / call.kv_heads); }
  index last_head() const { return (g + 1) * (call.heads / call.kv_heads); }
  index key_at(index row) const { return (b * call.length + row) * kv + g * h; }
  index query_at(index head, index row) const { return (b * call.length + row) * n + head * h; }
  T* boundary(index block) const {
    return call.boundaries +
           ((b * call.kv_heads + g) * call.blocks() + block) * linear_attention_state(h);
  }

  /// f and r[rows, h] = features of rows [i0, i0 + rows) of x, plain and rotated.
  void features(const T* x, index stride, index i0, index rows, T* f, T* r) const {
    for (index i = 0; i < rows; ++i) {
      Map::template map<Kernels, T>(h, x + i * stride, f + i * h);
      if (!rotated()) continue;
      std::copy_n(f + i * h, h, r + i * h);
      rotate(r + i * h, i0 + i, false);
    }
  }
  void keys(index i0, index rows) const { features(call.k + key_at(i0), kv, i0, rows, fk, rk); }
  void queries(index head, index i0, index rows) const {
    features(call.q + query_at(head, i0), n, i0, rows, fq, rq);
  }
  void rotate(T* row, index i, bool inverse) const {
    if (rotated()) rope_row(call.pairing, 1, h, angles(i), row, inverse);
  }
  /// columns[h, wide] = x[rows, h]^T, zero behind the rows.
  void transpose(const T* x, index stride, index rows, T* columns) const {
    for (index c = 0; c < h; ++c) {
      for (index i = 0; i < rows; ++i) columns[c * wide + i] = x[i * stride + c];
      std::fill(columns + c * wide + rows, columns + (c + 1) * wide, T(0));
    }
  }
  void transpose_square(const T* x, T* y) const {
    for (index i = 0; i < h; ++i)
      for (index j = 0; j < h; ++j) y[j * h + i] = x[i * h + j];
  }
  /// scores[rows, wide] = x[rows, h] columns, zero where a later token would be seen.
  void masked(const T* x, const T* columns, index rows) const {
    Kernels::template multiply<T>(rows, round_up(rows, panel_width), h, {x, h, 1},
                                  {columns, wide, panel_width}, scores, wide, {});
    for (index i = 0; i < rows; ++i)
      std::fill(scores + i * wide + i + 1, scores + i * wide + rows, T(0));
  }
  /// y[M, h] (+)= x[M, K] m[K, h]
  void multiply(index m, index k, const simd::rows_operand<T>& x, const T* right, index ld, T* y,
                index ldy, bool accumulate) const {
    Kernels::template multiply<T>(m, h, k, x, {right, ld, panel_width}, y, ldy,
                                  {nullptr, T(1), accumulate});
  }
  /// Adds the block's keys and values, whose features are at hand, to a state.
  void absorb(index i0, index rows, T* into) const {
    multiply(h, rows, {rk, 1, h}, call.v + key_at(i0), kv, into, h, true);
    for (index i = 0; i < rows; ++i)
      Kernels::template add<T>(h, into + h * h, fk + i * h, into + h * h);
  }

  void forward() {
    T* const s =
        call.past ? call.state + (b * call.kv_heads + g) * linear_attention_state(h) : state;
    if (past == 0) std::fill_n(s, linear_attention_state(h), T(0));
    if (!call.causal) {
      for (index i0 = 0; i0 < valid; i0 += rows_max) {
        const index rows = (std::min)(rows_max, valid - i0);
        keys(i0, rows);
        absorb(i0, rows, s);
      }
      if (call.boundaries) std::copy_n(s, linear_attention_state(h), boundary(0));
    }
    for (index i0 = 0; i0 < valid; i0 += rows_max) {
      const index rows = (std::min)(rows_max, valid - i0);
      if (call.causal) {
        if (call.boundaries) std::copy_n(s, linear_attention_state(h), boundary(i0 / rows_max));
        keys(i0, rows);
        transpose(rk, h, rows, key_columns);
      }
      for (index head = first_head(); head < last_head(); ++head) mix(head, i0, rows, s);
      if (call.causal) absorb(i0, rows, s);
    }
    for (index i = valid; i < call.length; ++i)
      std::fill_n(call.out + query_at(first_head(), i), (last_head() - first_head()) * h, T(0));
  }
  /// The outputs of one head for a block of rows, given the state before it (or the whole sum).
  void mix(index head, index i0, index rows, const T* s) const {
    T* const out = call.out + query_at(head, i0);
    queries(head, i0, rows);
    multiply(rows, h, {rq, h, 1}, s, h, out, n, false);
    if (call.causal) {
      masked(rq, key_columns, rows);
      const value_mix<T> own{rows, h, rows, 0, scores, wide, call.v + key_at(i0), kv, out, n, true};
      own.run(Kernels{}, [](index i, index j) { return j <= i; });
    }
    std::copy_n(s + h * h, h, sum);
    for (index i = 0; i < rows; ++i) {
      if (call.causal) Kernels::template add<T>(h, sum, fk + i * h, sum);
      const T denominator =
          Kernels::template dot<T>(h, fq + i * h, sum) + static_cast<T>(linear_attention_eps);
      if (call.denominators)
        call.denominators[(b * call.length + i0 + i) * call.heads + head] = denominator;
      Kernels::template scale<T>(h, T(1) / denominator, out + i * n);
    }
  }

  void backward(const linear_attention_gradient<T>& grad) {
    // With N the numerators and D the denominators: dN = d_out / D, dD = -(d_out . out) / D.
    // `later` holds the sums over later blocks (bidirectional: all) of f(q) dN^T and f(q) dD.
    T* const d_numerator = take(rows_max * h);
    T* const gq = take(rows_max * h);
    T* const gk = take(rows_max * h);
    T* const gf = take(rows_max * h);
    T* const value_columns = take(h * wide);
    T* const d_denominator = take(rows_max);
    T* const turned = take(h * h);
    T* const later_turned = take(h * h);
    T* const later = take(linear_attention_state(h));
    T* const suffix = take(h);
    std::fill_n(later, linear_attention_state(h), T(0));

    const auto outputs = [&](index head, index i0, index rows) {
      queries(head, i0, rows);
      for (index i = 0; i < rows; ++i) {
        const index at = query_at(head, i0 + i);
        const T inverse = T(1) / call.denominators[(b * call.length + i0 + i) * call.heads + head];
        for (index c = 0; c < h; ++c) d_numerator[i * h + c] = grad.d_out[at + c] * inverse;
        d_denominator[i] = -Kernels::template dot<T>(h, d_numerator + i * h, call.out + at);
      }
    };
    const auto absorb_outputs = [&](index rows) {
      multiply(h, rows, {rq, 1, h}, d_numerator, h, later, h, true);
      for (index i = 0; i < rows; ++i)
        for (index c = 0; c < h; ++c) later[h * h + c] += fq[i * h + c] * d_denominator[i];
    };
    if (!call.causal)
      for (index head = first_head(); head < last_head(); ++head)
        for (index i0 = 0; i0 < valid; i0 += rows_max) {
          const index rows = (std::min)(rows_max, valid - i0);
          outputs(head, i0, rows);
          absorb_outputs(rows);
        }

    for (index block = (valid + rows_max - 1) / rows_max; block-- > 0;) {
      const index i0 = block * rows_max, rows = (std::min)(rows_max, valid - i0);
      const T* const s = boundary(call.causal ? block : 0);
      const T* const v = call.v + key_at(i0);
      T* const dv = grad.dv + key_at(i0);
      keys(i0, rows);
      transpose(rk, h, rows, key_columns);
      transpose(v, kv, rows, value_columns);
      transpose_square(s, turned);
      transpose_square(later, later_turned);
      multiply(rows, h, {v, kv, 1}, later_turned, h, gk, h, false);
      multiply(rows, h, {rk, h, 1}, later, h, dv, kv, false);
      for (index i = 0; i < rows; ++i) std::copy_n(later + h * h, h, gf + i * h);

      for (index head = first_head(); head < last_head(); ++head) {
        outputs(head, i0, rows);
        multiply(rows, h, {d_numerator, h, 1}, turned, h, gq, h, false);
        if (call.causal) {
          masked(d_numerator, value_columns, rows);
          multiply(rows, rows, {scores, wide, 1}, rk, h, gq, h, true);
          multiply(rows, rows, {scores, 1, wide}, rq, h, gk, h, true);
          masked(rq, key_columns, rows);
          multiply(rows, rows, {scores, 1, wide}, d_numerator, h, dv, kv, true);
          std::fill_n(suffix, h, T(0));
          for (index i = rows; i-- > 0;)
            for (index c = 0; c < h; ++c) {
              suffix[c] += fq[i * h + c] * d_denominator[i];
              gf[i * h + c] += suffix[c];
            }
          absorb_outputs(rows);
        }
        std::copy_n(s + h * h, h, sum);
        for (index i = 0; i < rows; ++i) {
          const index at = query_at(head, i0 + i);
          rotate(gq + i * h, i0 + i, true);
          if (call.causal) Kernels::template add<T>(h, sum, fk + i * h, sum);
          for (index c = 0; c < h; ++c)
            grad.dq[at + c] = (gq[i * h + c] + d_denominator[i] * sum[c]) *
                              Map::template derivative<T>(call.q[at + c], fq[i * h + c]);
        }
      }
      for (index i = 0; i < rows; ++i) {
        const index at = key_at(i0 + i);
        rotate(gk + i * h, i0 + i, true);
        for (index c = 0; c < h; ++c)
          grad.dk[at + c] = (gk[i * h + c] + gf[i * h + c]) *
                            Map::template derivative<T>(call.k[at + c], fk[i * h + c]);
      }
    }
    for (index i = valid; i < call.length; ++i) {
      std::fill_n(grad.dq + query_at(first_head(), i), (last_head() - first_head()) * h, T(0));
      std::fill_n(grad.dk + key_at(i), h, T(0));
      std::fill_n(grad.dv + key_at(i), h, T(0));
    }
  }
};

}  // namespace detail

/// out_i = sum_j f(q_i).f(k_j) v_j / (sum_j f(q_i).f(k_j) + eps) over the tokens that i sees.
/// Rotary positions, if any, turn the features of the numerator alone, so that the denominator
/// stays positive (Su et al. 2021). `Map` is a feature map as attention::linear describes it.
template <class Map, class T>
void linear_attention(const execution& on, const linear_attention_call<T>& call) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      detail::linear_attention_unit<Map, decltype(kernels), T>(call, item, on.threads.rank())
          .forward();
    });
  });
}

/// The derivative of linear_attention() from a call with `denominators` and `boundaries`. What
/// happened inside a block is computed again.
template <class Map, class T>
void linear_attention_backward(const execution& on, const linear_attention_call<T>& call,
                               const linear_attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      detail::linear_attention_unit<Map, decltype(kernels), T>(call, item, on.threads.rank())
          .backward(grad);
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
