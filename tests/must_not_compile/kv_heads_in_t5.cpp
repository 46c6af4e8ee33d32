// SPDX-License-Identifier: MIT
// Each head of keys and values serves as many heads of queries.
// expect: linnet::t5_shape: kv_heads must divide heads
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index groups = 3;
#else
constexpr ln::index groups = 2;
#endif
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 4,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10,
                             .kv_heads = groups};
static_assert(ln::t5<shape>::parameters() > 0);
