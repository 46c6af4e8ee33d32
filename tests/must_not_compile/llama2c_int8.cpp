// SPDX-License-Identifier: MIT
// llama2.c checkpoints are f32; quantizing comes after loading.
// expect: linnet: llama2.c checkpoints are f32
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::storage::int8>;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_llama2c(w, "f")); }
