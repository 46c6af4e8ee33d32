// SPDX-License-Identifier: MIT
// Queries of one key stay together.
// expect: linnet::attention::per_layer: heads go in whole groups
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
#if defined(LINNET_FAIL)
using Kind = ln::attention::per_layer<ln::attention::full, 4, 3>;
#else
using Kind = ln::attention::per_layer<ln::attention::full, 4, 2>;
#endif
static_assert(ln::decoder<shape, Kind>::parameters() > 0);
