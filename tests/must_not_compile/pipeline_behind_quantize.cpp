// SPDX-License-Identifier: MIT
// Codes cannot be rotated.
// expect: put step::quantize behind it
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace step = ln::step;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using round_to = step::quantize<ln::storage::int4<>>;
#if defined(LINNET_FAIL)
using Deployed = ln::pipeline<ln::decoder<shape>, round_to, step::rotate, step::smooth>::type;
#else
using Deployed = ln::pipeline<ln::decoder<shape>, step::rotate, step::smooth, round_to>::type;
#endif
static_assert(Deployed::parameters() > 0);
