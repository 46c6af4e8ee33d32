// SPDX-License-Identifier: MIT
/// @file
/// Scores and weighted sums of attention over rows of tokens, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// Loads lanes of stored numbers as T: from T itself, bf16, f16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else if constexpr (std::is_same_v<Code, f16_code>) {
    load_f16<Lanes>(p, x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
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
/// Fetches rows of n stored numbers of tokens [first, last), where `k` reaches that far. Inlined
/// always: g++ leaves out calls of functions that do nothing else.
template <class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void fetch_rows(
    index first, index last, index n, const token_rows<Code>& k, index end) {
  constexpr index line = 64 / static_cast<index>(sizeof(Code));
  if (last > end || k.run(first, last) != last) return;
  const Code* row = k.row(first);
  for (index j = first; j < last; ++j, row += k.stride)
    for (index i = 0; i < n; i += line) __builtin_prefetch(row + i);
}
/// The rows of a head that lies so far behind that of `k`.
template <class Code>
LINNET_TARGET static inline token_rows<Code> rows_of(token_rows<Code> k, index behind) {
  k.data += behind;
  return k;
}
/// Whether tokens are more than caches are likely to hold when they are read.
template <class Code>
LINNET_TARGET static inline bool many_bytes(index tokens, const token_rows<Code>& k) {
  return tokens * k.stride * static_cast<index>(sizeof(Code)) >= 1 << 16;
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last), for each row x of some
/// heads. What follows each other in memory is read in this order, which is faster.
template <class T, class Code>
LINNET_KERNEL static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y, const head_rows& heads = {}) {
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  const index step = lanes<T> < 4 || last - first < lanes<T> ? 1 : lanes<T>;
  const bool fetch = many_bytes(last - first, k);
  for (index next = first; next < last; next += step) {
    const index j = next < last - step ? next : last - step;
    const bool together = k.run(j, j + step) == j + step;
    const Code* const begin = k.row(j);
    for (index g = 0; g < heads.groups; ++g) {
      const Code* rows[lanes<T>] = {begin + g * heads.slot};
      LINNET_UNROLL
      for (int r = 1; r < lanes<T>; ++r)
        if (step > 1) rows[r] = together ? rows[0] + r * k.stride : k.row(j + r) + g * heads.slot;
      if (fetch) fetch_rows(j + step, j + 2 * step, n, rows_of(k, g * heads.slot), last);
      for (index r = g * heads.size; r < (g + 1) * heads.size; ++r) {
        const T* const xr = x + r * heads.inputs;
        T* const yr = y + r * heads.outputs + (j - first);
        if (step == 1) {
          *yr = scale * dot_code(n, xr, rows[0]);
          continue;
        }
        vec<T> some = {};
        if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
          if (n == lanes<T> / 2)
            dots_of_halves(xr, rows, some);
          else
            dots_of_rows(n, xr, rows, some);
        } else if constexpr (lanes<T> >= 4) {
          dots_of_rows(n, xr, rows, some);
        }
        store<T>(yr, scale * some);
      }
    }
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_KERNEL static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// As many columns of mix() as there are lanes, for R rows of weights. In four sums of every fourth
/// token, so that the result does not depend on blocks.
template <int Lanes, int R, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate,
                                           const head_rows& heads) {
  using part = typename vector_of<T, Lanes>::type;
  part total[std::size_t{R}][4] = {}, x;
  LINNET_UNROLL
  for (int r = 0; r < R; ++r)
    if (accumulate) __builtin_memcpy(&total[r][0], y + r * heads.outputs, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j);
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int t = 0; t < 4; ++t) {
          widen_lanes<Lanes, T>(row + t * v.stride, x);
          LINNET_UNROLL
          for (int r = 0; r < R; ++r) total[r][t] += p[r * heads.inputs + j - first + t] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        LINNET_UNROLL
        for (int r = 0; r < R; ++r) total[r][0] += p[r * heads.inputs + j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  LINNET_UNROLL
  for (int r = 0; r < R; ++r) {
    x = (total[r][0] + total[r][1]) + (total[r][2] + total[r][3]);
    __builtin_memcpy(y + r * heads.outputs, &x, sizeof x);
  }
}
/// mix() for R rows of weights and one head's values.
template <int R, class T, class Code>
LINNET_TARGET static inline void mix_rows(index first, index last, index n, const T* p,
                                          token_rows<Code> v, T* y, bool accumulate,
                                          const head_rows& heads) {
  index i = 0;
  constexpr index step = register_lanes<T>, half = lanes<T> / 2;
  const index end = n - n % half;
  for (; i + step <= end; i += step, v.data += step)
    mix_lanes<register_lanes<T>, R>(first, last, p, v, y + i, accumulate, heads);
  if constexpr (lanes<T> >= 8 && half < step)
    if (i < end) {
      mix_lanes<lanes<T> / 2, R>(first, last, p, v, y + i, accumulate, heads);
      i += half, v.data += half;
    }
  for (index r = 0; r < R && i < n; ++r) {
    vec<T> total = {};
    if (accumulate) total = load_first<T>(y + r * heads.outputs + i, n - i);
    for (index j = first; j < last; ++j)
      total += p[r * heads.inputs + j - first] * widen<T>(v.row(j), n - i);
    store_first(y + r * heads.outputs + i, total, n - i);
  }
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last), for each row p of some
/// heads. Sums begin anew with each block of tokens, whose values stay in the first-level cache.
template <class T, class Code>
LINNET_KERNEL static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false,
                              const head_rows& heads = {}) {
  const bool fetch = many_bytes(last - first, v);
  for (index j = first, end = 0; j < last; j = end, accumulate = true) {
    end = (j / token_block + 1) * token_block;
    end = end < last ? end : last;
    for (index g = 0; g < heads.groups; ++g) {
      const token_rows<Code> rows = rows_of(v, g * heads.slot);
      if (fetch) fetch_rows(end, end + token_block, n, rows, last);
      const T* x = p + g * heads.size * heads.inputs + (j - first);
      T* out = y + g * heads.size * heads.outputs;
      index left = heads.size;
      for (; left >= 3; left -= 3, x += 3 * heads.inputs, out += 3 * heads.outputs)
        mix_rows<3>(j, end, n, x, rows, out, accumulate, heads);
      for (; left > 0; --left, x += heads.inputs, out += heads.outputs)
        mix_rows<1>(j, end, n, x, rows, out, accumulate, heads);
    }
  }
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_KERNEL static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
