// SPDX-License-Identifier: MIT
/// @file
/// Products with matrices that keep numbers anywhere in a row, of one instruction-set level:
/// included inside a struct by simd/levels.hpp.

/// The numbers of blocks of 16 words of codes, those of the lowest codes of all words of a block
/// first. They are [first, last) of a row.
template <code C, code_offset Offset>
LINNET_KERNEL static void decode_blocks(index first, index last, const word* from,
                                        const scales_of_row& of, float* out) {
  const auto [scales, zeros, origin, group, groups] = of;
  constexpr int per_word = codes_of_word(C), n = mask_words * per_word;
  index end = 0;
  vec<float> scale = {}, zero = vec<float>{} + origin;
  for (; first < last; first += n, from += mask_words, out += n) {
    LINNET_UNROLL
    for (int i = 0; i < per_word; ++i) {
      LINNET_UNROLL
      for (int at = 0; at < mask_words; at += lanes<float>) {
        words u;
        __builtin_memcpy(&u, from + at, sizeof u);
        vec<float> x = decode<C>(u, i);
        const index c = first + i * mask_words + at;
        if (scales && c >= end) {
          if (group % lanes<float> == 0) {
            const index g = group && c < group * groups ? c / group : groups - 1;
            scale = vec<float>{} + scales[g];
            if constexpr (Offset != code_offset::origin) zero = vec<float>{} + zeros[g];
            end = group ? (g + 1) * group : last + n;
          } else {  // a vector has numbers of several groups
            float some[2][lanes<float>];
            for (int l = 0; l < lanes<float>; ++l) {
              const index g = c + l < group * groups ? (c + l) / group : groups - 1;
              some[0][l] = scales[g];
              some[1][l] = zeros ? zeros[g] : origin;
            }
            scale = load(some[0]);
            zero = load(some[1]);
          }
        }
        if constexpr (is_integer(C) && Offset != code_offset::minimum) x = x - zero;
        if (scales) x = x * scale;
        if constexpr (Offset == code_offset::minimum) x = x + zero;
        store(out + i * mask_words + at, x);
      }
    }
  }
}

/// Lanes of a and b by turns: those of the lower halves (High = 0) or of the upper ones.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto alternate(const Vector& a, const Vector& b,
                                           std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b, (Lane / 2 + High * all / 2 + Lane % 2 * all)...);
}
/// Turns a square of numbers: vector i becomes lane i of all.
LINNET_TARGET static inline void turn(vec<float> (&v)[std::size_t{lanes<float>}]) {
  constexpr int n = lanes<float>;
  constexpr std::make_integer_sequence<int, n> all{};
  LINNET_UNROLL
  for (int stage = 1; stage < n; stage *= 2) {
    vec<float> t[std::size_t{n}];
    LINNET_UNROLL
    for (int i = 0; i < n / 2; ++i) {
      t[2 * i] = alternate<0>(v[i], v[i + n / 2], all);
      t[2 * i + 1] = alternate<1>(v[i], v[i + n / 2], all);
    }
    LINNET_UNROLL
    for (int i = 0; i < n; ++i) v[i] = t[i];
  }
}

#if defined(LINNET_EXPAND)
/// The numbers from `p` on in the lanes of a mask, zeros in the others.
LINNET_TARGET static inline vec<float> spread(word mask, const float* p) {
  vec<float> x = load(p);
  LINNET_KEEP(x);  // from memory some processors take 20 times as long
  return LINNET_EXPAND(mask, x);
}
#endif

/// Adds the products of `R` rows of `n` inputs with `J` rows of weights to sums[r][j], rows of 32.
/// Weights are the numbers that they keep at the inputs of their masks. `numbers` move on by as
/// many. Up to 16 beyond are read.
template <int R, int J>
LINNET_KERNEL static void masked_rows(index n, const float* x, index row, const word* const* masks,
                                      const float** numbers, float* sums) {
  const float* from[std::size_t{J}];
  LINNET_UNROLL
  for (int j = 0; j < J; ++j) from[j] = numbers[j];
#if defined(LINNET_EXPAND)
  constexpr word low = (word{1} << lanes<float> % 32) - 1;
  vec<float> acc[std::size_t{R}][std::size_t{J}] = {};
  index i = 0;
  for (; i + 32 <= n; i += 32) {
    LINNET_UNROLL
    for (int j = 0; j < J; ++j) {  // rows wait for memory, in which their next numbers follow
      __builtin_prefetch(from[j] + 512);
      if (i % 512 == 0) __builtin_prefetch(masks[j] + i / 32 + 64);
    }
    LINNET_UNROLL
    for (int h = 0; h < 32; h += lanes<float>) {
      vec<float> y[std::size_t{J}];
      LINNET_UNROLL
      for (int j = 0; j < J; ++j) {
        const word mask = masks[j][i / 32];
        y[j] = spread(mask >> h & low, from[j] + __builtin_popcount(mask & ((word{1} << h) - 1)));
      }
      LINNET_UNROLL
      for (int r = 0; r < R; ++r) {
        const vec<float> input = load(x + r * row + i + h);
        LINNET_UNROLL
        for (int j = 0; j < J; ++j) acc[r][j] += input * y[j];
      }
    }
    LINNET_UNROLL
    for (int j = 0; j < J; ++j) {
      from[j] += __builtin_popcount(masks[j][i / 32]);
      LINNET_KEEP_ADDRESS(from[j]);  // g++ kept four in a vector, for the sake of their sums
    }
  }
  for (int h = 0; i < n; h += lanes<float>, i += lanes<float>) {
    LINNET_UNROLL
    for (int j = 0; j < J; ++j) {
      const word here = masks[j][i / 32] >> h & low;
      const vec<float> y = spread(here, from[j]);
      from[j] += __builtin_popcount(here);
      LINNET_UNROLL
      for (int r = 0; r < R; ++r)
        acc[r][j] += get(x + r * row + i, n - i < lanes<float> ? n - i : lanes<float>) * y;
    }
  }
  LINNET_UNROLL
  for (int r = 0; r < R; ++r) {
    LINNET_UNROLL
    for (int j = 0; j < J; ++j) sums[r * panel_width + j] += sum<float>(acc[r][j]);
  }
#else
  for (int j = 0; j < J; ++j) {
    float acc[std::size_t{R}] = {};
    for (index i = 0; i < n; i += 32)
      for (word bits = masks[j][i / 32]; bits != 0; bits &= bits - 1, ++from[j])
        for (int r = 0; r < R; ++r) acc[r] += x[r * row + i + __builtin_ctz(bits)] * *from[j];
    for (int r = 0; r < R; ++r) sums[r * panel_width + j] += acc[r];
  }
#endif
  LINNET_UNROLL
  for (int j = 0; j < J; ++j) numbers[j] = from[j];
}

/// Inputs of a panel that masked_panel() takes, at most.
static constexpr index masked_step = 128;
/// out[n][32]: the numbers of 32 rows of weights at `n` inputs, zeros where they keep none, for n
/// up to `masked_step`. `numbers` move on by as many as they keep. Up to 16 beyond are read.
LINNET_KERNEL static void masked_panel(index n, const word* const* masks, const float** numbers,
                                       float* out) {
#if defined(LINNET_EXPAND)
  constexpr int width = lanes<float>;
  constexpr word low = (word{1} << width % 32) - 1;
  for (int j = 0; j < panel_width; j += width) {
    const float* from[std::size_t{width}];
    for (int r = 0; r < width; ++r) {
      from[r] = numbers[j + r];
      for (index next = 0; next < n; next += 16) __builtin_prefetch(from[r] + n + next);
      __builtin_prefetch(masks[j + r] + 64);
    }
    for (index i = 0; i < n; i += width) {
      vec<float> rows[std::size_t{width}];
      LINNET_UNROLL
      for (int r = 0; r < width; ++r) {
        const word here = masks[j + r][i / 32] >> i % 32 & low;
        rows[r] = spread(here, from[r]);
        from[r] += __builtin_popcount(here);
      }
      turn(rows);
      LINNET_UNROLL
      for (int r = 0; r < width; ++r)
        if (i + r < n) store(out + (i + r) * panel_width + j, rows[r]);
    }
    for (int r = 0; r < width; ++r) numbers[j + r] = from[r];
  }
#else
  for (index i = 0; i < n * panel_width; ++i) out[i] = 0;
  for (int j = 0; j < panel_width; ++j)
    for (index i = 0; i < n; i += 32)
      for (word bits = masks[j][i / 32]; bits != 0; bits &= bits - 1)
        out[(i + __builtin_ctz(bits)) * panel_width + j] = *numbers[j]++;
#endif
}
