// SPDX-License-Identifier: MIT
// Linformer's mixtures hold later tokens.
// expect: this kind of attention sees later tokens; it fits encoders
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::attention::linformer<4, 8>>;
#else
using Model = ln::decoder<shape, ln::attention::lsh<4, 2>>;
#endif
static_assert(Model::parameters() > 0);
