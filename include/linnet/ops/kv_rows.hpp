// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Layout of keys and values in memory, as attention reads them.

#include <linnet/simd/operands.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Where the tokens of paged caches lie: numbers of blocks in a pool that all sequences share.
struct page_tables {
  const std::int32_t* tables = nullptr;  ///< [batch, size] blocks of each sequence, or null
  index size = 0;                        ///< blocks of the longest sequence
};

/// Tokens of a call that are no text but a tree. Each follows its parent, and sees its ancestors
/// and the text before the call alone.
struct token_tree {
  const index* parents =
      nullptr;                    ///< [batch, length] number of a token's parent in the call, which
                                  ///< stands before it, or -1 where it follows the text; or null
  const index* depths = nullptr;  ///< [batch, length] number of ancestors in the call
};

/// Keys or values of all sequences of a call: [batch, tokens, kv_heads, slot]; the cache of a
/// session or the output of a linear map.
template <class Code>
struct kv_rows {
  const Code* data = nullptr;
  index tokens = 0;               ///< from sequence to sequence
  index stride = 0;               ///< from token to token
  index slot = 0;                 ///< from head to head
  const float* scales = nullptr;  ///< of codes, [batch, tokens, kv_heads], or null
  index fixed = 0;                ///< rows in front of a ring
  index ring = 0;                 ///< tokens after which rows are used again; 0 for never
  page_tables pages{};

  constexpr bool paged() const { return pages.tables != nullptr; }
  /// One head of one sequence.
  constexpr simd::token_rows<Code> of(index b, index head) const {
    return {data + (paged() ? 0 : b * tokens * stride) + head * slot, stride, fixed, ring,
            paged() ? pages.tables + b * pages.size : nullptr};
  }
  /// The scale of row `place` of head `head` of sequence `b`.
  constexpr const float& scale(index b, index place, index head) const {
    return scales[((paged() ? 0 : b * tokens) + place) * (stride / slot) + head];
  }
  /// out[c * step] = number c of the head's h in row `place`, for a query in block `view` of
  /// tokens. The row holds token `j`.
  template <class T>
  void load(index b, index head, index /*j*/, index place, index h, T* out, index step,
            index /*view*/) const {
    const Code* const row = data + ((paged() ? 0 : b * tokens) + place) * stride + head * slot;
    const T factor = scales ? static_cast<T>(scale(b, place, head)) : T(1);
    for (index c = 0; c < h; ++c) out[c * step] = factor * number<T>(row[c]);
  }
  /// A stored number, without its scale.
  template <class T>
  static T number(Code x) {
    if constexpr (requires { simd::number_of(x); })
      return static_cast<T>(simd::number_of(x));
    else
      return static_cast<T>(x);
  }
  /// Whether tokens are numbers that follow each other in memory.
  constexpr bool plain() const { return !scales && !ring && !paged(); }
};

template <int Bits>
struct channel_code;

/// Whether kernels do not know a code, so that rows are decoded before attention reads them.
template <class Code>
inline constexpr bool only_decoded = false;
template <int Bits>
inline constexpr bool only_decoded<channel_code<Bits>> = true;

/// Two 4-bit codes, x = scale * (code - 8), the first in the low half.
enum class int4_code : std::uint8_t {};
template <>
inline constexpr bool only_decoded<int4_code> = true;

/// Keys or values in 4 bits. Values have one scale for each head of each token. Keys have one for
/// each channel of a block of tokens (Hooper et al. 2024). A query sees the keys of its own block
/// as they were given and those of earlier blocks rounded. How the text was cut into calls makes no
/// difference.
template <>
struct kv_rows<int4_code> {
  const int4_code* data = nullptr;  ///< values [batch, tokens, heads, (h + 1) / 2],
                                    ///< keys [batch, blocks, heads, h, token_block / 2]
  index tokens = 0;                 ///< of each sequence, whole blocks
  index heads = 0, width = 0;       ///< heads of `width` numbers
  bool keys = false;
  const float* scales = nullptr;  ///< values [batch, tokens, heads], keys [batch, blocks, heads, h]
  index fixed = 0, ring = 0;
  const float* newest = nullptr;  ///< keys: [batch, heads, newest_blocks, token_block, h] as given
  const float* fresh = nullptr;   ///< keys of this call, [batch, fresh_length, heads, h], or null
  index fresh_length = 0;
  const index* past = nullptr;  ///< [batch] tokens before this call; null for none
  /// Blocks that stay exact: the newest, and the one that tokens may be taken back into.
  static constexpr index newest_blocks = 2;

  /// Where tokens are.
  constexpr simd::token_rows<int4_code> of(index, index) const { return {data, 0, fixed, ring}; }
  constexpr bool plain() const { return false; }
  /// Code `i` of those that begin at `at`, from -7 to 7.
  constexpr int code(index at, index i) const {
    const auto both = static_cast<unsigned>(data[at + i / 2]);
    return static_cast<int>(i % 2 ? both >> 4 : both & 15u) - 8;
  }
  /// Where the first channel's codes of a block of keys begin, and its scale.
  constexpr index block_at(index b, index head, index place) const {
    return ((b * tokens + place) / simd::token_block * heads + head) * width;
  }
  /// Where the newest keys of token `j`'s block begin.
  constexpr index newest_at(index b, index head, index j) const {
    const index block = (b * heads + head) * newest_blocks + j / simd::token_block % newest_blocks;
    return block * simd::token_block * width;
  }
  /// The key of token `j` as it was given: in this call, or among the newest before.
  const float* given(index b, index head, index j) const {
    const index before = past ? past[b] : 0;
    if (fresh && j >= before)
      return fresh + ((b * fresh_length + j - before) * heads + head) * width;
    return newest + newest_at(b, head, j) + j % simd::token_block * width;
  }
  /// out[c * step] = number c of the head's in row `place`, for a query in block `view` of tokens.
  /// The row holds token `j`. A query in block -1 sees only rounded keys.
  template <class T>
  void load(index b, index head, index j, index place, index h, T* out, index step,
            index view) const {
    constexpr index half = simd::token_block / 2;
    if (keys && j / simd::token_block == view) {
      const float* const row = given(b, head, j);
      for (index c = 0; c < h; ++c) out[c * step] = static_cast<T>(row[c]);
      return;
    }
    const index t = j % simd::token_block;
    const index at = keys ? block_at(b, head, place) : (b * tokens + place) * heads + head;
    for (index c = 0; c < h; ++c)
      out[c * step] =
          keys ? static_cast<T>(scales[at + c]) * static_cast<T>(code((at + c) * half, t))
               : static_cast<T>(scales[at]) * static_cast<T>(code(at * ((h + 1) / 2), c));
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
