// SPDX-License-Identifier: MIT
// Blocks of a T5 are of one type.
// expect: linnet::attention::per_layer: its heads are those of the layers of a decoder
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 6,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 2,
                             .decoder_layers = 2,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using Kind = ln::attention::per_layer<ln::attention::full, 2, 1>;
#else
using Kind = ln::attention::full;
#endif
static_assert(ln::t5<shape, Kind>::parameters() > 0);
