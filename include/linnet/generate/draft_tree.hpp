// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Trees of drafts (after Miao et al. 2024): a chain of a draft model's likeliest tokens, each with
/// the next likeliest beside it.

#include <algorithm>
#include <span>

#include <linnet/core/arena.hpp>
#include <linnet/core/finite.hpp>
#include <linnet/core/random.hpp>
#include <linnet/generate/samplers.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A tree behind the last known token, which is node 0.
struct draft_tree {
  token* tokens = nullptr;    ///< [nodes]
  index* parents = nullptr;   ///< [nodes]
  index size = 0, chain = 0;  ///< nodes, and the last of the likeliest

  static constexpr draft_tree place(arena& a, index drafts, index width) {
    draft_tree made;
    const index nodes = width > 1 ? 1 + drafts * width : 0;
    made.tokens = a.take<token>(nodes);
    made.parents = a.take<index>(nodes);
    return made;
  }
  /// Begins with the last known token.
  void begin(token last) {
    tokens[0] = last;
    parents[0] = -1;
    size = 1;
    chain = 0;
  }
  /// Adds the `width` likeliest tokens behind the chain, the first of which continues it. Of equals
  /// the lowest id comes first. False, and nothing added, for logits without a largest number. They
  /// are overwritten.
  template <class T>
  bool grow(std::span<T> logits, index width) {
    const index first = size;
    for (index k = 0; k < width; ++k) {
      const auto best = std::max_element(logits.begin(), logits.end());
      if (!is_finite(*best)) break;
      tokens[size] = static_cast<token>(best - logits.begin());
      parents[size++] = chain;
      *best = -std::numeric_limits<T>::infinity();
    }
    if (size == first) return false;
    chain = first;
    return true;
  }
  /// The child of a node that is token `t`, or -1.
  index child(index node, token t) const {
    for (index i = node + 1; i < size; ++i)
      if (parents[i] == node && tokens[i] == t) return i;
    return -1;
  }
  std::span<const token> all_tokens() const { return {tokens, static_cast<std::size_t>(size)}; }
  std::span<const index> all_parents() const { return {parents, static_cast<std::size_t>(size)}; }
};

}  // namespace detail

LINNET_NAMESPACE_END
