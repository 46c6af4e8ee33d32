// SPDX-License-Identifier: MIT
// Sinks are of a text that is read from left to right.
// expect: linnet::encoder: this kind of attention sees no later tokens
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 16};
#if defined(LINNET_FAIL)
using Model = ln::encoder<shape, ln::attention::sinks<1, 3>>;
#else
using Model = ln::encoder<shape, ln::attention::sliding_window<3>>;
#endif
static_assert(Model::parameters() > 0);
