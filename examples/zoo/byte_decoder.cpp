// SPDX-License-Identifier: MIT
#include "byte_models_of.hpp"

namespace zoo {

std::unique_ptr<learner> byte_decoder_learner(variant v) {
  switch (v) {
    case variant::skip:
      return learner_with<byte_decoder, variant::skip>();
    case variant::one_relu:
      return learner_with<byte_decoder, variant::one_relu>();
    default:
      return learner_with<byte_decoder, variant::standard>();
  }
}

}  // namespace zoo
