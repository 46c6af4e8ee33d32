// SPDX-License-Identifier: MIT
/// @file
/// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
/// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  static constexpr bool has_lanes = false, has_squares = false;
  LINNET_TARGET static inline void prepare(right&) {}
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// Loads the values of an epilogue for the columns of one vector, and applies it to a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there. Rows of B up to `safe` may be read in full
/// vectors, the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[std::size_t{R}][std::size_t{W}] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const typename Steps::left* rows[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) rows[i / 3] = left + i * a.row;
  index first = 0;
#if defined(LINNET_DOT_INT8_LANE)
  // Where numbers of a row lie side by side.
  if (a.column == 1) {
    if constexpr (Steps::has_squares && R % 2 == 0)
      first = by_squares<Steps, R, W>(safe, a, left, b, right, ahead, acc);
    else if constexpr (Steps::has_lanes)
      first = by_lanes<Steps, R, W>(safe, a, left, b, right, ahead, acc);
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += first;
  }
#endif
  for (index k = first; k < safe; ++k) {
    typename Steps::right r[std::size_t{W}];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v) Steps::prepare(r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = rows[i / 3][i % 3 * a.row] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += a.column;
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      Steps::prepare(r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read. Rows of packed panels are padded to 32 columns.
template <class Steps, class Finish, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
