// SPDX-License-Identifier: MIT
// Several processes train what their ranks can share out.
// expect: linnet::distributed_trainer: zero<3> computes in compute::f32
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
static_assert(ln::detail::check_distributed<tiny, ln::adamw, ln::zero<3>, ln::compute::f32>());
#ifdef LINNET_FAIL
static_assert(ln::detail::check_distributed<tiny, ln::adamw, ln::zero<3>, ln::compute::bf16>());
#endif
