// SPDX-License-Identifier: MIT
/// @file
/// Products with matrices that keep some of each few inputs, of one instruction-set level: included
/// inside a struct by simd/levels.hpp. Numbers and the places of their inputs are read as they are
/// stored. The inputs of a group fit a register, from which each column takes its own.

/// One of the numbers from `p` on for each lane: the low `Bits` bits of `i` say which.
template <int Bits>
LINNET_TARGET static inline vec<float> numbers_at(const float* p, const words& i) {
#if defined(LINNET_LOOK_UP)
  if constexpr (Bits == 2)
    return LINNET_LOOK_UP_4(p, i);
  else if constexpr (Bits == 3)
    return LINNET_LOOK_UP_8(p, i);
  else
    return LINNET_LOOK_UP(p, i);
#else
  word u[lanes<float>];
  float x[lanes<float>];
  __builtin_memcpy(u, &i, sizeof u);
  for (int l = 0; l < lanes<float>; ++l) x[l] = p[u[l] & ((1u << Bits) - 1)];
  return load(x);
#endif
}
/// Rows of a panel of plain numbers, or of words of codes, before number `i` of a column.
template <class Word, code C>
static constexpr index number_row(index i) {
  if constexpr (std::is_same_v<Word, word>)
    return i / codes_of_block(C) * words_of_block(C);
  else
    return i;
}
/// Number `i` of a row of plain numbers, or of codes that words hold: `numbers` has those of 16
/// codes where they are looked up.
template <code C, bool LookedUp>
LINNET_TARGET static inline vec<float> kept_number(const float* w, int i, const float*) {
  return load(w + i * panel_width);
}
/// @copydoc kept_number()
template <code C, bool LookedUp>
LINNET_TARGET static inline vec<float> kept_number(const word* w, int i, const float* numbers) {
  constexpr int block = codes_of_block(C);
  const word* const from = w + i / block * words_of_block(C) * panel_width;
  if constexpr (LookedUp)
    return numbers_at<4>(numbers, any_code<C>(from, i % block));
  else
    return decode_any<C>(from, i % block);
}
/// Whether registers have 64 bytes, of which one instruction finds any of 16 numbers.
static constexpr bool wide_vectors = LINNET_WIDTH > 32;

/// Adds to sums[R][32] the products of `R` rows of inputs with a panel of the numbers that are kept
/// of each few inputs. `w` and the scales are those of numbers [first, last) and of all columns,
/// `places` those of the whole panel.
template <class Steps, code C, code_offset Offset, int R, class Word, class Scale>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void rows_by_kept(const kept_rows& a, const Word* w, const word* places,
                                       const Scale* scales, const Scale* zeros, float zero,
                                       float* sums) {
  constexpr code P = Steps::places;
  constexpr bool coded = std::is_same_v<Word, word>, minima = Offset == code_offset::minimum;
  constexpr bool looked_up =
      coded && C == code::u4 && Offset == code_offset::origin && wide_vectors;
  constexpr bool centred = coded && is_integer(C) && !minima && !looked_up;
  constexpr int table = 1 << bits_of(P), block = codes_of_block(P), rows = words_of_block(P),
                per_panel = static_cast<int>(panel_width) / lanes<float>, together = 2,
                chains = R == 1 ? 4 : 1,
                step = coded && codes_of_block(C) > block ? codes_of_block(C) : block;
  constexpr index of = Steps::group, kept = Steps::kept;
  static_assert(per_panel % together == 0);
  // Numbers whose groups are followed by as many inputs as a register is to hold.
  const index within = a.k < table ? 0 : ((a.k - table) / of + 1) * kept;
  const index safe = within < a.last ? within : a.last;
  alignas(64) float numbers[16];  // of codes, where finding them is faster than computing
  if constexpr (looked_up)
    for (int i = 0; i < 16; ++i) numbers[i] = static_cast<float>(i) - zero;
  for (int v = 0; v < per_panel; v += together) {
    vec<float> acc[std::size_t{R}][std::size_t{together * chains}] = {},
                                                          total[std::size_t{R}]
                                                               [std::size_t{together}] = {},
                                                          origin[std::size_t{together}];
    for (int t = 0; t < together; ++t)
      origin[t] = zeros ? load_scales(zeros + (v + t) * lanes<float>) : vec<float>{} + zero;
    for (index c = a.first; c < a.last;) {
      const word* const here = places + c / block * rows * panel_width + v * lanes<float>;
      if (c % step == 0 && c + step <= safe) {
        const Word* const values =
            w + number_row<Word, C>(c - a.first) * panel_width + v * lanes<float>;
        const float* const from = a.x + c / kept * of;
        // One row waits for memory, in which the next panels follow.
        __builtin_prefetch(here + 1024);
        LINNET_UNROLL
        for (int h = 0; h < step; h += 8) {
          __builtin_prefetch(values + number_row<Word, C>(h) * panel_width + 1024);
          LINNET_UNROLL
          for (int i = h; i < h + 8; ++i) {
            // Where steps end with groups, the compiler knows how far a group is from the first.
            const float* const x =
                step % kept == 0 ? from + i / kept * of : a.x + (c + i) / kept * of;
            words place[std::size_t{together}];
            vec<float> y[std::size_t{together}];
            LINNET_UNROLL
            for (int t = 0; t < together; ++t) {
              place[t] =
                  any_code<P>(here + i / block * rows * panel_width + t * lanes<float>, i % block);
              y[t] = kept_number<C, looked_up>(values + t * lanes<float>, i, numbers);
              if constexpr (centred) y[t] = y[t] - origin[t];
            }
            LINNET_UNROLL
            for (int r = 0; r < R; ++r) {
              LINNET_UNROLL
              for (int t = 0; t < together; ++t) {
                const vec<float> input = numbers_at<bits_of(P)>(x + r * a.row, place[t]);
                acc[r][i % chains * together + t] += input * y[t];
                if constexpr (minima) total[r][t] += input;
              }
            }
          }
        }
        c += step;
      } else {
        const index first = c / kept * of;
        float x[std::size_t{R * table}] = {};
        for (int r = 0; r < R; ++r)
          for (index j = 0; j < table && first + j < a.k; ++j)
            x[r * table + j] = a.x[r * a.row + first + j];
        for (int t = 0; t < together; ++t) {
          const words place = any_code<P>(here + t * lanes<float>, static_cast<int>(c % block));
          vec<float> y = kept_number<C, looked_up>(w + (v + t) * lanes<float>,
                                                   static_cast<int>(c - a.first), numbers);
          if constexpr (centred) y = y - origin[t];
          for (int r = 0; r < R; ++r) {
            const vec<float> input = numbers_at<bits_of(P)>(x + r * table, place);
            acc[r][t] += input * y;
            if constexpr (minima) total[r][t] += input;
          }
        }
        ++c;
      }
    }
    for (int t = 0; t < together; ++t) {
      const int at = (v + t) * lanes<float>;
      LINNET_UNROLL
      for (int r = 0; r < R; ++r) {
        vec<float> x = acc[r][t];
        LINNET_UNROLL
        for (int i = 1; i < chains; ++i) x += acc[r][i * together + t];
        if (scales) x *= load_scales(scales + at);
        if constexpr (minima) x += origin[t] * total[r][t];
        float* const sum = sums + r * panel_width + at;
        store(sum, load(sum) + x);
      }
    }
  }
}
/// Rows of inputs that rows_by_kept() takes at a time, at most. Of more than the second number
/// place_kept() and a product of numbers are faster.
#if defined(LINNET_LOOK_UP)
static constexpr int kept_rows_together = LINNET_ROWS > 8 ? 8 : LINNET_ROWS;
static constexpr index most_kept_rows = wide_vectors ? 0 : 16;
#else
static constexpr int kept_rows_together = 1;
static constexpr index most_kept_rows = 1;
#endif

/// Numbers of one group of a vector's columns where they stand, `Count` rows of a panel.
template <int Kept, int Count>
LINNET_TARGET static inline void place_group(const words* places, const vec<float>* x, float* out) {
  LINNET_UNROLL
  for (int j = 0; j < Count; ++j) {
    vec<float> y = {};
    LINNET_UNROLL
    for (int i = 0; i < Kept; ++i) y = places[i] == static_cast<word>(j) ? x[i] : y;
    store(out + j * panel_width, y);
  }
}
/// out[k][32]: the numbers [first, last) that are kept of each few inputs where they stand, zeros
/// elsewhere, whole groups. `first` begins one; `numbers` are those from it on.
template <class Steps>
LINNET_KERNEL static void place_kept(index first, index last, const float* numbers,
                                     const word* places, float* out) {
  constexpr code P = Steps::places;
  constexpr int block = codes_of_block(P), kept = static_cast<int>(Steps::kept),
                of = static_cast<int>(Steps::group);
  constexpr word mask = (1u << bits_of(P)) - 1;
  for (int at = 0; at < panel_width; at += lanes<float>) {
    words place[std::size_t{kept}];
    vec<float> x[std::size_t{kept}];
    const float* from = numbers + at;
    float* to = out + at;
    for (index c = first; c < last;) {
      const word* const here = places + c / block * words_of_block(P) * panel_width + at;
      if (block % kept == 0 && c % block == 0 && c + block <= last) {
        LINNET_UNROLL
        for (int g = 0; g < block / kept; ++g) {
          LINNET_UNROLL
          for (int i = 0; i < kept; ++i) {
            place[i] = any_code<P>(here, g * kept + i) & mask;
            x[i] = load(from + (g * kept + i) * panel_width);
          }
          place_group<kept, of>(place, x, to + g * of * panel_width);
        }
        c += block, from += block * panel_width, to += block / kept * of * panel_width;
      } else {
        const int count = last - c < kept ? static_cast<int>(last - c) : kept;
        for (int i = 0; i < kept; ++i) {
          const index n = c + (i < count ? i : 0);  // the first once more, of a group that is short
          place[i] = any_code<P>(places + n / block * words_of_block(P) * panel_width + at,
                                 static_cast<int>(n % block)) &
                     mask;
          x[i] = load(from + (n - c) * panel_width);
        }
        place_group<kept, of>(place, x, to);
        c += count, from += kept * panel_width, to += of * panel_width;
      }
    }
  }
}
