// SPDX-License-Identifier: MIT
/// @file
/// Stored codes and low-precision activations of one instruction-set level: included inside a
/// struct by simd/levels.hpp.

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (is_integer(C)) {
    const words u = (w >> shift) & ((1u << bits_of(C)) - 1);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (values_of(C) != nullptr) {
    constexpr const float* values = values_of(C);
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    vec<float> x;
    decode_small_floats<C, lanes<float>>(w >> shift, x);
    return x;
  }
}

/// A register of scales of groups, which are kept as floats or in half precision.
LINNET_TARGET static inline vec<float> load_scales(const float* p) { return load(p); }
/// @copydoc load_scales()
LINNET_TARGET static inline vec<float> load_scales(const f16_code* p) {
  vec<float> x;
  load_f16<lanes<float>>(p, x);
  return x;
}
/// Collects the spare bits of a block's words, which come in order: they go on top of `spare`.
template <code C>
LINNET_TARGET static inline void collect(words& spare, const words& w) {
  constexpr word top = ~word{0} << (32 - spare_bits(C));
  spare = spare >> static_cast<word>(spare_bits(C)) | (w & top);
}
/// Moves collected bits to where the codes of a word lie.
template <code C>
LINNET_TARGET static inline words collected(const words& spare) {
  return spare >> static_cast<word>(32 - bits_of(C) * spare_bits(C));
}
/// The bits from which code `i` of a block of each column begins, with any `i`.
template <code C>
LINNET_TARGET static inline words any_code(const word* block, int i) {
  constexpr int per_word = codes_of_word(C), whole = words_of_block(C) * per_word;
  words u;
  if constexpr (spare_bits(C) > 0)
    if (i >= whole) {
      words spare = {};
      for (int j = 0; j < words_of_block(C); ++j) {
        __builtin_memcpy(&u, block + j * panel_width, sizeof u);
        collect<C>(spare, u);
      }
      return collected<C>(spare) >> static_cast<word>((i - whole) * bits_of(C));
    }
  __builtin_memcpy(&u, block + i / per_word * panel_width, sizeof u);
  return u >> static_cast<word>(i % per_word * bits_of(C));
}
/// Number `i` of a block of each column, with any `i`.
template <code C>
LINNET_TARGET static inline vec<float> decode_any(const word* block, int i) {
  return decode<C>(any_code<C>(block, i), 0);
}

/// out[k][32] = scale_j (code - zero_j) for `n` blocks of words of one panel: codes_of_block() rows
/// of numbers for each. Without `scales` the codes are the numbers. A constant `zero` serves all
/// columns where `zeros` is null. `Minima` adds `zeros` after scaling: out = scale_j code + zero_j.
template <code C, bool Minima = false, class Scale = float>
LINNET_KERNEL static void decode_panel(index n, const word* w,
                                       const std::type_identity_t<Scale>* scales,
                                       const std::type_identity_t<Scale>* zeros, float zero,
                                       float* out) {
  constexpr int per_word = codes_of_word(C), of_block = words_of_block(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load_scales(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load_scales(zeros + at) : vec<float>{} + zero;
    float* y = out + at;
    for (index k = 0; k < n; ++k) {
      words spare = {};
      for (int j = 0; j < of_block; ++j) {
        words u;
        __builtin_memcpy(&u, w + (k * of_block + j) * panel_width + at, sizeof u);
        LINNET_UNROLL
        for (int i = 0; i < per_word; ++i) {
          vec<float> x = decode<C>(u, i);
          if constexpr (is_integer(C) && !Minima) x = x - origin;
          if (scales) x = x * scale;
          if constexpr (Minima) x = x + origin;
          store(y + i * panel_width, x);
        }
        y += per_word * panel_width;
        if constexpr (spare_bits(C) > 0) collect<C>(spare, u);
      }
      if constexpr (spare_bits(C) > 0) {
        const words u = collected<C>(spare);
        for (int i = 0; i < spare_bits(C); ++i) {
          vec<float> x = decode<C>(u, i) - origin;
          if (scales) x = x * scale;
          store(y + i * panel_width, x);
        }
        y += spare_bits(C) * panel_width;
      }
    }
  }
}

/// Adds to sums[32] scale_j (sum of a_k (code_kj - zero_j)): one row of `k` inputs with one panel
/// whose scales they share. Decoded weights stay in registers. With `Minima` it adds scale_j (sum
/// of a_k code_kj) + zero_j (sum of a_k).
template <code C, bool Minima = false, class Scale = float>
LINNET_KERNEL static void row_by_panel(index k, const float* a, const word* w,
                                       const std::type_identity_t<Scale>* scales,
                                       const std::type_identity_t<Scale>* zeros, float zero,
                                       float* sums) {
  constexpr int per_word = codes_of_word(C), of_block = words_of_block(C),
                block = codes_of_block(C), chains = per_word < 8 ? per_word : 8,
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = is_integer(C) && !Minima;
  float total = 0;
  if constexpr (Minima) {
    vec<float> parts = {};
    for (index i = 0; i < k; i += lanes<float>)
      parts += get(a + i, k - i < lanes<float> ? k - i : lanes<float>);
    total = sum<float>(parts);
  }
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load_scales(zeros + at) : vec<float>{} + zero;
    vec<float> acc[std::size_t{chains}] = {};
    const index whole = k / block;
    const float* from = a;
    for (index n = 0; n < whole; ++n) {
      words spare = {};
      for (int j = 0; j < of_block; ++j) {
        const word* const here = w + (n * of_block + j) * panel_width + at;
        words u;
        __builtin_memcpy(&u, here, sizeof u);
        // One row waits for memory, in which the next panels follow.
        __builtin_prefetch(here + 1024);
        LINNET_UNROLL
        for (int i = 0; i < per_word; ++i) {
          vec<float> x = decode<C>(u, i);
          if constexpr (integer) x = x - origin;
          acc[i % chains] += from[i] * x;
        }
        from += per_word;
        if constexpr (spare_bits(C) > 0) collect<C>(spare, u);
      }
      if constexpr (spare_bits(C) > 0) {
        const words u = collected<C>(spare);
        acc[0] += from[0] * (decode<C>(u, 0) - origin);
        acc[1] += from[1] * (decode<C>(u, 1) - origin);
        from += 2;
      }
    }
    for (int i = 0; i < static_cast<int>(k % block); ++i) {
      vec<float> x = decode_any<C>(w + whole * of_block * panel_width + at, i);
      if constexpr (integer) x = x - origin;
      acc[0] += from[i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < chains; ++i) x += acc[i];
    if (scales) x *= load_scales(scales + at);
    if constexpr (Minima) x += origin * total;
    store(sums + at, load(sums + at) + x);
  }
}

/// The bits of the outliers among numbers, and zeros in place of the others.
LINNET_TARGET static inline void outliers_of(const vec<float>& x, const int8_rounding& by,
                                             vec_int<float>& y) {
  const vec_int<float> bits = bits_as<vec_int<float>>(x), a = bits & 0x7fffffff;
  y = bits & (a >= by.outliers) & (a < int8_rounding::infinity);
}
/// Zeros in place of the outliers among numbers, where there may be any.
template <bool Outliers>
LINNET_TARGET static inline void drop_outliers(vec<float>& x, const int8_rounding& by) {
  if constexpr (Outliers) {
    vec_int<float> y;
    outliers_of(x, by, y);
    x = bits_as<vec<float>>(bits_as<vec_int<float>>(x) ^ y);
  }
}
/// kept[n] = the outliers of x[n], zeros in place of the others. Writes the numbers of the
/// `stretch`es of a row that hold outliers, in ascending order; returns how many there are.
template <class T>
LINNET_KERNEL static std::int32_t keep_outliers(index n, const T* x, const int8_rounding& by,
                                                index stretch, T* kept, std::int32_t* numbers) {
  constexpr index wide = 16;  // a multiple of every stretch and of every vector
  std::int32_t count = 0;
  for (index first = 0; first < n; first += wide) {
    const index last = n - first < wide ? n : first + wide;
    vec_int<float> any = {};
    for (index i = first; i < last; i += lanes<float>) {
      const index some = n - i < lanes<float> ? n - i : lanes<float>;
      vec_int<float> y;
      outliers_of(get(x + i, some), by, y);
      put(kept + i, bits_as<vec<float>>(y), some);
      any |= y & 0x7fffffff;
    }
    if (largest<std::int32_t>(any) == 0) continue;
    for (index i = first; i < last; i += stretch)
      for (index j = i; j < last && j < i + stretch; ++j)
        if (kept[j] != 0) {
          numbers[count++] = static_cast<std::int32_t>(i / stretch);
          break;
        }
  }
  return count;
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / largest.
/// Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes. A row
/// below 2^-119 becomes zeros with the scale 1. A row that is not finite has the scale NaN, so that
/// whatever is made of it is NaN. Without `Outliers` none is looked for.
template <class T, bool Outliers = false>
LINNET_KERNEL static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum,
                                   const int8_rounding& by = {}) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec_int<float> most = {};  // magnitudes as bits: in their order NaN is the largest
  for (index i = 0; i < n; i += lanes<float>) {
    vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    drop_outliers<Outliers>(v, by);
    const vec_int<float> a = bits_as<vec_int<float>>(v) & 0x7fffffff;
    most = a > most ? a : most;
  }
  const std::int32_t top_bits = largest<std::int32_t>(most);
  if (top_bits >= 0x7f800000) {
    for (index i = 0; i < round_up(n, 4); ++i) y[i] = 0;
    codes_sum = 0;
    return bits_as<float>(std::int32_t{0x7fc00000});
  }
  const float top = bits_as<float>(top_bits);
  const bool tiny = top < 0x1p-119f;  // 127 / top might be infinite
  const float scale = tiny ? 1.0f : top / by.largest, inverse = tiny ? 0.0f : by.largest / top;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    vec<float> v = get(x + i, count);
    drop_outliers<Outliers>(v, by);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
#if defined(LINNET_DOT_BF16_LANE)
  static constexpr bool has_lanes = true, has_squares = true;
  template <int Lane>
  LINNET_TARGET static inline void step_lane(sum& acc, const right& a, const right& b) {
    LINNET_DOT_BF16_LANE(acc, a, b, Lane);
  }
  LINNET_TARGET static inline void step_square(sum& acc, const right& a, const right& b) {
    LINNET_SQUARE_BF16(acc, a, b);
  }
#else
  static constexpr bool has_lanes = false, has_squares = false;
#endif
  LINNET_TARGET static inline void prepare(right&) {}
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  /// The number that prepare() takes from each byte of b: the sum grows by a (b - centre).
#if defined(LINNET_INT8_CENTRE)
  static constexpr std::int32_t centre = LINNET_INT8_CENTRE;
#else
  static constexpr std::int32_t centre = 0;
#endif
  LINNET_TARGET static inline void prepare([[maybe_unused]] right& b) {
    if constexpr (centre != 0) b ^= 0x80808080u;
  }
#if defined(LINNET_DOT_INT8_LANE)
  static constexpr bool has_lanes = true;
  template <int Lane>
  LINNET_TARGET static inline void step_lane(sum& acc, const right& a, const right& b) {
    LINNET_DOT_INT8_LANE(acc, a, b, Lane);
  }
#else
  static constexpr bool has_lanes = false;
#endif
#if defined(LINNET_SQUARE_INT8)
  static constexpr bool has_squares = true;
  LINNET_TARGET static inline void step_square(sum& acc, const right& a, const right& b) {
    LINNET_SQUARE_INT8(acc, a, b);
  }
#else
  static constexpr bool has_squares = false;
#endif
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    constexpr std::int32_t origin = 128 - int8_steps::centre;
    const vec_int<float> centred =
        e.zero ? sum - (zero - int8_steps::centre) * e.row_sum[row] : sum - origin * e.row_sum[row];
    // Each step is rounded, so that all levels have the same bits, also with -ffast-math.
    float of_row = e.alpha * e.row_scale[row];
    LINNET_KEEP(of_row);
    vec<float> both = scale * of_row;
    LINNET_KEEP(both);
    y = __builtin_convertvector(centred, vec<float>) * both;
    LINNET_KEEP(y);
    y += bias;
    LINNET_KEEP(y);
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
