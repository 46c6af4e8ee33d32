// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `searcher`, for any search over types.

#include "kinds_of.hpp"
#include "presets.hpp"
#include "searcher.hpp"

namespace zoo {

template <class Search>
class searcher_of final : public searcher {
 public:
  std::span<const ln::search_candidate> candidates() const override { return Search::candidates; }
  learning_result learn(ln::index i, const kind_course& c) const override {
    learning_result made;
    Search::visit(i, [&]<class M>(std::type_identity<M>) { made = learn_bytes<M>(c); });
    return made;
  }
};

}  // namespace zoo

/// What a module of zoo search exports: what makes its one kind of object, and the interface that
/// it is for.
#define ZOO_SEARCHER(...)                                                       \
  extern "C" int zoo_searcher_interface() { return ::zoo::searcher_interface; } \
  extern "C" ::zoo::searcher* zoo_searcher() { return new ::zoo::searcher_of<__VA_ARGS__>(); }
