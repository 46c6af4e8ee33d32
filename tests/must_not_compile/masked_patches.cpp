// SPDX-License-Identifier: MIT
// Images have no tokens that could be masked.
// expect: linnet::encoder: there are no masked tokens in images
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 2, .context = 5, .types = 0};
#if defined(LINNET_FAIL)
using Head = ln::head::masked_lm;
#else
using Head = ln::head::none;
#endif
static_assert(ln::encoder<shape, ln::embedding::patches<4, 4, 1, 2>, Head>::parameters() > 0);
