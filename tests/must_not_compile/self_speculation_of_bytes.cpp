// SPDX-License-Identifier: MIT
// A draft is one id, but tokens of pooled bytes consist of several.
// expect: linnet::self_speculative: tokens of byte_pooled models consist of several bytes
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
static_assert(ln::self_speculative<Model>::footprint({.target = 8}, 2) > 0);
