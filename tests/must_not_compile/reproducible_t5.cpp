// SPDX-License-Identifier: MIT
// Only decoders have a choice of their arithmetic.
// expect: linnet::compute::reproducible: is for decoders alone
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 9};
#if defined(LINNET_FAIL)
using M = ln::t5<shape, ln::compute::reproducible>;
#else
using M = ln::t5<shape>;
#endif
static_assert(M::parameters() > 0);
