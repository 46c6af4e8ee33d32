// SPDX-License-Identifier: MIT
// A student writes its texts token by token.
// expect: linnet: tokens of one block see each other, so texts are not written
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
using kind = ln::attention::block_causal<4>;
#else
using kind = ln::attention::full;
#endif
static_assert(sizeof(ln::on_policy<ln::decoder<shape, kind>>) > 0);
