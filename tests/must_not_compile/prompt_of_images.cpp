// SPDX-License-Identifier: MIT
// Virtual tokens stand before texts, which an encoder of images does not read.
// expect: linnet::prompt_tuning and prefix_tuning: they stand before texts
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 0, .context = 5, .types = 0};
using Model = ln::encoder<shape, ln::embedding::patches<4, 4, 1, 2>, ln::head::none>;
#else
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 4, .types = 0};
using Model = ln::encoder<shape, ln::head::sequence_classification<2>>;
#endif
static_assert(ln::adapted<Model, ln::prompt_tuning<2>>::virtual_count == 2);
