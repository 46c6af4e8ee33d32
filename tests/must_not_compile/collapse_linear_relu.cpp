// SPDX-License-Identifier: MIT
// Nor does one matrix followed by a ReLU, in a decoder.
// expect: linnet::collapse: this model's feed-forward has a nonlinearity
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Small = ln::collapsed<ln::decoder<shape, ln::ffn::linear_relu>>;
#else
using Small = ln::collapsed<ln::decoder<shape, ln::ffn::reparam<3>>>;
#endif
static_assert(Small::parameters() > 0);
