// SPDX-License-Identifier: MIT
// llama2.c has no routed blocks.
// expect: linnet: llama2.c checkpoints hold Llama models
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::depths::mixture_of_depths<>>;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_llama2c(w, "f")); }
