// The matrix product of one instruction-set level: included inside a struct by simd/levels.hpp.

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep.
/// `columns` < W * lanes<T> marks the ragged right edge (W is 1 there). Rows of B up to `safe` may
/// be read in full vectors; the few last ones of the edge may not.
template <int R, int W, class T, class Value>
LINNET_TARGET static inline void tile(index K, const T* a, index a_row, index a_column,
                                      const Value* b, index ldb, T* c, index ldc, index column,
                                      const epilogue<T>& e, index columns, index safe) {
  vec<T> acc[R][W] = {};
  for (index k = 0; k < safe; ++k) {
    vec<T> right[W];
    LINNET_UNROLL
    for (int v = 0; v < W; ++v) right[v] = load_as<T>(b + k * ldb + v * lanes<T>);
    LINNET_UNROLL
    for (int r = 0; r < R; ++r) {
      const T left = a[r * a_row + k * a_column];
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) acc[r][v] += left * right[v];
    }
  }
  for (index k = safe; k < K; ++k) {
    const vec<T> right = load_first<T>(b + k * ldb, columns);
    LINNET_UNROLL
    for (int r = 0; r < R; ++r) acc[r][0] += a[r * a_row + k * a_column] * right;
  }
  const bool ragged = columns < W * lanes<T>;
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    const index at = v * lanes<T>;
    vec<T> factor = vec<T>{} + e.alpha, bias = {};
    if (e.scale) {
      T scales[lanes<T>] = {};
      for (index l = 0; l < lanes<T> && at + l < columns; ++l)
        scales[l] = static_cast<T>(e.scale[column + at + l]);
      factor *= load(scales);
    }
    if (e.bias)
      bias = ragged ? load_first<T>(e.bias + column, columns) : load(e.bias + column + at);
    LINNET_UNROLL
    for (int r = 0; r < R; ++r) {
      T* const out = c + r * ldc + at;
      vec<T> y = acc[r][v] * factor + bias;
      if (ragged) {
        if (e.accumulate) y += load_first<T>(out, columns);
        store_first(out, y, columns);
      } else {
        if (e.accumulate) y += load(out);
        store(out, y);
      }
    }
  }
}

/// All rows of one column strip.
template <int W, class T, class Value>
LINNET_TARGET static void strip(index M, index K, const rows_operand<T>& a, const Value* b,
                                index ldb, T* c, index ldc, index column, const epilogue<T>& e,
                                index columns, index safe) {
  constexpr int full = LINNET_ROWS;
  index i = 0;
  for (; i + full <= M; i += full)
    tile<full, W>(K, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, column, e,
                  columns, safe);
  for (; i + 4 <= M; i += 4)
    tile<4, W>(K, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, column, e, columns,
               safe);
  for (; i + 2 <= M; i += 2)
    tile<2, W>(K, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, column, e, columns,
               safe);
  for (; i < M; ++i)
    tile<1, W>(K, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, column, e, columns,
               safe);
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. Each output is one sum over k in ascending order,
/// whatever tile it falls into. `slack` is how many values behind the last element of a full row
/// of B may still be read (rows of packed panels are padded to 32 columns).
template <class T, class Value>
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<Value>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  constexpr index wide = 2 * lanes<T>;
  index j = 0;
  const auto at = [&](index column) {
    return b.data + column / panel_width * b.panel + column % panel_width;
  };
  for (; j + wide <= N; j += wide) strip<2>(M, K, a, at(j), b.ld, c + j, ldc, j, e, wide, K);
  for (; j < N; j += lanes<T>) {
    const index columns = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + columns + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    strip<1>(M, K, a, at(j), b.ld, c + j, ldc, j, e, columns, safe);
  }
}
