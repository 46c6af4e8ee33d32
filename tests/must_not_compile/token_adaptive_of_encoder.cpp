// SPDX-License-Identifier: MIT
// token_adaptive chooses tokens of a decoder's self-attention.
// expect: linnet::token_adaptive: chooses the tokens of a decoder's self-attention
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Model = ln::encoder<ln::encoder_shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8}>;
#else
using Model = ln::decoder<ln::decoder_shape{.d_model = 8,
                                            .d_ff = 16,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 10,
                                            .context = 8}>;
#endif
bool opens() { return static_cast<bool>(ln::token_adaptive<Model>::open({.target = 8})); }
