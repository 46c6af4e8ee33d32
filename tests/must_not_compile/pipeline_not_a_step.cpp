// SPDX-License-Identifier: MIT
// A storage type is not a step, step::quantize of it is.
// expect: an argument is not a step, such as step::quantize<storage>
#include <linnet/compression.hpp>
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
using last = ln::storage::int8;
#else
using last = ln::step::quantize<ln::storage::int8>;
#endif
using Deployed = ln::pipeline<ln::decoder<shape>, ln::step::unshare, last>::type;
static_assert(Deployed::parameters() > 0);
