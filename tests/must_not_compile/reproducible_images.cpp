// SPDX-License-Identifier: MIT
// A decoder behind images computes with its encoder, which has no reproducible kernels.
// expect: linnet::compute::reproducible: not of models of images
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape eyes{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .context = 5, .types = 0};
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 12,
                                  .context = 8};
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
using Eyes = ln::encoder<eyes, ln::embedding::patches<4, 4, 1, 2>, ln::head::none>;
static_assert(
    ln::image_text<ln::decoder<shape, arithmetic>, Eyes, ln::projector::linear<>>::parameters() >
    0);
