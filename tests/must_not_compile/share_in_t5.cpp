// SPDX-License-Identifier: MIT
// Sharing between blocks is for decoders.
// expect: sharing:: and embedding:: policies are for decoder
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
using Model = ln::t5<shape, ln::sharing::ffn>;
#else
using Model = ln::t5<shape, ln::ffn::low_rank<2>>;
#endif
static_assert(Model::parameters() > 0);
