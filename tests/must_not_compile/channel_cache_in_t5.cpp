// SPDX-License-Identifier: MIT
// T5 rotates no keys, so scales from before a rotation are not for it.
// expect: linnet::t5: kv::channel_int8 and kv::channel_int4 are for decoder<>
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
using cache = ln::kv::channel_int8;
#else
using cache = ln::kv::int8;
#endif
constexpr ln::index n = ln::t5<shape, cache>::parameters();
