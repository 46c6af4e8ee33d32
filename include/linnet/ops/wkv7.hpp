// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The recurrence of RWKV-7 (Peng et al. 2025, arXiv:2503.14456): a generalised delta rule. Per
/// head, a matrix from keys to values decays, forgets the value of a key and learns a new pair at
/// every token.

#include <linnet/ops/matmul.hpp>
#include <linnet/ops/wkv4.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// The vectors of each token that the recurrence reads, or their gradients: [batch, length,
/// heads * n] each.
template <class T>
struct wkv7_vectors {
  T* r;       ///< what is asked for
  T* w;       ///< decay of each key channel, in (0, 1)
  T* k;       ///< the key under which v is added
  T* v;       ///< the value
  T* remove;  ///< kappa, the key whose value is removed
  T* weight;  ///< kappa a, removed how strongly
};

/// Arguments of RWKV-7's recurrence: per head, S[n, n] maps keys (columns) to values (rows). S <- S
/// diag(w) - (S kappa)(kappa a)^T + v k^T and y = S r.
template <class T>
struct wkv7_call {
  index batch, length, heads, n;
  wkv7_vectors<const T> x;
  T* y;                          ///< [batch, length, heads * n]
  T* state;                      ///< [batch, heads, n, n] S, from call to call if `past` is given
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, heads, chunks, n, n] states for backward, or null

  index width() const { return heads * n; }
};

namespace detail {

/// Rows of a state that one thread works on at a time.
inline constexpr index wkv7_rows = 16;

/// Adds one token to rows [i0, i0 + rows) of S, which may be `to`. `at`: where the head's vectors
/// of this token begin.
template <class Kernels, class T>
void wkv7_step(Kernels, const wkv7_call<T>& a, index at, index i0, index rows, const T* from,
               T* to) {
  T removed[wkv7_rows];
  Kernels::template dots<T>(rows, a.n, T(1), a.x.remove + at, from, a.n, removed);
  const T *const w = a.x.w + at, *const k = a.x.k + at, *const weight = a.x.weight + at;
  for (index i = 0; i < rows; ++i) {
    const T value = a.x.v[at + i0 + i], old = removed[i];
    const T* const s = from + i * a.n;
    T* const next = to + i * a.n;
    for (index j = 0; j < a.n; ++j) next[j] = s[j] * w[j] - old * weight[j] + value * k[j];
  }
}
/// Adds one token to all rows.
template <class Kernels, class T>
void wkv7_step(Kernels kernels, const wkv7_call<T>& a, index at, const T* from, T* to) {
  for (index i = 0; i < a.n; i += wkv7_rows)
    wkv7_step(kernels, a, at, i, (std::min)(wkv7_rows, a.n - i), from + i * a.n, to + i * a.n);
}

}  // namespace detail

/// Computes y of all tokens, and the states that backward needs. Rows behind `valid` get zeros and
/// change no state.
template <class T>
void wkv7(const execution& on, const wkv7_call<T>& a) {
  const index n = a.n, blocks = (n + detail::wkv7_rows - 1) / detail::wkv7_rows;
  on.threads.each(a.batch * a.heads * blocks, [&](index unit) {
    const index i0 = unit % blocks * detail::wkv7_rows,
                rows = (std::min)(detail::wkv7_rows, n - i0), head = unit / blocks,
                b = head / a.heads, valid = a.valid ? a.valid[b] : a.length;
    T* const s = a.state + (head * n + i0) * n;
    if (!a.past || a.past[b] == 0) std::fill_n(s, rows * n, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index t = 0; t < a.length; ++t) {
        const index at = (b * a.length + t) * a.width() + head % a.heads * n;
        if (t >= valid) {
          std::fill_n(a.y + at + i0, rows, T(0));
          continue;
        }
        if (a.starts && t % recurrent_chunk == 0)
          std::copy_n(
              s, rows * n,
              a.starts + ((head * recurrent_chunks(a.length) + t / recurrent_chunk) * n + i0) * n);
        detail::wkv7_step(kernels, a, at, i0, rows, s, s);
        K::template dots<T>(rows, n, T(1), a.x.r + at, s, n, a.y + at + i0);
      }
    });
  });
}

/// Scratch of wkv7_backward() per thread.
constexpr index wkv7_scratch(index n) { return (recurrent_chunk + 2) * n * n + 2 * n; }

/// Derivatives of wkv7(), of a call that began from an empty state and stored its `starts`; `dx` is
/// overwritten. `scratch` has wkv7_scratch(n) values per thread.
template <class T>
void wkv7_backward(const execution& on, const wkv7_call<T>& a, const T* dy,
                   const wkv7_vectors<T>& dx, T* scratch) {
  const index n = a.n, size = n * n, chunks = recurrent_chunks(a.length);
  T* const states = scratch + on.threads.rank() * wkv7_scratch(n);  // before and after each token
  T* const g = states + (recurrent_chunk + 1) * size;               // gradient of S
  T* const removed = g + size;                                      // S kappa
  T* const d_removed = removed + n;
  on.threads.each(a.batch * a.heads, [&](index head) {
    const index b = head / a.heads;
    std::fill_n(g, size, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index chunk = chunks; chunk-- > 0;) {
        const index t0 = chunk * recurrent_chunk,
                    tokens = (std::min)(recurrent_chunk, a.length - t0);
        const auto place = [&](index i) {
          return (b * a.length + t0 + i) * a.width() + head % a.heads * n;
        };
        std::copy_n(a.starts + (head * chunks + chunk) * size, size, states);
        for (index i = 0; i < tokens; ++i)
          detail::wkv7_step(kernels, a, place(i), states + i * size, states + (i + 1) * size);
        for (index t = tokens; t-- > 0;) {
          const index at = place(t);
          const T *const before = states + t * size, *const after = before + size;
          const T *const r = a.x.r + at, *const w = a.x.w + at, *const remove = a.x.remove + at;
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) g[i * n + j] += dy[at + i] * r[j];
          K::template mix<T>(n, n, dy + at, after, n, dx.r + at);
          K::template dots<T>(n, n, T(1), a.x.k + at, g, n, dx.v + at);
          K::template mix<T>(n, n, a.x.v + at, g, n, dx.k + at);
          K::template dots<T>(n, n, T(1), remove, before, n, removed);
          K::template dots<T>(n, n, T(-1), a.x.weight + at, g, n, d_removed);
          K::template mix<T>(n, n, removed, g, n, dx.weight + at);
          K::template mix<T>(n, n, d_removed, before, n, dx.remove + at);
          T *const d_weight = dx.weight + at, *const dw = dx.w + at;
          for (index j = 0; j < n; ++j) d_weight[j] = -d_weight[j];
          std::fill_n(dw, n, T(0));
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) {
              T& gij = g[i * n + j];
              dw[j] += before[i * n + j] * gij;
              gij = gij * w[j] + d_removed[i] * remove[j];
            }
        }
      }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
