// SPDX-License-Identifier: MIT
// Checkpoints of llama2.c hold no encoder-decoders.
// expect: linnet: llama2.c checkpoints hold decoder-only models
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::zoo::t5_mini;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_llama2c(w, "f")); }
