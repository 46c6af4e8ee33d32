// SPDX-License-Identifier: MIT
// A shape with a number left out is refused in words.
// expect: linnet::t5_shape: decoder_layers, .* must be given and positive
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::t5_shape shape{
    .d_model = 8, .d_ff = 16, .d_kv = 4, .heads = 2, .encoder_layers = 1, .vocabulary = 10};
#else
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
#endif
static_assert(ln::t5<shape>::parameters() > 0);
