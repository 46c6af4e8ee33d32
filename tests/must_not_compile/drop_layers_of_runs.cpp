// SPDX-License-Identifier: MIT
// A block that runs twice in a row is two layers.
// expect: blocks of sharing::repeat<n> run several times
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 4,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::sharing::repeat<2>>;
#else
using Model = ln::decoder<shape>;
#endif
auto drop(const ln::weights<Model>& w) { return ln::drop_layers<0, 1>(w); }
