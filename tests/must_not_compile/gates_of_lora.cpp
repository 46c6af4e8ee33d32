// SPDX-License-Identifier: MIT
// Adapters without a router for all layers keep no gates.
// expect: linnet::switch_gates: tokens of a lora_switch keep gates
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using Method = ln::dynamic_lora<2, 1, 1>;
#else
using Method = ln::lora_switch<2, 1, 1>;
#endif
static_assert(ln::switch_gates<ln::adapted<Model, Method>>::rows_for({.batch = 3}) == 24);
