// SPDX-License-Identifier: MIT
// A decoder reads tokens; images are for encoders.
// expect: linnet::decoder: embedding::patches is for encoder
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 12,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Embedding = ln::embedding::patches<4, 4, 1, 2>;
#else
using Embedding = ln::embedding::factorised<4>;
#endif
static_assert(ln::decoder<shape, Embedding>::parameters() > 0);
