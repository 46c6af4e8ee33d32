// SPDX-License-Identifier: MIT
// Two choices for one slot are refused; one for each stack is fine.
// expect: two ffn:: policies for the same stack
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using Model = ln::t5<shape, ln::ffn::skip, ln::ffn::relu>;
#else
using Model = ln::t5<shape, ln::encoder_stack<ln::ffn::skip>, ln::decoder_stack<ln::ffn::relu>>;
#endif
static_assert(Model::parameters() > 0);
