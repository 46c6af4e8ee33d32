// SPDX-License-Identifier: MIT
// Grouped attention keeps keys that it has hashed, not those before the rotation.
// expect: linnet::decoder: kv::channel_int8 and kv::channel_int4 rotate the keys
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
using kind = ln::attention::lsh<4, 3>;
#else
using kind = ln::attention::full;
#endif
constexpr ln::index n = ln::decoder<shape, kind, ln::kv::channel_int4>::parameters();
