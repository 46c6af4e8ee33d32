// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A teacher by the most probable tokens of each row and their logits.

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/core/arena.hpp>
#include <linnet/core/result.hpp>
#include <linnet/core/scalars.hpp>

LINNET_NAMESPACE_BEGIN

/// The most probable tokens of rows, and their logits: both [rows, k]. Where a row has fewer, the
/// rest of its ids are `no_token`. A row's ids differ. top_logits_of() makes them of a model.
struct top_logits {
  index k = 0;
  std::vector<token> ids{};
  std::vector<float> logits{};

  /// Number of rows.
  index rows() const { return k > 0 ? std::ssize(ids) / k : 0; }
  /// Rows [first, first + count), such as those of one sequence of a batch. Errors: errc::invalid
  /// for rows that are not there, errc::out_of_memory.
  result<top_logits> part(index first, index count) const LINNET_TRY {
    if (first < 0 || count < 0 || first > rows() || count > rows() - first)
      return error{errc::invalid, "top_logits::part", "rows",
                   "some of " + std::to_string(rows()) + " rows",
                   std::to_string(count) + " from row " + std::to_string(first) + " on"};
    const auto begin = first * k, end = begin + count * k;
    return top_logits{k,
                      {ids.begin() + begin, ids.begin() + end},
                      {logits.begin() + begin, logits.begin() + end}};
  }
  LINNET_OR_OUT_OF_MEMORY("top_logits::part")
  /// Puts other rows behind these. Nothing changes unless all do. Errors: errc::invalid for rows of
  /// another k, unless there is none here; errc::out_of_memory.
  result<void> append(top_logits more) LINNET_TRY {
    if (ids.empty()) {
      *this = std::move(more);
      return {};
    }
    if (more.k != k)
      return error{errc::invalid, "top_logits::append", "k",
                   std::to_string(k) + ", as the rows before have", std::to_string(more.k)};
    ids.reserve(ids.size() + more.ids.size());
    logits.reserve(logits.size() + more.logits.size());
    ids.insert(ids.end(), more.ids.begin(), more.ids.end());
    logits.insert(logits.end(), more.logits.begin(), more.logits.end());
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("top_logits::append")
  /// Cuts rows off, or puts some without ids behind: those of padding, whose labels are `ignored`.
  /// Errors: errc::invalid for a negative number of rows, errc::out_of_memory.
  result<void> resize(index rows) LINNET_TRY {
    if (rows < 0)
      return error{errc::invalid, "top_logits::resize", "rows", "at least 0", std::to_string(rows)};
    if (!detail::has_memory(detail::array_bytes(rows, k, sizeof(token))))
      return detail::out_of_memory("top_logits::resize");
    const auto size = static_cast<std::size_t>(rows * k);
    logits.reserve(size);
    ids.resize(size, no_token);
    logits.resize(size);
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("top_logits::resize")
};

namespace detail {

/// Finds the k largest of logits[n]; of equal ones those with the lowest ids. best[k] receives
/// their ids, in descending order.
template <class T>
void largest_logits(index n, const T* logits, index k, token* best) {
  // The k best so far are a heap whose first is the least.
  const auto better = [&](token a, token b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  for (token v = 0; v < n; ++v) {
    if (v >= k) {
      if (!better(v, best[0])) continue;
      std::pop_heap(best, best + k, better);
    }
    best[v < k ? v : k - 1] = v;
    std::push_heap(best, best + (v < k ? v + 1 : k), better);
  }
  std::sort_heap(best, best + k, better);
}

}  // namespace detail

LINNET_NAMESPACE_END
