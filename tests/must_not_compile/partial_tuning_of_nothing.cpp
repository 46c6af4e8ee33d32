// SPDX-License-Identifier: MIT
// A model of texts has no visual parts.
// expect: linnet::partial_tuning: Parts::trains\(\) is false for all tensors of the model
#include <linnet/linnet.hpp>
namespace ln = linnet;
inline constexpr ln::decoder_shape shape{
    .d_model = 8, .d_ff = 8, .heads = 2, .kv_heads = 2, .layers = 1, .vocabulary = 9, .context = 8};
#if defined(LINNET_FAIL)
using M = ln::decoder<shape>;
#else
using M = ln::decoder<shape, ln::ffn::visual_expert<>>;
#endif
ln::index count() { return ln::adapted<M, ln::partial_tuning<ln::visual_parts>>::parameters(); }
