// SPDX-License-Identifier: MIT
// Query heads must be a multiple of the key-value heads.
// expect: linnet::decoder_shape: heads must be a multiple of kv_heads
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index kv_heads = 3;
#else
constexpr ln::index kv_heads = 2;
#endif
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 4,
                                  .kv_heads = kv_heads,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
static_assert(ln::decoder<shape>::parameters() > 0);
