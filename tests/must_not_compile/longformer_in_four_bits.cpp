// SPDX-License-Identifier: MIT
// Longformer's cache may be rounded to bytes, not to half of one.
// expect: linnet::decoder: this kind of attention keeps no keys in kv::int4
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
using Cache = ln::kv::int4;
#else
using Cache = ln::kv::int8;
#endif
using Model = ln::decoder<shape, ln::attention::longformer<4, 1>, Cache>;
static_assert(Model::parameters() > 0);
