// SPDX-License-Identifier: MIT
// Latent prediction needs filters, which are its predictors.
// expect: linnet::latent_prediction: give a decoder predictors

#include <linnet/training.hpp>

namespace ln = linnet;
inline constexpr ln::decoder_shape shape{.d_model = 8,
                                         .d_ff = 8,
                                         .heads = 2,
                                         .kv_heads = 1,
                                         .layers = 2,
                                         .vocabulary = 16,
                                         .context = 8};
using M = ln::decoder<shape>;

int main() {
#ifdef LINNET_FAIL
  const auto made = ln::latent_prediction<M>::open({});
#else
  const auto made = ln::latent_prediction<ln::filtered<M, M::d, 0>>::open({});
#endif
  return made ? 0 : 1;
}
