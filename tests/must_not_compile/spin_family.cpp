// SPDX-License-Identifier: MIT
// SPIN compares texts of decoders.
// expect: linnet::spin: the model must be a decoder of tokens
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
constexpr ln::t5_shape other{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
using Model = ln::t5<other>;
#else
using Model = ln::decoder<shape>;
#endif
using Pairs = ln::spin<Model>;
static_assert(sizeof(Pairs) > 0);
