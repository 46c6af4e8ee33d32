// SPDX-License-Identifier: MIT
// A teacher writes its answers token by token.
// expect: linnet::session_teacher: tokens of one block see each other
#include <linnet/generated_data.hpp>
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
using kind = ln::attention::block_causal<4>;
#else
using kind = ln::attention::full;
#endif
static_assert(sizeof(ln::session_teacher<ln::decoder<shape, kind>>) > 0);
