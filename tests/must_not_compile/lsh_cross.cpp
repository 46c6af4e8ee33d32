// SPDX-License-Identifier: MIT
// LSH attention has no keys but its queries, so there is nothing to look up in an encoder's output.
// expect: linnet::attention::lsh: queries are keys
// lines: 24: clang names every type on the way to a layer
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr bool across = true;
#else
constexpr bool across = false;
#endif
constexpr ln::attention_shape shape{
    .d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 4, .cross = across};
static_assert(ln::count_parameters<ln::attention::lsh<4, 2>::layer<shape>>() > 0);
