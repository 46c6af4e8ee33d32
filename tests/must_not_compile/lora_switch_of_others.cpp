// SPDX-License-Identifier: MIT
// A token keeps its gates where all layers read a row for each token.
// lines: 60, three refusals
// expect: linnet::lora_switch: decoders route a token once
// expect: linnet::lora_switch: all tokens go through layers of their own
// expect: linnet::lora_switch: its matrices are those of attention and of standard or gated
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
using text = ln::encoder<ln::encoder_shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8}>;
template <class M>
constexpr bool there = ln::adapted<M, ln::lora_switch<2, 1>>::routes_once;
static_assert(there<ln::decoder<shape>>);
#if defined(LINNET_FAIL)
static_assert(there<text>);
static_assert(there<ln::decoder<shape, ln::sharing::all>>);
static_assert(there<ln::decoder<shape, ln::ffn::experts<4, 2>>>);
#endif
