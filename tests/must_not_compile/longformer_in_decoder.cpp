// SPDX-License-Identifier: MIT
// Longformer sees later tokens.
// expect: linnet::decoder: this kind of attention sees later tokens
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
using Model = ln::decoder<shape, ln::attention::longformer<4, 1>>;
#else
using Model = ln::decoder<shape, ln::attention::sliding_window<4>>;
#endif
static_assert(Model::parameters() > 0);
