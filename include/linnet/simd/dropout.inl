// SPDX-License-Identifier: MIT
/// @file
/// Dropout masks of one instruction-set level: included inside a struct by simd/levels.hpp.

/// Products of the lower halves of 64-bit lanes.
LINNET_TARGET static inline vec<std::uint64_t> low_products(const vec<std::uint64_t>& a,
                                                            const vec<std::uint64_t>& b) {
#if defined(LINNET_LOW_PRODUCTS)
  vec<std::uint64_t> y;
  LINNET_LOW_PRODUCTS(y, a, b);
  return y;
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}
/// The lanes of a and b by turns: of their lower halves (High = 0) or upper ones.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline Vector by_turns(const Vector& a, const Vector& b,
                                            std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b, ((all * High + Lane) / 2 + Lane % 2 * all)...);
}
/// Counters of Philox that fill a register.
static constexpr index philox_lanes = lanes<std::uint64_t>;
/// The words philox(key, high, counter), of that many counters from the first on: [counters, 4].
/// What the upper halves of lanes hold on the way means nothing.
LINNET_TARGET static inline void philox_words(std::uint64_t key, std::uint64_t high,
                                              std::uint64_t first, word* words) {
  using wide = vec<std::uint64_t>;
  wide x0 = wide{} + first, x2 = wide{} + high;
  for (index i = 0; i < philox_lanes; ++i) x0[i] += static_cast<std::uint64_t>(i);
  wide x1 = x0 >> 32, x3 = x2 >> 32;
  auto k0 = static_cast<word>(key), k1 = static_cast<word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const wide a = low_products(x0, wide{} + 0xD2511F53u),
               b = low_products(x2, wide{} + 0xCD9E8D57u);
    x0 = (b >> 32) ^ x1 ^ (wide{} + k0);
    x1 = b;
    x2 = (a >> 32) ^ x3 ^ (wide{} + k1);
    x3 = a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  x0 = (x0 & 0xFFFFFFFFu) | x1 << 32;
  x2 = (x2 & 0xFFFFFFFFu) | x3 << 32;
  constexpr std::make_integer_sequence<int, lanes<std::uint64_t>> all{};
  const wide low = by_turns<0>(x0, x2, all), upper = by_turns<1>(x0, x2, all);
  __builtin_memcpy(words, &low, sizeof low);
  __builtin_memcpy(words + 2 * philox_lanes, &upper, sizeof upper);
}
/// Dropout in place: x *= 0 or keep, and y too unless it is null; 0 where the value's Philox word
/// is below `limit`. Value i has word (first + i) % 4 of counter (first + i) / 4.
template <class T>
LINNET_KERNEL static void drop(std::uint64_t key, std::uint64_t high, word limit, T keep,
                               index first, index n, T* x, T* y) {
  using some_words = typename vector_of<word, lanes<T>>::type;
  word words[4 * philox_lanes + lanes<T>] = {};  // the last ones are read, not used
  for (index done = 0; done < n;) {
    const index skip = (first + done) % 4, left = 4 * philox_lanes - skip,
                here = n - done < left ? n - done : left;
    philox_words(key, high, static_cast<std::uint64_t>((first + done) / 4), words);
    for (index i = 0; i < here; i += lanes<T>) {
      const index count = here - i < lanes<T> ? here - i : lanes<T>;
      some_words w;
      __builtin_memcpy(&w, words + skip + i, sizeof w);
      const auto dropped = __builtin_convertvector(w < limit, vec_int<T>);
      const auto multiplier =
          reinterpret_cast<vec<T>>(reinterpret_cast<vec_int<T>>(vec<T>{} + keep) & ~dropped);
      put<T>(x + done + i, get(x + done + i, count) * multiplier, count);
      if (y != nullptr) put<T>(y + done + i, get(y + done + i, count) * multiplier, count);
    }
    done += here;
  }
}
