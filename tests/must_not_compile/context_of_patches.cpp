// SPDX-License-Identifier: MIT
// The context of an encoder of images is what an image becomes: four patches and a class token.
// expect: linnet::encoder_shape: context must be the rows of an image
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index context = 4;
#else
constexpr ln::index context = 5;
#endif
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 2, .context = context, .types = 0};
static_assert(ln::encoder<shape, ln::embedding::patches<4, 4, 1, 2>, ln::head::none>::parameters() >
              0);
