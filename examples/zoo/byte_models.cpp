// SPDX-License-Identifier: MIT
#include "byte_models_of.hpp"

namespace zoo {

std::unique_ptr<learner> make_learner(byte_model kind, variant v) {
  const bool linear = v == variant::one || v == variant::two || v == variant::three;
  if (kind == byte_model::decoder)
    return linear ? byte_decoder_linear_learner(v) : byte_decoder_learner(v);
  return linear ? byte_t5_linear_learner(v) : byte_t5_learner(v);
}

}  // namespace zoo
