// SPDX-License-Identifier: MIT
// The first block of RWKV-7 has other parameters than the rest.
// expect: policies need blocks of one type
// lines: 18: rwkv7 is an alias of decoder, which clang names, too
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::rwkv7<shape, ln::sharing::all>;
#else
using Model = ln::rwkv4<shape, ln::sharing::all>;
#endif
static_assert(Model::parameters() > 0);
