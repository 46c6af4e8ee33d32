// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_learner(model m) {
  for (const auto make : {make_plain_learner, make_product_learner, make_sized_learner})
    if (auto made = make(m)) return made;
  throw support::failure("no such model");
}

}  // namespace study
