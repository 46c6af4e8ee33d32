// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_sized_learner(model m) {
  using enum model;
  if (auto made = make_one_of<trained_mini, heads, width, heads_width>(m)) return made;
  if (m == tiny) return std::make_unique<learner_of<trained_tiny, recipe{}>>();
  if (m == small) return std::make_unique<learner_of<trained_small, recipe{}>>();
  if (m == base) return std::make_unique<learner_of<trained_base, recipe{}>>();
  return nullptr;
}

}  // namespace study
