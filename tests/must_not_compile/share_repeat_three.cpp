// SPDX-License-Identifier: MIT
// Layers are counted as they run: three of them are not pairs.
// expect: must be a multiple of n
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::sharing::repeat<2>>;
#else
using Model = ln::decoder<shape, ln::sharing::repeat<3>>;
#endif
static_assert(Model::parameters() > 0);
