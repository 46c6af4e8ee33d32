// SPDX-License-Identifier: MIT
// Transforms along a text are not those of reproducible kernels.
// expect: linnet::compute::reproducible: one of these policies computes what it does not cover
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 9, .context = 8};
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
using M = ln::encoder<shape, arithmetic, ln::mixer::fnet>;
static_assert(M::parameters() > 0);
