// SPDX-License-Identifier: MIT
// Blocks of a T5 are of one type.
// expect: linnet::ffn::per_layer: its widths are those of the layers of a decoder
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 6,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 2,
                             .decoder_layers = 2,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using Ffn = ln::ffn::per_layer<ln::ffn::relu, 6, 4>;
#else
using Ffn = ln::ffn::relu;
#endif
static_assert(ln::t5<shape, Ffn>::parameters() > 0);
