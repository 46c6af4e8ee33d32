// SPDX-License-Identifier: MIT
// Four blocks have no eighth one.
// expect: linnet::depths::mixture_of_depths: of so few layers, none would be routed
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 4,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::depths::mixture_of_depths<0.125, 8>>;
#else
using Model = ln::decoder<shape, ln::depths::mixture_of_depths<0.125, 4>>;
#endif
static_assert(Model::parameters() > 0);
