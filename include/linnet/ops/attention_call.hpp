// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The arguments of attention: windows, queries, keys and values, gradients.

#include <algorithm>

#include <linnet/ops/dropout.hpp>
#include <linnet/ops/kv_rows.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Query rows that are worked on at a time.
inline constexpr index attention_rows = 48;
/// Keys whose scores are held at a time; a multiple of simd::token_block.
inline constexpr index attention_keys = 512;
/// A distance that bounds nothing.
inline constexpr index any_distance = index{1} << 48;

/// Window of keys that a query at position p sees: those at [p - before, p + after], and the
/// `first` ones. None of them comes after p + after.
struct attention_window {
  index before = any_distance;
  index after = any_distance;
  index first = 0;
  /// Where above 0, a query sees to the end of its block of so many tokens; `after` is block - 1.
  /// If the window is bounded, it sees that block alone; `before` is block - 1.
  index block = 0;

  /// Where the keys begin that a query at position p sees by its distance or block alone.
  constexpr index recent_from(index p) const {
    return block > 0 && bounded() ? p / block * block : p - before;
  }
  /// The keys [begin_of(p), end_of(p)) near a query at position p, without the `first` ones.
  constexpr index begin_of(index p) const { return (std::max)(first, recent_from(p)); }
  constexpr index end_of(index p) const {
    return block > 0 ? (p / block + 1) * block : p + after + 1;
  }

  /// Whether some query may not see a key that is earlier than another one it sees.
  constexpr bool bounded() const { return before < any_distance; }
  /// Whether keys come in tiles of `tile`. The window alone decides, whatever lengths a call has,
  /// so that the sums of a query's scores are split alike in all of them.
  constexpr bool splits(index tile) const {
    return !bounded() || after >= tile || before + after + attention_rows > tile;
  }
  /// The most keys of `keys` that a block of `rows` queries looks at together, with padding.
  constexpr index width(index keys, index rows, index tile = attention_keys) const {
    const index recent =
        (std::min)(keys, splits(tile) ? tile : before + (std::min)(after, keys) + rows);
    return round_up(recent, panel_width) + round_up(first, panel_width);
  }
};

/// One attention call: q[batch, queries, heads*h] against `keys` keys and values.
template <class T, class Code = T>
struct attention_call {
  index batch, queries, keys;  ///< padded lengths
  index heads, kv_heads, h;
  attention_window window;
  T scale;  ///< of the scores
  const T* q;
  const T* q_first = nullptr;  ///< other queries for the `first` keys, or null for the same
  kv_rows<Code> k, v;
  T* out;                                ///< [batch, queries, heads*h]
  const index* past = nullptr;           ///< position of each sequence's first query, or null for 0
  const index* query_lengths = nullptr;  ///< valid queries of each causal sequence, or null for all
  const index* key_lengths = nullptr;    ///< valid keys of each sequence, or null for all
  const index* prefix = nullptr;         ///< first keys of each sequence that all its queries see
  const index* documents = nullptr;      ///< [batch, queries] first token of each one's document;
                                         ///< over plain rows without a past
  const index* key_documents = nullptr;  ///< [batch, keys] likewise, of as many documents, where
                                         ///< queries read other tokens than their own
  token_tree tree{};        ///< of causal queries without a window whose keys are in a cache
  const T* bias = nullptr;  ///< lines [heads, 2*bias_origin + 1], by key position - query position
  index bias_origin = 0;
  index kept = any_distance;    ///< queries stand no further than kept - 1 from the `first` keys
  index tile = attention_keys;  ///< keys whose scores are held at a time, if the window splits()
  T* scratch = nullptr;         ///< per thread, attention_scratch() values
  index scratch_size = 0;
  dropout_key dropout{};
  int dropout_id = 0;
  const T* head_scores = nullptr;  ///< [batch, queries, heads], or null where all heads are needed
  T least_score = T(0);            ///< of heads that are needed

  /// Tokens [first, last) of a document.
  struct token_range {
    index first, last;
  };
  /// The queries of the document of sequence `b` that begins at `from`, or all.
  token_range queries_from(index b, index from) const {
    if (!documents) return {from, queries};
    return {from, end_of(documents + b * queries, queries, from)};
  }
  /// The keys that these may see.
  token_range keys_from(index b, index from) const {
    if (!key_documents) return queries_from(b, from);
    const index *const of = documents + b * queries, *const keys_of = key_documents + b * keys;
    index first = 0;
    for (index i = 0; i < from && first < keys; i = end_of(of, queries, i))
      first = end_of(keys_of, keys, first);
    return {first, first < keys ? end_of(keys_of, keys, first) : keys};
  }
  /// Whether key-value head `item` of all sequences is needed by none of the heads that share it. A
  /// query that comes alone then reads none of its keys and values.
  bool skips(index item) const {
    if (head_scores == nullptr || queries != 1) return false;
    const index group = heads / kv_heads;
    const T* const scores = head_scores + item / kv_heads * heads + item % kv_heads * group;
    for (index i = 0; i < group; ++i)
      if (!(scores[i] < least_score)) return false;
    return true;
  }

 private:
  /// End of the document that begins at `from`, of a row of `n` tokens.
  static index end_of(const index* of, index n, index from) {
    index end = from + 1;
    while (end < n && of[end] == from) ++end;
    return end;
  }
};

/// Gradients of an attention call over plain keys and values; everything is added to.
template <class T>
struct attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
  T* dq_first = nullptr;  ///< of q_first, where that is given
  T* d_bias = nullptr;    ///< lines per sequence [batch, heads, 2*bias_origin + 1], or null
};

struct execution;

/// A hook that is shown the queries and keys of softmax attention over whole sequences, see
/// attention_distillation. `gradient` is null in forward; in backward it is complete but for what
/// the hook adds. query_lengths of the call are those of its sequences. Called by every thread; all
/// have returned before the values change.
template <class T>
struct attention_tap {
  void* object = nullptr;
  void (*call)(void* object, const execution& on, const attention_call<T>& a,
               const attention_gradient<T>* gradient) = nullptr;
};

/// Scratch values that one thread needs for calls of up to `queries` queries a sequence. `gathers`
/// unless keys and values are kv_rows::plain(). Beyond `tile` keys there are no more of them.
constexpr index attention_scratch(index queries, index keys, index h, const attention_window& seen,
                                  bool training, bool gathers = false,
                                  index tile = attention_keys) {
  const index wide = seen.width(keys, (std::min)(queries, attention_rows), tile);
  return (training ? 3 : 1) * attention_rows * wide + (training || gathers ? 2 : 1) * h * wide;
}

}  // namespace ops

LINNET_NAMESPACE_END
