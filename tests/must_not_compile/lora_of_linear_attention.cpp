// SPDX-License-Identifier: MIT
// Deltas need maps that the layer makes of any kind.
// expect: this kind of attention's maps take no delta
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::sharing::lora<2>, ln::attention::linear<>>;
#else
using Model = ln::decoder<shape, ln::sharing::lora<2>, ln::attention::sliding_window<4>>;
#endif
static_assert(Model::parameters() > 0);
