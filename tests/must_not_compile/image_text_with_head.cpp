// SPDX-License-Identifier: MIT
// A decoder reads the hidden states of an encoder of images; a head of its own would learn nothing.
// expect: linnet::image_text: the encoder must have head::none
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape eyes{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 2, .context = 5, .types = 0};
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 12,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Head = ln::head::linear_classification<3>;
#else
using Head = ln::head::none;
#endif
using Eyes = ln::encoder<eyes, ln::embedding::patches<4, 4, 1, 2>, Head>;
static_assert(ln::image_text<ln::decoder<shape>, Eyes, ln::projector::linear<>>::parameters() > 0);
