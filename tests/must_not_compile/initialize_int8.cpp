// SPDX-License-Identifier: MIT
// Quantized weights come from trained ones.
// expect: linnet::initialize: quantized weights are made by quantize
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
void start() {
#if defined(LINNET_FAIL)
  ln::weights<ln::quantized<Model, ln::storage::int8>> w;
#else
  ln::weights<Model> w;
#endif
  ln::initialize(w, ln::seed{1});
}
