// SPDX-License-Identifier: MIT
// A prefix is keys and values, which a recurrence does not have.
// expect: linnet::prefix_tuning: this kind of attention takes no keys that are given
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
using Model = ln::rwkv4<shape>;
#else
using Model = ln::decoder<shape>;
#endif
static_assert(ln::adapted<Model, ln::prefix_tuning<2>>::virtual_count == 2);
