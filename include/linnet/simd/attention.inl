// SPDX-License-Identifier: MIT
/// @file
/// Scores and weighted sums of attention over rows of tokens, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// Loads lanes of stored numbers as T: from T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      vec_int<T> wide;
      LINNET_BYTES(wide, p);
      x = __builtin_convertvector(wide, vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// Loads the first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// Products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// Products of x with rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_KERNEL static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_KERNEL static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that the
/// result does not depend on blocks.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_KERNEL static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_KERNEL static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
