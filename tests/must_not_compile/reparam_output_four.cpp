// SPDX-License-Identifier: MIT
// Output maps are products of two or three matrices, as feed-forwards.
// expect: linnet::attention::reparam_output<N, e>: N is 2 or 3 matrices
// lines: 43: the policy itself is wrong, and clang takes it for none
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using kind = ln::attention::reparam_output<4>;
#else
using kind = ln::attention::reparam_output<3>;
#endif
static_assert(ln::t5<shape, kind>::parameters() > 0);
