// SPDX-License-Identifier: MIT
// An encoder-decoder has no prefix: its source is seen both ways already.
// expect: attention::prefix is for
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
using Model = ln::t5<shape, ln::decoder_stack<ln::attention::prefix>>;
#else
using Model = ln::t5<shape, ln::decoder_stack<ln::attention::full>>;
#endif
static_assert(ln::evaluator<Model>::footprint({.source = 4, .target = 4}) > 0);
