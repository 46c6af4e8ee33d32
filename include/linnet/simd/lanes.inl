// SPDX-License-Identifier: MIT
/// @file
/// Steps of products whose instructions read one word of several in a register, or multiply two
/// rows by two columns. Included inside a struct by simd/levels.hpp. A sum takes its k in ascending
/// order here, too, and has the same bits as by single steps.

/// Row k of B for W vectors of columns from `right` on, all in one panel.
template <class Steps, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline void row_of_columns(
    const columns_operand<word>& b, const word* right, index k,
    typename Steps::right (&r)[std::size_t{W}]) {
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    __builtin_memcpy(&r[v], right + k * b.ld + v * lanes<float>, sizeof r[v]);
    Steps::prepare(r[v]);
  }
}
/// Adds row k of B to R sums of W vectors, whose inputs are word `Lane` of each of `x`.
template <class Steps, int Lane, int R, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline void step_by_lane(
    const columns_operand<word>& b, const word* right, index k,
    const typename Steps::right (&x)[std::size_t{R}],
    typename Steps::sum (&acc)[std::size_t{R}][std::size_t{W}]) {
  typename Steps::right r[std::size_t{W}];
  row_of_columns<Steps, W>(b, right, k, r);
  LINNET_UNROLL
  for (int i = 0; i < R; ++i) LINNET_UNROLL
  for (int v = 0; v < W; ++v) Steps::template step_lane<Lane>(acc[i][v], x[i], r[v]);
}
/// Whole fours of K by lanes: one load gets four inputs of a row. Returns how many k are done.
template <class Steps, int R, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline index by_lanes(
    index K, const rows_operand<word>& a, const word* left, const columns_operand<word>& b,
    const word* right, const word* ahead,
    typename Steps::sum (&acc)[std::size_t{R}][std::size_t{W}]) {
  index k = 0;
  for (; k + 4 <= K; k += 4) {
    LINNET_UNROLL
    for (index i = 0; R > 4 && i < 4; ++i) __builtin_prefetch(ahead + (k + i) * b.ld, 0, 2);
    typename Steps::right x[std::size_t{R}];
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) __builtin_memcpy(&x[i], left + i * a.row + k, sizeof x[i]);
    step_by_lane<Steps, 0, R, W>(b, right, k, x, acc);
    step_by_lane<Steps, 1, R, W>(b, right, k + 1, x, acc);
    step_by_lane<Steps, 2, R, W>(b, right, k + 2, x, acc);
    step_by_lane<Steps, 3, R, W>(b, right, k + 3, x, acc);
  }
  return k;
}

/// The words 0 and 1 of a row and of the next one, then words 2 and 3 of both.
template <class Words>
__attribute__((__always_inline__)) LINNET_TARGET static inline void pair_rows(const Words& first,
                                                                              const Words& second,
                                                                              Words (&pairs)[2]) {
  pairs[0] = __builtin_shufflevector(first, second, 0, 1, 4, 5);
  pairs[1] = __builtin_shufflevector(first, second, 2, 3, 6, 7);
}
/// Two words of four columns: of columns 0 and 1, then of columns 2 and 3.
template <class Words>
__attribute__((__always_inline__)) LINNET_TARGET static inline void pair_columns(
    const Words& first, const Words& second, Words (&pairs)[2]) {
  pairs[0] = __builtin_shufflevector(first, second, 0, 4, 1, 5);
  pairs[1] = __builtin_shufflevector(first, second, 2, 6, 3, 7);
}
/// The sums of two rows in four columns, from squares of columns 0 and 1 and of columns 2 and 3.
template <class Sum>
__attribute__((__always_inline__)) LINNET_TARGET static inline void rows_of_squares(
    const Sum (&squares)[2], Sum& first, Sum& second) {
  first = __builtin_shufflevector(squares[0], squares[1], 0, 2, 4, 6);
  second = __builtin_shufflevector(squares[0], squares[1], 1, 3, 5, 7);
}
/// Adds rows k and k + 1 of B to the squares of pairs of rows, whose inputs are x[i][Half].
template <class Steps, int Half, int Pairs, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline void step_by_squares(
    const columns_operand<word>& b, const word* right, index k,
    const typename Steps::right (&x)[std::size_t{Pairs}][2],
    typename Steps::sum (&acc)[std::size_t{Pairs}][std::size_t{W}][2]) {
  typename Steps::right low[std::size_t{W}], high[std::size_t{W}];
  row_of_columns<Steps, W>(b, right, k, low);
  row_of_columns<Steps, W>(b, right, k + 1, high);
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    typename Steps::right columns[2];
    pair_columns(low[v], high[v], columns);
    LINNET_UNROLL
    for (int i = 0; i < Pairs; ++i) {
      Steps::step_square(acc[i][v][0], x[i][Half], columns[0]);
      Steps::step_square(acc[i][v][1], x[i][Half], columns[1]);
    }
  }
}
/// Whole fours of K by squares of two rows and two columns. Sums begin with 0. Returns how many k
/// are done.
template <class Steps, int R, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline index by_squares(
    index K, const rows_operand<word>& a, const word* left, const columns_operand<word>& b,
    const word* right, const word* ahead,
    typename Steps::sum (&acc)[std::size_t{R}][std::size_t{W}]) {
  constexpr int pairs = R / 2;
  typename Steps::sum squares[std::size_t{pairs}][std::size_t{W}][2] = {};
  index k = 0;
  for (; k + 4 <= K; k += 4) {
    LINNET_UNROLL
    for (index i = 0; R > 4 && i < 4; ++i) __builtin_prefetch(ahead + (k + i) * b.ld, 0, 2);
    typename Steps::right x[std::size_t{pairs}][2];
    LINNET_UNROLL
    for (int i = 0; i < pairs; ++i) {
      typename Steps::right first, second;
      __builtin_memcpy(&first, left + 2 * i * a.row + k, sizeof first);
      __builtin_memcpy(&second, left + (2 * i + 1) * a.row + k, sizeof second);
      pair_rows(first, second, x[i]);
    }
    step_by_squares<Steps, 0, pairs, W>(b, right, k, x, squares);
    step_by_squares<Steps, 1, pairs, W>(b, right, k + 2, x, squares);
  }
  LINNET_UNROLL
  for (int i = 0; i < pairs; ++i) LINNET_UNROLL
  for (int v = 0; v < W; ++v) rows_of_squares(squares[i][v], acc[2 * i][v], acc[2 * i + 1][v]);
  return k;
}
