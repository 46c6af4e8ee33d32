// SPDX-License-Identifier: MIT
// Virtual tokens stand before a decoder's texts.
// expect: linnet::prompt_tuning and prefix_tuning: only decoders take virtual tokens
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
constexpr ln::t5_shape other{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using Model = ln::t5<other>;
#else
using Model = ln::decoder<shape>;
#endif
static_assert(ln::adapted<Model, ln::prompt_tuning<2>>::virtual_count == 2);
