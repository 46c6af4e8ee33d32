// SPDX-License-Identifier: MIT
// The re-parameterised feed-forward has two or three matrices.
// expect: linnet::ffn::reparam<N, e>: N is 2 or 3 matrices
// lines: 43: the policy itself is wrong, and clang takes it for none
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::ffn::reparam<4>>;
#else
using Model = ln::decoder<shape, ln::ffn::reparam<3, ln::expansion{1.2}>>;
#endif
static_assert(Model::parameters() > 0);
