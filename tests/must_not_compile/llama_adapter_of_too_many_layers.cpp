// SPDX-License-Identifier: MIT
// Gated prompts go into layers that the model has.
// expect: linnet::llama_adapter: 1 to 256 prompts, in at least one layer and at most all
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
constexpr ln::index layers = 3;
#else
constexpr ln::index layers = 2;
#endif
static_assert(ln::adapted<Model, ln::llama_adapter<4, layers>>::parameters() > 0);
