// SPDX-License-Identifier: MIT
// Pooled tokens have no table of positions.
// expect: linnet::byte_pooled: tokens take rotary positions or none
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::byte_pooled<shape, ln::position::learned>;
#else
using Model = ln::byte_pooled<shape, ln::position::rope_half>;
#endif
static_assert(Model::parameters() > 0);
