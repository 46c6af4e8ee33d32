// SPDX-License-Identifier: MIT
// A draft is not judged by a row that sees it, also where the draft model alone has blocks.
// expect: linnet::speculative: tokens of one block see each other
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
using drafted = ln::speculative<ln::decoder<shape>, ln::decoder<shape, kind>>;
static_assert(sizeof(drafted) > 0);
