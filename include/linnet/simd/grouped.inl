// SPDX-License-Identifier: MIT
/// @file
/// Products of int8 inputs with integer codes whose scales belong to groups of inputs, of one
/// instruction-set level: included inside a struct by simd/levels.hpp. Codes are unpacked in
/// registers, beside the products, whatever the number of rows. Each output is the same sum by the
/// same steps in every tile: groups in ascending order, exact within a group.

/// Words of inputs that meet one word of codes: 8 codes of 4 bits are two words of bytes, 16 of 2
/// are four.
template <code C>
static constexpr int input_words = 8 / bits_of(C);

/// Moves the even bytes of each 8 before the odd ones. They so meet the low and the high halves of
/// the bytes that hold 8 codes of 4 bits.
LINNET_TARGET static inline void split_even_and_odd(index bytes, std::int8_t* y) {
  for (index i = 0; i < bytes; i += 8) {
    std::uint64_t all;
    __builtin_memcpy(&all, y + i, sizeof all);
    std::uint64_t halves[2] = {all, all >> 8};
    LINNET_UNROLL
    for (std::uint64_t& u : halves) {
      u &= 0x00ff00ff00ff00ffu;
      u = (u | u >> 8) & 0x0000ffff0000ffffu;
      u = (u | u >> 16) & 0xffffffffu;
    }
    all = halves[0] | halves[1] << 32;
    __builtin_memcpy(y + i, &all, sizeof all);
  }
}

/// Moves the bytes 0, 4, 8, 12 of each 16 to the front, then 1, 5, 9, 13, and so on. They so meet
/// the same two bits of each byte that holds 4 of 16 codes of 2 bits.
LINNET_TARGET static inline void split_every_fourth(index bytes, std::int8_t* y) {
  for (index i = 0; i < bytes; i += 16) {
    std::int8_t all[16];
    __builtin_memcpy(all, y + i, sizeof all);
    LINNET_UNROLL
    for (int j = 0; j < 16; ++j) y[i + j] = all[j % 4 * 4 + j / 4];
  }
}

/// to_int8() of each `group` of a row's `n` inputs. They lie in the order in which codes `C` are
/// unpacked, with zeros to the end of the last word. `scales` and `sums` have one per group.
template <code C, class T, bool Outliers = false>
LINNET_TARGET static void to_int8_groups(index n, index group, const T* x, std::int8_t* y,
                                         float* scales, std::int32_t* sums,
                                         const int8_rounding& by = {}) {
  for (index g = 0, i = 0; i < n; ++g, i += group)
    scales[g] = to_int8<T, Outliers>(n - i < group ? n - i : group, x + i, y + i, sums[g], by);
  constexpr auto words = input_words<C>;
  if constexpr (words > 1) {
    for (index i = n; i % (4 * words); ++i) y[i] = 0;
    if constexpr (words == 2)
      split_even_and_odd(n, y);
    else
      split_every_fourth(n, y);
  }
}

/// Steps of the sum of a group: acc += the products of a word of inputs and one of unpacked codes.
template <code C>
struct group_steps {
  LINNET_TARGET static inline void unpack(const words& w, int step, words& codes) {
    if constexpr (input_words<C> == 1) {
      codes = w;
      int8_steps::prepare(codes);
    } else if constexpr (input_words<C> == 2) {
      codes = (step == 0 ? w : w >> 4) & 0x0f0f0f0fu;
    } else {
      codes = (w >> static_cast<word>(2 * step)) & 0x03030303u;
    }
  }
#if defined(LINNET_DOT_BYTES)
  /// Sums in 16 bits: 32 inputs add at most 16 * 15 * 127 to one.
  static constexpr bool short_sums = input_words<C> > 1;
#else
  static constexpr bool short_sums = false;
#endif
  using sum = std::conditional_t<short_sums, int8_steps::halves, vec_int<float>>;
  /// The sum of a group before its first step, from what grouped_rows has of its inputs. Bytes less
  /// 128 have the origin 0; other offsets want back what this takes from the sum.
  template <code_offset O>
  LINNET_TARGET static inline std::int32_t begin([[maybe_unused]] word extra) {
    constexpr bool less = C == code::u8 && int8_steps::centre != 0;
    if constexpr (O == code_offset::origin)
      return less ? 0 : static_cast<std::int32_t>(extra);
    else if constexpr (less)
      return int8_steps::centre * static_cast<std::int32_t>(bits_as<float>(extra));
    else
      return 0;
  }
  LINNET_TARGET static inline void step(sum& acc, const words& inputs, const words& codes) {
#if defined(LINNET_DOT_BYTES)
    if constexpr (short_sums)
      acc += LINNET_DOT_BYTES(codes, inputs);
    else
#endif
      int8_steps::step(acc, inputs, codes);
  }
};

#if defined(LINNET_DOT_INT8_LANE)
/// Adds `count` words of packed codes of each column, times R rows of inputs from `x` on, to the
/// sums of a group. Two words of inputs of two rows are a square's.
template <code C, class Steps, int R, int W>
__attribute__((__always_inline__)) LINNET_TARGET static inline void add_group(
    index count, index row, const word* x, const word* w,
    vec_int<float> (&sums)[std::size_t{R}][std::size_t{W}]) {
  using pair = typename vector_of<word, 2>::type;
  constexpr int inputs = input_words<C>;
  constexpr bool squares = Steps::has_squares && R % 2 == 0;
  for (index d = 0; R == 1 && d < count; ++d) {
    __builtin_prefetch(w + 1024 + d * panel_width);
    __builtin_prefetch(w + 1024 + d * panel_width + panel_width / 2);
  }
  vec_int<float> part[std::size_t{R}][std::size_t{W}] = {};
  if constexpr (inputs == 1) {
    const rows_operand<word> a{x, row, 1};
    const columns_operand<word> b{w, panel_width, 0};
    index d = 0;
    if constexpr (squares)
      d = by_squares<Steps, R, W>(count, a, x, b, w, w, part);
    else
      d = by_lanes<Steps, R, W>(count, a, x, b, w, w, part);
    for (; d < count; ++d) {
      words codes[std::size_t{W}];
      row_of_columns<Steps, W>(b, w, d, codes);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i) LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(part[i][v], x[i * row + d] - words{}, codes[v]);
    }
  } else {
    vec_int<float> both[std::size_t{R + 1} / 2][std::size_t{W}][2] = {};
    for (index d = 0; d < count; ++d, x += inputs, w += panel_width) {
      words packed[std::size_t{W}];
      LINNET_UNROLL
      for (int v = 0; v < W; ++v)
        __builtin_memcpy(&packed[v], w + v * lanes<float>, sizeof packed[v]);
      LINNET_UNROLL
      for (int s = 0; s < inputs; s += 2) {
        words columns[std::size_t{W}][2];
        LINNET_UNROLL
        for (int v = 0; v < W; ++v) LINNET_UNROLL
        for (int h = 0; h < 2; ++h) group_steps<C>::unpack(packed[v], s + h, columns[v][h]);
        LINNET_UNROLL
        for (int i = 0; i < R; i += squares ? 2 : 1) {
          pair first, second;
          __builtin_memcpy(&first, x + i * row + s, sizeof first);
          __builtin_memcpy(&second, x + (squares ? i + 1 : i) * row + s, sizeof second);
          const words of_rows = __builtin_shufflevector(first, second, 0, 1, 2, 3);
          LINNET_UNROLL
          for (int v = 0; v < W; ++v) {
            if constexpr (squares) {
              words pairs[2];
              pair_columns(columns[v][0], columns[v][1], pairs);
              Steps::step_square(both[i / 2][v][0], of_rows, pairs[0]);
              Steps::step_square(both[i / 2][v][1], of_rows, pairs[1]);
            } else {
              Steps::template step_lane<0>(part[i][v], of_rows, columns[v][0]);
              Steps::template step_lane<1>(part[i][v], of_rows, columns[v][1]);
            }
          }
        }
      }
    }
    if constexpr (squares) {
      LINNET_UNROLL
      for (int i = 0; i < R; i += 2) LINNET_UNROLL
      for (int v = 0; v < W; ++v) rows_of_squares(both[i / 2][v], part[i][v], part[i + 1][v]);
    }
  }
  LINNET_UNROLL
  for (int i = 0; i < R; ++i) LINNET_UNROLL
  for (int v = 0; v < W; ++v) sums[i][v] += part[i][v];
}
#endif

/// One tile: R rows by W vectors of C = epilogue(A B), in one sweep over the inputs.
template <code C, code_offset O, int R, int W, class Scale>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void grouped_tile(index row, index column, index columns,
                                              const grouped_rows& a, const grouped_panel<Scale>& b,
                                              float* c, index ldc, const epilogue<float>& e) {
  using steps = group_steps<C>;
  constexpr int per_word = 32 / bits_of(C), inputs = input_words<C>;
  constexpr index stretch = 32 / per_word;
  constexpr index per_line = 64 / static_cast<index>(sizeof(Scale));
  vec<float> y[std::size_t{R}][std::size_t{W}] = {};
  const word* w = b.codes + column;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const word* left[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) left[i / 3] = a.codes + (row + i) * a.row;
  const float* const scale = a.scales + row * a.groups;
  const word* const extra = a.extra + row * a.groups;
  for (index g = 0, d = 0; g < a.groups; ++g) {
    // One row waits for memory, in which the next panel follows: 4 KB of codes or 8 groups ahead.
    LINNET_UNROLL
    for (index line = 0; R == 1 && line < panel_width; line += per_line) {
      __builtin_prefetch(b.scales + (g + 8) * panel_width + line);
      if (O != code_offset::origin) __builtin_prefetch(b.offsets + (g + 8) * panel_width + line);
    }
    const index end = d + b.per_group < b.depth ? d + b.per_group : b.depth;
    vec_int<float> sums[std::size_t{R}][std::size_t{W}];
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      sums[i][v] = steps::template begin<O>(extra[i * a.groups + g]) - vec_int<float>{};
#if defined(LINNET_DOT_INT8_LANE)
    add_group<C, int8_steps, R, W>(end - d, a.row, a.codes + row * a.row + d * inputs, w, sums);
    w += (end - d) * panel_width;
    d = end;
#endif
    while (d < end) {
      const index stop = d + stretch < end ? d + stretch : end;
      typename steps::sum part[std::size_t{R}][std::size_t{W}];
      LINNET_UNROLL
      for (int i = 0; i < R; ++i) LINNET_UNROLL
      for (int v = 0; v < W; ++v) {
        if constexpr (steps::short_sums)
          part[i][v] = typename steps::sum{};
        else
          part[i][v] = sums[i][v];
      }
      for (; d < stop; ++d) {
        words packed[std::size_t{W}];
        LINNET_UNROLL
        for (int v = 0; v < W; ++v)
          __builtin_memcpy(&packed[v], w + v * lanes<float>, sizeof packed[v]);
        if constexpr (R == 1) {
          __builtin_prefetch(w + 1024);
          __builtin_prefetch(w + 1024 + panel_width / 2);
        }
        w += panel_width;
        LINNET_UNROLL
        for (int s = 0; s < inputs; ++s) {
          words codes[std::size_t{W}];
          LINNET_UNROLL
          for (int v = 0; v < W; ++v) steps::unpack(packed[v], s, codes[v]);
          LINNET_UNROLL
          for (int i = 0; i < R; ++i) {
            // The difference spreads a number over a vector.
            const words x = left[i / 3][i % 3 * a.row + s] - words{};
            LINNET_UNROLL
            for (int v = 0; v < W; ++v) steps::step(part[i][v], x, codes[v]);
          }
        }
        LINNET_UNROLL
        for (int i = 0; i < R; i += 3) left[i / 3] += inputs;
      }
      LINNET_UNROLL
      for (int i = 0; i < R; ++i) LINNET_UNROLL
      for (int v = 0; v < W; ++v) {
#if defined(LINNET_DOT_BYTES)
        if constexpr (steps::short_sums)
          sums[i][v] += int8_steps::pairs(part[i][v], int8_steps::halves{} + 1);
        else
#endif
          sums[i][v] = part[i][v];
      }
    }
    LINNET_UNROLL
    for (int v = 0; v < W; ++v) {
      const index at = g * panel_width + column + v * lanes<float>;
      const vec<float> of_codes = load_scales(b.scales + at);
      vec<float> offset = {};
      if constexpr (O != code_offset::origin) offset = load_scales(b.offsets + at);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i) {
        const index group = i * a.groups + g;
        vec<float> x = __builtin_convertvector(sums[i][v], vec<float>);
        if constexpr (O == code_offset::zero) x -= offset * bits_as<float>(extra[group]);
        if constexpr (O == code_offset::minimum) {
          // Together they reach no further than the inputs times the weights.
          x *= of_codes;
          LINNET_KEEP(x);  // the second product, not the first, is what joins the sum
          x += offset * bits_as<float>(extra[group]);
          y[i][v] += x * scale[group];
        } else {
          vec<float> both = of_codes * scale[group];
          LINNET_KEEP(both);  // or -ffast-math multiplies in another order in some tiles
          y[i][v] += x * both;
        }
      }
    }
  }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    const index at = column + v * lanes<float>;
    if (at >= columns) break;
    const index count = columns - at < lanes<float> ? columns - at : lanes<float>;
    real_finish<float> finish;
    finish.begin(e, at, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      float* const out = c + (row + i) * ldc + at;
      vec<float> z;
      finish.value(e, y[i][v], row + i, z);
      if (e.accumulate) z += get(out, count);
      put(out, z, count);
    }
  }
}

/// C[M, columns] = epilogue(A B) of int8 inputs and one panel of codes, serial. With x the sum of a
/// group's inputs times codes, a sum grows by x * (scale of weights * scale of inputs). Zeros times
/// the sum of inputs are taken from x. With minima it grows by (x * scale of weights + minimum *
/// sum of inputs) * scale of inputs.
template <code C, code_offset O, class Scale>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_groups(index M, index columns, const grouped_rows& a,
                                          const grouped_panel<Scale>& b, float* c, index ldc,
                                          const epilogue<float>& e) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<float>, rows = LINNET_ROWS / 2,
                wide = per_panel < 4 ? per_panel : 4;
  index i = 0;
  for (; i + rows <= M; i += rows)
    for (index j = 0; j < columns; j += 2 * lanes<float>)
      grouped_tile<C, O, rows, 2>(i, j, columns, a, b, c, ldc, e);
  for (; i < M; ++i)
    for (index j = 0; j < columns; j += wide * lanes<float>)
      grouped_tile<C, O, 1, wide>(i, j, columns, a, b, c, ldc, e);
}
