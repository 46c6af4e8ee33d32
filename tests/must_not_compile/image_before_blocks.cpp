// SPDX-License-Identifier: MIT
// Rows of an image would move the blocks, and the global tokens, of a text.
// expect: linnet::image_text: this kind of attention counts blocks or positions
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
using kind = ln::attention::longformer_at<4, ln::attention::global_tokens<0, 2>>;
#else
using kind = ln::attention::full;
#endif
using Eyes = ln::encoder<eyes, ln::embedding::patches<4, 4, 1, 2>, ln::head::none>;
static_assert(
    ln::image_text<ln::decoder<shape, kind>, Eyes, ln::projector::linear<>>::parameters() > 0);
