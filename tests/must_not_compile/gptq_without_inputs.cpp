// SPDX-License-Identifier: MIT
// GPTQ weighs errors by what matrices read.
// expect: this method reads the inputs of each matrix; give it what calibrate
#include <linnet/compression.hpp>
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
bool rounds(const ln::weights<Model>& w) {
#if defined(LINNET_FAIL)
  return static_cast<bool>(ln::quantize<ln::storage::int4<>>(w, ln::gptq{}));
#else
  return static_cast<bool>(ln::quantize<ln::storage::int4<>>(w, ln::round_to_nearest{}));
#endif
}
