// SPDX-License-Identifier: MIT
// Training needs full weights.
// expect: linnet::trainer: training needs f32
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
using Model = ln::quantized<ln::decoder<shape>, ln::storage::int8>;
#else
using Model = ln::decoder<shape>;
#endif
ln::index bytes() { return ln::trainer<Model>::footprint({.target = 8}); }
