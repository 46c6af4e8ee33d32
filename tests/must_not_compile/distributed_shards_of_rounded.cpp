// SPDX-License-Identifier: MIT
// Weights that an optimizer rounds behind its step are not moved value by value.
// expect: linnet::distributed_trainer: zero<1> to zero<3> take adamw, which moves each value alone
#include <linnet/distributed/stages.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;
using tiny = ln::decoder<ln::decoder_shape{.d_model = 8,
                                           .d_ff = 8,
                                           .heads = 2,
                                           .kv_heads = 2,
                                           .layers = 1,
                                           .vocabulary = 8,
                                           .context = 8}>;
using rounded = ln::bf16_rounded<ln::adamw>;
static_assert(ln::detail::check_distributed<tiny, rounded, ln::zero<0>, ln::compute::f32>());
#ifdef LINNET_FAIL
static_assert(ln::detail::check_distributed<tiny, rounded, ln::zero<1>, ln::compute::f32>());
#endif
