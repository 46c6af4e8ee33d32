// SPDX-License-Identifier: MIT
// Several processes train what their ranks can share out.
// expect: linnet::distributed_trainer: zero<2> and zero<3> give gradients away layer by layer
#include <linnet/distributed/stages.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;
constexpr ln::decoder_shape tiny{
    .d_model = 8, .d_ff = 8, .heads = 2, .kv_heads = 2, .layers = 2, .vocabulary = 8, .context = 8};
static_assert(
    ln::detail::check_distributed<ln::decoder<tiny>, ln::adamw, ln::zero<2>, ln::compute::f32>());
#ifdef LINNET_FAIL
static_assert(ln::detail::check_distributed<ln::decoder<tiny, ln::sharing::all>, ln::adamw,
                                            ln::zero<2>, ln::compute::f32>());
#endif
