// SPDX-License-Identifier: MIT
// T5 has no routed blocks.
// expect: linnet::t5: every token goes through every block
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
using Model = ln::t5<shape, ln::depths::mixture_of_depths<>>;
#else
using Model = ln::t5<shape>;
#endif
static_assert(Model::parameters() > 0);
