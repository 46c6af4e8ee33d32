// SPDX-License-Identifier: MIT
// A causal Longformer is scored and trained over whole texts; it keeps no cache.
// expect: linnet::session: this kind of attention cannot continue cached sequences
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape, ln::attention::longformer<4, 1, 1, 2>>;
#if defined(LINNET_FAIL)
static_assert(ln::session<Model>::footprint({}) > 0);
#else
static_assert(ln::evaluator<Model>::footprint({}) > 0);
#endif
