// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_plain_learner(model m) {
  using enum model;
  return make_one_of<trained_mini, mini, skip, skip_encoder, one, one_relu>(m);
}

}  // namespace study
