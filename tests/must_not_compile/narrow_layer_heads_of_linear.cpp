// SPDX-License-Identifier: MIT
// Heads of each layer are those of softmax attention.
// expect: linnet::narrow: heads by layer are those of attention::full
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
constexpr ln::layer_width first{16, 2};
#else
constexpr ln::layer_width first{8};
#endif
using Model = ln::decoder<shape, ln::attention::linear<>>;
static_assert(ln::narrowed<Model, shape, first, 16>::parameters() > 0);
