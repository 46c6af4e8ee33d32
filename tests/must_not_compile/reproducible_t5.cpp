// SPDX-License-Identifier: MIT
// A T5 has the same bits everywhere where reproducible kernels compute all that it asks for.
// expect: linnet::compute::reproducible: one of these policies computes what it does not cover
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
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
using M = ln::t5<shape, arithmetic, ln::encoder_stack<ln::mixer::fnet>>;
static_assert(M::parameters() > 0);
