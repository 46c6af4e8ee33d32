// SPDX-License-Identifier: MIT
// A feed-forward with a nonlinearity between its matrices cannot be collapsed.
// expect: linnet::collapse: this model's feed-forward has a nonlinearity
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
using Small = ln::collapsed<ln::t5<shape>>;
#else
using Small = ln::collapsed<ln::t5<shape, ln::ffn::reparam<2>>>;
#endif
static_assert(Small::parameters() > 0);
