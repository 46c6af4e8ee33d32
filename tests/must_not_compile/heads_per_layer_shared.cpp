// SPDX-License-Identifier: MIT
// Blocks of unlike heads share nothing.
// expect: linnet::attention::per_layer: blocks of unlike heads share nothing
// lines: 24: clang names every type on the way to a layer
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 6,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
using Kind = ln::attention::per_layer<ln::attention::full, 4, 2>;
#if defined(LINNET_FAIL)
using Sharing = ln::sharing::ffn;
#else
using Sharing = ln::sharing::none;
#endif
static_assert(ln::decoder<shape, Kind, Sharing>::parameters() > 0);
