// SPDX-License-Identifier: MIT
#include "byte_models_of.hpp"

namespace zoo {

std::unique_ptr<learner> byte_t5_learner(variant v) {
  switch (v) {
    case variant::skip:
      return learner_with<byte_t5, variant::skip>();
    case variant::one_relu:
      return learner_with<byte_t5, variant::one_relu>();
    default:
      return learner_with<byte_t5, variant::standard>();
  }
}

}  // namespace zoo
