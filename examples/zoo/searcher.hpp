// SPDX-License-Identifier: MIT
#pragma once
// The models of a space as run time sees them; what has them is compiled when it is asked for.

#include <linnet/search/space.hpp>
#include <span>

#include "kinds.hpp"

namespace zoo {

/// Of the modules of zoo search; raised when `searcher` changes.
inline constexpr int searcher_interface = 1;

/// The models of a space that are within a budget.
class searcher {
 public:
  searcher() = default;
  searcher(const searcher&) = delete;
  searcher& operator=(const searcher&) = delete;
  virtual ~searcher() = default;

  /// What each costs; their numbers are those of the space.
  virtual std::span<const ln::search_candidate> candidates() const = 0;
  /// Trains candidate `i` of these anew. Refuses what diverges.
  virtual learning_result learn(ln::index i, const kind_course& c) const = 0;
};

}  // namespace zoo
