// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The tree of tokens that a session was fed last, of which one path will stay.

#include <algorithm>
#include <span>

#include <linnet/core/arena.hpp>
#include <linnet/core/refusal.hpp>
#include <linnet/model/calls.hpp>
#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether sessions of model `M` take trees; words for the others.
template <class M>
consteval bool takes_trees() {
  static_assert(M::supports_trees,
                "linnet::session::feed_tree: this model's cache keeps texts, not trees; decoders "
                "with attention::full, a feed-forward without a state and kv::exact, kv::bf16, "
                "kv::f16 or kv::int8 take them");
  return true;
}

/// A tree of up to so many tokens, in the order in which they were fed.
class fed_tree {
 public:
  fed_tree() = default;
  constexpr fed_tree(arena& memory, index most)
      : tokens_(memory.take<token>(most)),
        parents_(memory.take<index>(most)),
        depths_(memory.take<index>(most)) {}

  /// Why parents[tokens] make no tree.
  static refusal refuses(index tokens, std::span<const index> parents) {
    if (std::ssize(parents) != tokens) return refusal::tree_parents;
    for (index i = 0; i < tokens; ++i)
      if (parents[static_cast<std::size_t>(i)] < -1 || parents[static_cast<std::size_t>(i)] >= i)
        return refusal::tree_parents;
    return refusal::none;
  }
  /// Sets the tree.
  void set(std::span<const token> tokens, std::span<const index> parents) {
    size_ = std::ssize(tokens);
    std::copy(tokens.begin(), tokens.end(), tokens_);
    std::copy(parents.begin(), parents.end(), parents_);
    for (index i = 0; i < size_; ++i) depths_[i] = parents_[i] < 0 ? 0 : depths_[parents_[i]] + 1;
  }
  /// Forgets it.
  void clear() { size_ = 0; }
  /// Number of its tokens; 0 where there is none.
  index size() const { return size_; }
  /// Whether there is a tree, and `i` one of its tokens or -1.
  bool has(index i) const { return size_ > 0 && i >= -1 && i < size_; }
  /// The arrays that layers read.
  ops::token_tree view() const { return {parents_, depths_}; }
  /// The tokens of the path that ends with `last`. Calls move(state_part) in order for each that
  /// has to take another place behind `past` tokens. The tree is gone but for its size.
  template <class F>
  std::span<const token> path_to(index last, index past, F&& move) {
    const index count = last < 0 ? 0 : depths_[last] + 1;
    for (index i = last, place = count; i >= 0; i = parents_[i]) depths_[--place] = i;
    for (index place = 0; place < count; ++place) {
      tokens_[place] = tokens_[depths_[place]];
      if (depths_[place] > place)
        move({.first = past + depths_[place], .tokens = past + place, .token = true});
    }
    return {tokens_, static_cast<std::size_t>(count)};
  }

 private:
  token* tokens_ = nullptr;
  index *parents_ = nullptr, *depths_ = nullptr;
  index size_ = 0;
};

}  // namespace detail

LINNET_NAMESPACE_END
