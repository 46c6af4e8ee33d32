// SPDX-License-Identifier: MIT
// Averages that are codes of 8 bits are not rounded to bf16 as well.
// expect: linnet::bf16_rounded: rounds f32 weights and moments, not codes of 8 bits
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
#if defined(LINNET_FAIL)
using Optimizer = ln::bf16_rounded<ln::adamw_8bit>;
#else
using Optimizer = ln::bf16_rounded<ln::adamw>;
#endif
void step(const ln::gradients<Model>& g, Optimizer::state<Model, float>& s, ln::weights<Model>& w) {
  Optimizer{}.update(ln::ops::execution{}, 1, 1, g, s, w);
}
