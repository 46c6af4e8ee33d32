// SPDX-License-Identifier: MIT
// Rotary positions turn pairs, so a head has an even width.
// expect: rotary positions need an even head width
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 10,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::position::rope>;
#else
using Model = ln::decoder<shape, ln::position::learned>;
#endif
static_assert(Model::parameters() > 0);
