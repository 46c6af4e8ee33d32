// SPDX-License-Identifier: MIT
// T5 brings its own positions.
// expect: linnet::t5: T5 has its own relative positions
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
using Model = ln::t5<shape, ln::position::rope>;
#else
using Model = ln::t5<shape, ln::norm::layer_norm>;
#endif
static_assert(Model::parameters() > 0);
