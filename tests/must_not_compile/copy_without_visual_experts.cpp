// SPDX-License-Identifier: MIT
// There must be visual experts to copy to.
// expect: linnet::copy_to_visual_experts: the model has none
#include <linnet/linnet.hpp>
namespace ln = linnet;
inline constexpr ln::decoder_shape shape{
    .d_model = 8, .d_ff = 8, .heads = 2, .kv_heads = 2, .layers = 1, .vocabulary = 9, .context = 8};
#if defined(LINNET_FAIL)
using M = ln::decoder<shape>;
#else
using M = ln::decoder<shape, ln::ffn::visual_expert<>>;
#endif
bool copy(ln::weights<M>& w) { return static_cast<bool>(ln::copy_to_visual_experts(w)); }
