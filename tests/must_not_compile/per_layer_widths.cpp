// SPDX-License-Identifier: MIT
// Widths are those of the layers.
// expect: linnet::ffn::per_layer: give one width for each of the shape's layers
// lines: 24: clang names every type on the way to a layer
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 6,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Ffn = ln::ffn::per_layer<ln::ffn::swiglu, 6, 4, 2>;
#else
using Ffn = ln::ffn::per_layer<ln::ffn::swiglu, 6, 4>;
#endif
static_assert(ln::decoder<shape, Ffn>::parameters() > 0);
