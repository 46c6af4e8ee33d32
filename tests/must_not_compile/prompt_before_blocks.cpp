// SPDX-License-Identifier: MIT
// Virtual tokens would move the blocks, and the global tokens, of a text.
// expect: linnet::prompt_tuning and prefix_tuning: this kind of attention counts blocks or
// positions
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8};
#if defined(LINNET_FAIL)
using kind = ln::attention::block_diagonal<4>;
#else
using kind = ln::attention::longformer_at<4, ln::attention::global_tokens<0, 1>>;
static_assert(ln::attention::longformer_at<4, ln::attention::global_tokens<0, 2>>::counts_tokens);
#endif
using Prompted = ln::adapted<ln::encoder<shape, kind>, ln::prompt_tuning<2>>;
static_assert(Prompted::virtual_count == 2);
