// SPDX-License-Identifier: MIT
// A session of any model has tokens of one id.
// expect: linnet::any_session: models whose tokens are one id each
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
using Model = ln::byte_pooled<shape>;
#else
using Model = ln::decoder<shape>;
#endif
static_assert(ln::any_session::footprint<Model>({.target = 8}) > 0);
