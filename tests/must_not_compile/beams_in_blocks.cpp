// SPDX-License-Identifier: MIT
// Tokens that see each other are not searched one after the other.
// expect: linnet::beam_search: tokens of one block see each other
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
static_assert(sizeof(ln::beam_search<ln::decoder<shape, kind>>) > 0);
