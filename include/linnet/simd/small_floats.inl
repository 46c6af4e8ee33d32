// SPDX-License-Identifier: MIT
/// @file
/// Small floats of one instruction-set level, to numbers and back: included inside a struct by
/// simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;
/// As many codes of 16 bits as a register holds floats.
using codes_of_16 = typename vector_of<std::uint16_t, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// The numbers of f16 or of floats of 8 bits, whose codes are the lowest bits of words. Exact, NaNs
/// and infinities included.
template <code C, int Lanes>
LINNET_TARGET static inline void decode_small_floats(const typename vector_of<word, Lanes>::type& u,
                                                     typename vector_of<float, Lanes>::type& y) {
  using some_words = typename vector_of<word, Lanes>::type;
  using some_ints = typename vector_of<std::int32_t, Lanes>::type;
  using some_floats = typename vector_of<float, Lanes>::type;
#if defined(LINNET_WIDEN_HALVES)
  if constexpr (C == code::f16 && Lanes == 4) {
    const auto codes = __builtin_convertvector(u, typename vector_of<std::uint16_t, Lanes>::type);
    LINNET_WIDEN_HALVES(y, codes);
    return;
  }
#endif
  constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
  constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
  constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
  constexpr word smallest = 1u << fraction;                              // normal code
  constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
  constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
  const some_words m = u & magnitude, placed = m << (23 - fraction);
  const some_words subnormal =
      bits_as<some_words>(__builtin_convertvector(bits_as<some_ints>(m), some_floats) * unit);
  some_words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
  x = m < last ? x : placed | 0x7f800000u;
  y = bits_as<some_floats>(x | (u & sign) << (32 - bits_of(C)));
}
/// Loads lanes of f16, which are a register of floats or half of one.
template <int Lanes>
LINNET_TARGET static inline void load_f16(const f16_code* p,
                                          typename vector_of<float, Lanes>::type& x) {
#if defined(LINNET_HALVES)
  static_assert(Lanes == lanes<float> || 2 * Lanes == lanes<float>);
  if constexpr (Lanes == lanes<float>)
    x = LINNET_HALVES(p);
  else
    x = LINNET_FEW_HALVES(p);
#else
  typename vector_of<std::uint16_t, Lanes>::type u;
  __builtin_memcpy(&u, p, sizeof u);
  decode_small_floats<code::f16, Lanes>(
      __builtin_convertvector(u, typename vector_of<word, Lanes>::type), x);
#endif
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// @copydoc round_to_bf16()
LINNET_TARGET static inline void round_to_16(const vec<float>& x, codes_of_16& y, bf16_code) {
  words u;
  round_to_bf16(x, u);
  y = __builtin_convertvector(u, codes_of_16);
}
/// Rounds to f16, nearest even. Finite numbers beyond the largest one, 65504, become that.
LINNET_TARGET static inline void round_to_16(const vec<float>& x, codes_of_16& y, f16_code) {
  constexpr word largest = 0x477fe000u, infinity = 0x7f800000u;
  words u = bits_as<words>(x), m = u & 0x7fffffffu;
  const words sign = u ^ m;
  m = ((m > largest) & (m < infinity)) ? words{} + largest : m;
#if defined(LINNET_TO_HALVES)
  y = reinterpret_cast<codes_of_16>(LINNET_TO_HALVES(sign | m));
#elif defined(LINNET_NARROW_HALVES)
  const vec<float> within = bits_as<vec<float>>(sign | m);
  LINNET_NARROW_HALVES(y, within);
#else
  // Subnormal numbers are whole steps of 2^-24, the last place of a float from 1/2 on.
  constexpr word normal = 113u << 23, half = 126u << 23;
  const vec<float> shifted = bits_as<vec<float>>(m) + 0.5f;
  const words subnormal = bits_as<words>(shifted) - half;
  const words rounded = (m + 0xfffu + ((m >> 13) & 1u) - (112u << 23)) >> 13;
  u = m < normal ? subnormal : rounded;
  u = m < infinity ? u : m > infinity ? (m >> 13 & 0x3ffu) | 0x7e00u : words{} + 0x7c00u;
  y = __builtin_convertvector(u | sign >> 16, codes_of_16);
#endif
}
/// y[n] = codes of x[n] in bf16 or f16, zeros behind them up to an even number. See round_to_16().
template <class T, class Code>
LINNET_KERNEL static void to_16_bits(index n, const T* x, Code* y) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    codes_of_16 some;
    round_to_16(get(x + i, count), some, Code{});
    if (count == lanes<float>)
      __builtin_memcpy(y + i, &some, sizeof some);
    else
      __builtin_memcpy(y + i, &some, static_cast<std::size_t>(count) * sizeof(Code));
  }
  if (n % 2) y[n] = Code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_KERNEL static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}
