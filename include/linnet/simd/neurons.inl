// SPDX-License-Identifier: MIT
/// @file
/// Products with some rows of a matrix, of one instruction-set level: included inside a struct by
/// simd/levels.hpp. Rows lie anywhere, so the next ones are fetched while these are multiplied.

/// Bytes of memory that are fetched at a time.
static constexpr index fetched = 64;

/// out[r] = x . rows[r] for `R` rows of n numbers. Those of `next` are fetched. A sum is the same
/// beside any other rows.
template <int R, class T>
LINNET_TARGET static inline void dots_of_rows(index n, const T* x, const T* const* rows,
                                              const T* const* next, T* out) {
  constexpr index step = 2 * lanes<T>, line = fetched / index{sizeof(T)};
  vec<T> even[std::size_t{R}] = {}, odd[std::size_t{R}] = {};
  index i = 0;
  for (; i + step <= n; i += step) {
    const vec<T> x0 = load(x + i), x1 = load(x + i + lanes<T>);
    LINNET_UNROLL
    for (int r = 0; r < R; ++r) {
      for (index l = 0; l < step; l += line) __builtin_prefetch(next[r] + i + l);
      even[r] += x0 * load(rows[r] + i);
      odd[r] += x1 * load(rows[r] + i + lanes<T>);
    }
  }
  for (; i < n; i += lanes<T>) {
    const index count = n - i < lanes<T> ? n - i : lanes<T>;
    const vec<T> x0 = get(x + i, count);
    for (int r = 0; r < R; ++r) even[r] += x0 * get(rows[r] + i, count);
  }
  for (int r = 0; r < R; ++r) out[r] = sum<T>(even[r] + odd[r]);
}
/// out[a] = x . w[chosen[a]] for `count` rows of w[..., n].
template <class T>
LINNET_KERNEL static void dots_of_chosen(index n, const T* x, const T* w, index count,
                                         const std::int32_t* chosen, T* out) {
  constexpr index R = 4;
  for (index a = 0; a < count; a += R) {
    const T *rows[R], *next[R];
    const index last = count - 1;
    for (index r = 0; r < R; ++r) {
      rows[r] = w + chosen[a + r < last ? a + r : last] * n;
      next[r] = w + chosen[a + R + r < last ? a + R + r : last] * n;
    }
    if (a + R <= count)
      dots_of_rows<R>(n, x, rows, next, out + a);
    else
      for (index r = 0; a + r < count; ++r) dots_of_rows<1>(n, x, rows + r, rows + r, out + a + r);
  }
}
/// y[n] += sum of h[a] w[chosen[a]] over `count` rows of w, `row` apart, in their order.
template <class T>
LINNET_KERNEL static void sum_of_chosen(index n, index row, const T* w, index count,
                                        const std::int32_t* chosen, const T* h, T* y) {
  constexpr index R = 4;
  for (index a = 0; a < count; a += R) {
    const T *rows[R], *next[R];
    T factor[R];
    const index last = count - 1;
    for (index r = 0; r < R; ++r) {
      rows[r] = w + chosen[a + r < last ? a + r : last] * row;
      next[r] = w + chosen[a + R + r < last ? a + R + r : last] * row;
      factor[r] = a + r < count ? h[a + r] : T(0);
    }
    if (a + R <= count) {
      LINNET_FOR_VECTORS(T, i, c, n) {
        vec<T> sum = get(y + i, c);
        LINNET_UNROLL
        for (index r = 0; r < R; ++r) {
          __builtin_prefetch(next[r] + i);
          sum += factor[r] * get(rows[r] + i, c);
        }
        put<T>(y + i, sum, c);
      }
    } else {
      for (index r = 0; a + r < count; ++r) LINNET_FOR_VECTORS(T, i, c, n)
      put<T>(y + i, get(y + i, c) + factor[r] * get(rows[r] + i, c), c);
    }
  }
}
