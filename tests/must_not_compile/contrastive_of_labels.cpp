// SPDX-License-Identifier: MIT
// Pairs of texts need a head without labels.
// expect: linnet::contrastive_objective: the model's head must be head::contrastive<>
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Head = ln::head::masked_lm;
#else
using Head = ln::head::contrastive<>;
#endif
using Model = ln::encoder<
    ln::encoder_shape{
        .d_model = 8, .d_ff = 8, .heads = 2, .layers = 1, .vocabulary = 9, .context = 8},
    Head>;
bool fits(const ln::encoder_batch& b) { return ln::contrastive_objective{}.accepts<Model>(b, {}); }
