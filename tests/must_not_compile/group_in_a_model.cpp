// SPDX-License-Identifier: MIT
// A group that is too small is said in few lines where it stands in a model, too.
// expect: linnet::storage::grouped: groups are a multiple of 8 inputs with 4 bits
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index group = 16;
#else
constexpr ln::index group = 32;
#endif
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
static_assert(ln::decoder<shape, ln::storage::int3<group>>::parameters() > 0);
