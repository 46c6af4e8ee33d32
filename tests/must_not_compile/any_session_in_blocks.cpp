// SPDX-License-Identifier: MIT
// A session of any model generates and scores token by token.
// expect: linnet::any_session: tokens of one block see each other
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
static_assert(ln::any_session::footprint<ln::decoder<shape, kind>>({.target = 8}) > 0);
