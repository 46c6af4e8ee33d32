// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Arguments of the kernels of every instruction-set level.

#include <initializer_list>

#include <linnet/core/finite.hpp>

LINNET_SIMD_NAMESPACE_BEGIN

/// Elementwise nonlinearities: the argument of the activation kernels.
enum class activation_kind {
  relu,          ///< max(x, 0)
  gelu,          ///< x Phi(x), exact, with the error function
  gelu_tanh,     ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), "gelu_new"
  silu,          ///< x sigmoid(x)
  tanh,          ///< tanh x
  relu_squared,  ///< max(x, 0)^2 (So et al. 2021), "relu2"
  shifted_relu   ///< max(x - 1, 0) (Mirzadeh et al. 2023): fewer values stay than of a ReLU
};

namespace simd {

/// The code of a bfloat16 value.
enum class bf16_code : std::uint16_t {};
/// The code of an IEEE half precision value.
enum class f16_code : std::uint16_t {};

/// The number of a bf16 code.
constexpr float number_of(bf16_code x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x) << 16);
}
/// The number of an f16 code, NaNs and infinities included.
constexpr float number_of(f16_code x) {
  const auto code = static_cast<std::uint32_t>(x), magnitude = code & 0x7fffu;
  const float steps = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  const auto subnormal = __builtin_bit_cast(std::uint32_t, steps);
  const std::uint32_t placed = (magnitude << 13) + (magnitude < 0x7c00u ? 112u << 23 : 224u << 23);
  return __builtin_bit_cast(float,
                            (code & 0x8000u) << 16 | (magnitude < 0x400u ? subnormal : placed));
}

/// For each mask of 8 lanes the number that goes to each: 0, 1, ... where a bit is set, else -1.
struct expansions {
  std::int8_t of[256][8] = {};
  constexpr expansions() {
    for (int mask = 0; mask < 256; ++mask)
      for (int lane = 0, next = 0; lane < 8; ++lane)
        of[mask][lane] = static_cast<std::int8_t>(mask >> lane & 1 ? next++ : -1);
  }
};
inline constexpr expansions expanded{};

/// Columns of a packed panel. One layout serves every instruction-set level.
inline constexpr index panel_width = 32;
/// Where number `g` of row `n` is in panels whose rows have `width` numbers each.
constexpr index place_in_panel(index n, index g, index width) {
  return (n / panel_width * width + g) * panel_width + n % panel_width;
}

/// A 32-bit word of a packed panel: codes of one column for successive k, the first in the lowest
/// bits. It holds 2 codes of 16 bits, 4 of 8, 8 of 4 or 16 of 2. Codes of 3, 5 and 6 bits fill
/// several words, see words_of_block().
using word = std::uint32_t;

/// How the codes of a word become numbers.
enum class code {
  bf16,     ///< the upper half of a float
  f16,      ///< IEEE half precision
  f8_e4m3,  ///< 8 bits: 4 of exponent, bias 7, no infinities
  f8_e5m2,  ///< 8 bits: the upper half of an f16
  u8,       ///< 0 to 255
  u6,       ///< 0 to 63
  u5,       ///< 0 to 31
  u4,       ///< 0 to 15
  u3,       ///< 0 to 7
  u2,       ///< 0 to 3
  f4_e2m1,  ///< 4 bits: 2 of exponent, bias 1, no infinities and no NaN
  nf4       ///< 16 normal quantiles
};
/// Bits of one code.
constexpr int bits_of(code c) {
  switch (c) {
    case code::bf16:
    case code::f16:
      return 16;
    case code::u6:
      return 6;
    case code::u5:
      return 5;
    case code::u4:
    case code::f4_e2m1:
    case code::nf4:
      return 4;
    case code::u3:
      return 3;
    case code::u2:
      return 2;
    default:
      return 8;
  }
}
/// The code of unsigned integers of `bits` bits; that of 8 where there is none.
constexpr code integer_code(int bits) {
  for (const code c : {code::u6, code::u5, code::u4, code::u3, code::u2})
    if (bits_of(c) == bits) return c;
  return code::u8;
}
/// Whether codes of this kind are whole numbers from 0 on.
constexpr bool is_integer(code c) { return integer_code(bits_of(c)) == c; }
/// Whole codes in a word: bits_of(c) of each lie side by side from the lowest on.
constexpr int codes_of_word(code c) { return 32 / bits_of(c); }
/// Bits of a word above its whole codes.
constexpr int spare_bits(code c) { return 32 % bits_of(c); }
/// Words whose codes belong together: where words have spare bits, those of bits_of(c) words hold
/// the last codes. The first word holds their lowest bits.
///
///     u3: 3 x (10 codes of 3 bits, 2 spare bits): 30 codes and 2 of 6 spare bits
///     u5: 5 x (6 codes of 5 bits, 2 spare bits): 30 codes and 2 of 10 spare bits
///     u6: 6 x (5 codes of 6 bits, 2 spare bits): 30 codes and 2 of 12 spare bits
constexpr int words_of_block(code c) { return spare_bits(c) ? bits_of(c) : 1; }
/// Codes of one column in those words.
constexpr int codes_of_block(code c) { return words_of_block(c) * 32 / bits_of(c); }

/// Code `i` of a block of one column, whose words are `stride` apart.
constexpr word code_at(code c, const word* block, index stride, int i) {
  const int bits = bits_of(c), per_word = codes_of_word(c), spare = spare_bits(c);
  const int last = i - words_of_block(c) * per_word;  // number among the last ones
  word x = 0;
  if (last < 0)
    x = block[i / per_word * stride] >> i % per_word * bits;
  else
    for (int w = bits; w-- > 0;) x = x << spare | block[w * stride] >> (32 - spare);
  return x >> (last > 0 ? last * bits : 0) & ((1u << bits) - 1);
}
/// Adds code `i` to a block that holds zeros there, whose words follow each other.
constexpr void add_code(code c, word* block, int i, word x) {
  const int bits = bits_of(c), per_word = codes_of_word(c), spare = spare_bits(c);
  const int last = i - words_of_block(c) * per_word;
  if (last < 0)
    block[i / per_word] |= x << i % per_word * bits;
  else
    for (int w = 0; w < bits; ++w) block[w] |= x << last * bits >> w * spare << (32 - spare);
}
/// The values of the NF4 codes (Dettmers et al. 2023).
inline constexpr float nf4_values[16] = {-1.0f,        -0.6961928f,  -0.52507305f, -0.39491749f,
                                         -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
                                         0.0795803f,   0.1609302f,   0.2461123f,   0.33791524f,
                                         0.44070983f,  0.562617f,    0.72295684f,  1.0f};
/// The values of 4-bit floats.
inline constexpr float f4_values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                        -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
/// The values of codes that are looked up, or null.
constexpr const float* values_of(code c) {
  return c == code::nf4 ? nf4_values : c == code::f4_e2m1 ? f4_values : nullptr;
}

/// Left factor A of a product, addressed as a(i, k) = data[i*row + k*column]. Transposed and sliced
/// matrices so need no copy.
template <class T>
struct rows_operand {
  const T* data;
  index row, column;
};

/// Right factor B of a product: K rows of N columns. Column j of row k is data[(j / 32) * panel +
/// k*ld + j % 32]. That holds of packed panels (ld = 32, panel = 32 K) as well as of any row-major
/// matrix (panel = 32).
template <class Value>
struct columns_operand {
  const Value* data;
  index ld, panel;
};

/// Tokens in a block of cached keys or values: blocks may lie anywhere.
inline constexpr index token_block = 32;

/// Keys or values of one head and sequence, a row for each token. Token j is row j of `data`, or
/// behind `fixed` rows in a ring, or in the block that `table` names; `fixed` and `ring` are
/// multiples of a block.
template <class Code>
struct token_rows {
  const Code* data;
  index stride;  ///< from row to row
  index fixed = 0, ring = 0;
  const std::int32_t* table = nullptr;

  /// Number of the row that holds token j.
  constexpr index place(index j) const {
    if (table) return table[j / token_block] * token_block + j % token_block;
    return ring && j >= fixed ? fixed + (j - fixed) % ring : j;
  }
  /// Where row place(j) begins.
  constexpr const Code* row(index j) const { return data + place(j) * stride; }
  /// End of the tokens that follow token j in memory without a gap, at most `end`.
  constexpr index run(index j, index end) const {
    const index next = (j / token_block + 1) * token_block;
    return (ring || table) && next < end ? next : end;
  }
};

/// Heads that read tokens together. `groups` heads of keys or values lie `slot` numbers apart in
/// each token. Each is read by `size` rows of queries, or of weights of tokens. Rows and results
/// of the heads follow each other at equal distances.
struct head_rows {
  index groups = 1, slot = 0, size = 1, inputs = 0, outputs = 0;
};

/// Epilogue of a product, applied before it is stored: y = [y +] alpha * x + bias_j.
template <class T>
struct epilogue {
  const T* bias = nullptr;  ///< one per column, or null
  T alpha = T(1);
  bool accumulate = false;  ///< add to what is there instead of overwriting it

  /// Epilogue of the part of the product that begins there.
  constexpr epilogue from(index, index column) const {
    return {bias ? bias + column : nullptr, alpha, accumulate};
  }
};

/// Epilogue of an integer product of signed activations and unsigned weight codes: y = [y +] alpha
/// row_scale_i scale_j (x - zero_j row_sum_i) + bias_j.
struct integer_epilogue {
  const float* bias = nullptr;  ///< one per column, or null
  float alpha = 1;
  bool accumulate = false;                ///< add to what is there instead of overwriting it
  const float* scale = nullptr;           ///< one per column
  const float* zero = nullptr;            ///< the code of 0 in each column; null for 128
  const float* row_scale = nullptr;       ///< one per row
  const std::int32_t* row_sum = nullptr;  ///< sum of each row's codes

  /// Epilogue of the part of the product that begins there.
  constexpr integer_epilogue from(index row, index column) const {
    return {bias ? bias + column : nullptr, alpha,           accumulate,   scale + column,
            zero ? zero + column : nullptr, row_scale + row, row_sum + row};
  }
};

/// How a row is rounded to int8. Numbers whose magnitudes have the bits `outliers` or more stay out
/// of it: they become 0. Infinities and NaN are no outliers.
struct int8_rounding {
  static constexpr std::int32_t infinity = 0x7f800000;
  float largest = 127;               ///< the code of the largest magnitude, at most 127
  std::int32_t outliers = infinity;  ///< infinity where there are none

  /// Whether there may be outliers.
  constexpr bool any() const { return outliers < infinity; }
  /// Whether `x` is an outlier.
  bool keeps(float x) const {
    std::int32_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffff;
    return bits >= outliers && bits < infinity;
  }
};

/// How codes with scales for groups of inputs become numbers.
enum class code_offset {
  origin,  ///< scale * (code - a constant)
  zero,    ///< scale * (code - zero), one zero for each group and column
  minimum  ///< scale * code + minimum, likewise
};
/// Inputs of a product, rounded to int8 by groups: rows of words of four.
struct grouped_rows {
  const word* codes;
  index row;            ///< words from row to row
  const float* scales;  ///< [rows, groups]
  /// [rows, groups]: the sums of the groups' codes, as floats. Of an origin: -origin times them, as
  /// integers; the origin of codes of 8 bits is 128.
  const word* extra;
  index groups;
};
/// One panel of codes with scales for groups of inputs, which are floats or halves.
template <class Scale>
struct grouped_panel {
  const word* codes;
  index depth, per_group;  ///< rows of words in it, and in a group
  const Scale* scales;     ///< [groups, 32]
  const Scale* offsets;    ///< [groups, 32]: zeros or minima; null for an origin
};

/// The scales of a row of codes.
struct scales_of_row {
  const float* scales;  ///< [groups], or null
  const float* zeros;   ///< [groups]: zeros or minima; null for an origin
  float origin;
  index group, groups;  ///< numbers that share a scale, 0: all; scales
};

/// Words of a block of codes in a row of a matrix with a mask: a register, or several.
inline constexpr int mask_words = 16;
/// Rows of `k` inputs for the numbers [first, last) that a panel keeps of each few of them.
struct kept_rows {
  index first, last, k;
  const float* x;
  index row;  ///< from row to row
};
/// `Kept` numbers of each `Group` inputs, whose places are codes `Places`.
template <code Places, index Kept, index Group>
struct kept_steps {
  static constexpr code places = Places;
  static constexpr index kept = Kept, group = Group;
};

}  // namespace simd

LINNET_SIMD_NAMESPACE_END
