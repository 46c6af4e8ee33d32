// SPDX-License-Identifier: MIT
// A variant of a reproducible T5 is refused where reproducible kernels do not compute it.
// expect: linnet::compute::reproducible: one of these policies computes what it does not cover
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 32,
                             .d_ff = 32,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 9};
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
using M = ln::t5<shape, arithmetic>;
static_assert(ln::quantized<M, ln::storage::int4<32>, ln::compute::int8>::parameters() > 0);
