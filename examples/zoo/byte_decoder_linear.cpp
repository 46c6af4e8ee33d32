// SPDX-License-Identifier: MIT
#include "byte_models_of.hpp"

namespace zoo {

std::unique_ptr<learner> byte_decoder_linear_learner(variant v) {
  switch (v) {
    case variant::one:
      return learner_with<byte_decoder, variant::one>();
    case variant::two:
      return learner_with<byte_decoder, variant::two>();
    default:
      return learner_with<byte_decoder, variant::three>();
  }
}

}  // namespace zoo
