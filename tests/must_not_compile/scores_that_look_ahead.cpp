// SPDX-License-Identifier: MIT
// Groups that later tokens decide: a score would know what it scores.
// expect: linnet::evaluator_scorer: in whole sequences this kind of attention groups tokens by
// later
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
using kind = ln::attention::lsh<4, 2>;
#else
using kind = ln::attention::lsh<4, 2>::online;
#endif
static_assert(sizeof(ln::evaluator_scorer<ln::decoder<shape, kind>>) > 0);
