// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hadamard transforms: rotations by matrices of 1 and -1, at a cost of n log n.

#include <array>
#include <cmath>

#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {

/// Whether `a` is a square modulo the prime q: 1, -1, or 0 for 0.
constexpr int quadratic_character(index a, index q) {
  a = (a % q + q) % q;
  if (a == 0) return 0;
  for (index i = 1; i < q; ++i)
    if (i * i % q == a) return 1;
  return -1;
}
/// Entry (i, j) of a Hadamard matrix of order m: Sylvester's for powers of two, Paley's first
/// construction for 12 and 20, his second for 28 and 36 (Paley 1933).
constexpr int hadamard_entry(index m, index i, index j) {
  if (m % 4 != 0 || (m & (m - 1)) == 0) {
    int sign = 1;
    for (index common = i & j; common > 0; common /= 2)
      if (common % 2) sign = -sign;
    return sign;
  }
  if (m < 28) {  // I + S, S skew with q = m - 1
    if (i == j) return 1;
    if (i == 0) return 1;
    if (j == 0) return -1;
    return quadratic_character(i - j, m - 1);
  }
  const index q = m / 2 - 1, a = i / 2, b = j / 2;
  const bool lower = i % 2 && j % 2;
  if (a == b) return i % 2 == 0 && j % 2 == 0 ? 1 : -1;
  const int s = a == 0 || b == 0 ? 1 : quadratic_character(a - b, q);
  return lower ? -s : s;
}
template <class T, index M>
constexpr std::array<T, static_cast<std::size_t>(M* M)> hadamard_table(bool transposed) {
  std::array<T, static_cast<std::size_t>(M * M)> table{};
  for (index i = 0; i < M; ++i)
    for (index j = 0; j < M; ++j)
      table[static_cast<std::size_t>(i * M + j)] =
          T(transposed ? hadamard_entry(M, j, i) : hadamard_entry(M, i, j));
  return table;
}
template <class T, index M, bool Transposed>
inline constexpr auto hadamard_base = hadamard_table<T, M>(Transposed);

template <class T, bool Transposed>
const T* hadamard_base_of(index m) {
  switch (m) {
    case 36:
      return hadamard_base<T, 36, Transposed>.data();
    case 28:
      return hadamard_base<T, 28, Transposed>.data();
    case 20:
      return hadamard_base<T, 20, Transposed>.data();
    case 16:
      return hadamard_base<T, 16, Transposed>.data();
    case 12:
      return hadamard_base<T, 12, Transposed>.data();
    case 8:
      return hadamard_base<T, 8, Transposed>.data();
    case 4:
      return hadamard_base<T, 4, Transposed>.data();
    case 2:
      return hadamard_base<T, 2, Transposed>.data();
    default:
      return hadamard_base<T, 1, Transposed>.data();
  }
}

}  // namespace detail

/// The Hadamard matrix for rows of n numbers: base (x) a power of two, on each block.
struct hadamard_order {
  index block = 1;  ///< numbers that are transformed together; all n where such an order is known
  index base = 1;   ///< 12, 20, 28 or 36, or a power of two up to 16

  /// The largest order that divides `n`.
  static constexpr hadamard_order of(index n) {
    hadamard_order best;
    for (const index odd : {1, 12, 20, 28, 36}) {
      if (n % odd != 0) continue;
      index block = odd;
      while (n % (2 * block) == 0) block *= 2;
      if (block <= best.block) continue;
      best = {block, odd > 1 ? odd : block < 16 ? block : 16};
    }
    return best;
  }
};

/// x[n] = x H / sqrt(block), for H the Hadamard matrix of `n` numbers or its transpose. One thread.
template <class T>
void hadamard_row(simd::level level, index n, T* x, bool transposed) {
  const hadamard_order order = hadamard_order::of(n);
  const T* const base = transposed ? detail::hadamard_base_of<T, true>(order.base)
                                   : detail::hadamard_base_of<T, false>(order.base);
  const T factor = T(1) / std::sqrt(static_cast<T>(order.block));
  simd::dispatch(level, [&](auto k) {
    for (index first = 0; first < n; first += order.block)
      decltype(k)::template hadamard<T>(order.base, order.block / order.base, base, factor,
                                        x + first);
  });
}
/// Rotates rows x[rows, n] in place. The gradient of a row is that of its result, `transposed`.
template <class T>
void hadamard(const execution& on, index rows, index n, T* x, bool transposed = false) {
  on.threads.each(rows, [&](index i) { hadamard_row(on.level, n, x + i * n, transposed); });
}

}  // namespace ops

LINNET_NAMESPACE_END
