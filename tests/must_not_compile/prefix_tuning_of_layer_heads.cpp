// SPDX-License-Identifier: MIT
// A prefix has keys of one width for all layers.
// expect: linnet::prefix_tuning: this kind of attention takes no keys that are given
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
using Kind = ln::attention::per_layer<ln::attention::full, 4, 2>;
#else
using Kind = ln::attention::full;
#endif
using Model = ln::decoder<shape, Kind>;
static_assert(ln::adapted<Model, ln::prefix_tuning<3>>::parameters() > 0);
