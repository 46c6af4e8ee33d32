// SPDX-License-Identifier: MIT
// Blocks of an encoder are of one type.
// expect: linnet::attention::per_layer: its heads are those of the layers of a decoder
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 6, .heads = 2, .layers = 2, .vocabulary = 10, .context = 8};
#if defined(LINNET_FAIL)
using Kind = ln::attention::per_layer<ln::attention::full, 2, 1>;
#else
using Kind = ln::attention::full;
#endif
static_assert(ln::encoder<shape, Kind>::parameters() > 0);
