// SPDX-License-Identifier: MIT
// A chain of matrices takes no deltas.
// expect: this feed-forward's maps take no delta
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::sharing::lora<2>, ln::ffn::reparam<2>>;
#else
using Model = ln::decoder<shape, ln::sharing::lora<2>, ln::ffn::gelu>;
#endif
static_assert(Model::parameters() > 0);
