// SPDX-License-Identifier: MIT
// Queries of a layer go with all that share their keys and values.
// expect: heads go in whole groups: those of each layer
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 16,
                                  .d_ff = 16,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
constexpr ln::layer_width first{16, 3};
#else
constexpr ln::layer_width first{16, 2};
#endif
using Model = ln::decoder<shape>;
static_assert(ln::narrowed<Model, shape, first, 16>::parameters() > 0);
