// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_product_learner(model m) {
  using enum model;
  return make_one_of<trained_mini, two, three, three_2, three_1_5, three_1_2>(m);
}

}  // namespace study
