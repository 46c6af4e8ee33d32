// SPDX-License-Identifier: MIT
// A recurrence knows the order of its tokens; decoders rotate unless told not to.
// expect: linnet::decoder: this kind of mixing has no rotary positions; add position::none
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 4};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::mixer::rwkv4>;
#else
using Model = ln::decoder<shape, ln::mixer::rwkv4, ln::position::none>;
#endif
static_assert(Model::parameters() > 0);
