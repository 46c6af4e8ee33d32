// SPDX-License-Identifier: MIT
// There is a nonlinearity between the matrices of a gated feed-forward.
// expect: step::collapse multiplies matrices without a nonlinearity
#include <linnet/compression.hpp>
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
using Trained = ln::decoder<shape>;
#else
using Trained = ln::decoder<shape, ln::ffn::reparam<2>>;
#endif
using Deployed =
    ln::pipeline<Trained, ln::step::collapse, ln::step::quantize<ln::storage::int8>>::type;
static_assert(Deployed::parameters() > 0);
