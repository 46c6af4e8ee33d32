// SPDX-License-Identifier: MIT
/// @file
/// Sums, products and the largest of rows, at one instruction-set level: included inside a struct
/// by simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the
/// end.

#if !defined(LINNET_REGISTERS)  // these are the same in any order
/// y = a + b; y may be a or b
template <class T>
LINNET_KERNEL static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_KERNEL static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
#endif
/// sum of x_i y_i
template <class T>
LINNET_KERNEL static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}

/// sum of x_i
template <class T>
LINNET_KERNEL static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
#if !defined(LINNET_REGISTERS)
/// largest x_i; n > 0
template <class T>
LINNET_KERNEL static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// Whether all of x[rows, n] are finite, rows `stride` apart; looks at the bits, as is_finite().
template <class T>
LINNET_KERNEL static bool all_finite(index rows, index n, const T* x, index stride) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr number exponent = sizeof(T) == 4 ? 0x7f800000 : number(0x7ff0000000000000);
  vec_int<T> found{};
  for (index row = 0; row < rows; ++row, x += stride) LINNET_FOR_VECTORS(T, i, c, n) {
      const vec<T> v = get(x + i, c);
      vec_int<T> bits;
      __builtin_memcpy(&bits, &v, sizeof bits);
      found |= (bits & exponent) == exponent;
    }
  number any = 0;
  for (int l = 0; l < lanes<T>; ++l) any |= found[l];
  return any == 0;
}
#endif
