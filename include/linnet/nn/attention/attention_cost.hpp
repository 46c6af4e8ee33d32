// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Work of softmax attention, as a profile counts it.

#include <algorithm>

#include <linnet/nn/attention/kv_cache.hpp>
#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/timed.hpp>
#include <linnet/ops/attention_call.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Keys that queries at positions past, past + 1, ... of one sequence see: `queries` of them, of
/// keys that number `keys` in all. All see the first `prefix` that are in reach.
constexpr index seen_keys(const ops::attention_window& window, index past, index queries,
                          index keys, index prefix = 0) {
  index count = 0;
  for (index i = 0; i < queries; ++i) {
    const index at = past + i, begin = (std::max)(index{0}, window.recent_from(at)),
                end = window.block > 0 || window.after < keys - at ? window.end_of(at) : keys,
                last = (std::min)((std::max)(end, prefix), keys);
    count += (std::max)(index{0}, last - begin) + (std::min)(window.first, begin);
  }
  return count;
}
/// Pairs of a query of sequence `b` and a key that it sees: in its document, or of a tree the text
/// and its ancestors.
template <attention_shape A, class T>
index seen_pairs(const ops::attention_window& window, const context<T>& ctx, index b) {
  const index past = A.cross ? 0 : ctx.past_of(b),
              queries = A.cross ? ctx.length : ctx.length_of(b),
              keys = A.cross ? ctx.memory.length_of(b) : past + queries;
  index count = 0;
  if (!A.cross && ctx.tree.depths) {
    for (index i = 0; i < queries; ++i) count += past + ctx.tree.depths[b * ctx.length + i] + 1;
    return count;
  }
  const ops::attention_window all{};
  const auto& seen = A.cross ? all : window;
  if (!ctx.documents || (A.cross && !ctx.memory.documents))
    return seen_keys(seen, past, queries, keys, A.causal && ctx.prefix ? ctx.prefix[b] : 0);
  ops::attention_call<T> rows{};
  rows.queries = ctx.length;
  rows.keys = A.cross ? ctx.memory.length : ctx.length;
  rows.documents = ctx.documents;
  rows.key_documents = A.cross ? ctx.memory.documents : nullptr;
  for (index from = 0, end = 0; from < queries; from = end) {
    const auto own = rows.keys_from(b, from);
    end = (std::min)(queries, rows.queries_from(b, from).last);
    count += seen_keys(seen, 0, end - from,
                       (std::max)(index{0}, (std::min)(keys, own.last) - own.first));
  }
  return count;
}

/// Bytes of `numbers` keys or values, without their scales.
template <class T>
constexpr index kept_bytes(kv_code code, index numbers) {
  switch (code) {
    case kv_code::exact:
      break;
    case kv_code::bf16:
    case kv_code::f16:
      return 2 * numbers;
    case kv_code::int8:
    case kv_code::channel_int8:
      return numbers;
    case kv_code::int4:
    case kv_code::channel_int4:
      return (numbers + 1) / 2;
  }
  return numbers * static_cast<index>(sizeof(T));
}

/// Work of attention: two products for each pair of a query and a key that it sees, twice as many
/// backward. It reads queries, keys and values and writes as many numbers as queries have.
/// Backward, it also reads their gradients and adds to three others.
template <attention_shape A, class T>
operation_cost attention_cost(const ops::attention_window& window, const context<T>& ctx,
                              direction way = direction::forward) {
  index pairs = 0, keys = 0;
  for (index b = 0; b < ctx.batch; ++b) {
    pairs += seen_pairs<A>(window, ctx, b);
    keys += A.cross ? ctx.memory.length_of(b) : ctx.past_of(b) + ctx.length_of(b);
  }
  const index q = ctx.rows() * A.n() * static_cast<index>(sizeof(T)), kv = keys * A.kv();
  const index flops = 4 * pairs * A.n();
  if (way == direction::backward)
    return {2 * flops, 5 * q + 6 * kv * static_cast<index>(sizeof(T))};
  return {flops, 2 * q + 2 * kept_bytes<T>(ctx.past ? A.cache : kv_code::exact, kv)};
}

}  // namespace detail

LINNET_NAMESPACE_END
