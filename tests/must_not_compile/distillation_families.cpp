// SPDX-License-Identifier: MIT
// A teacher reads the same batches as its student.
// expect: a teacher and the student are of different families
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
constexpr ln::t5_shape other{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
using Teacher = ln::t5<other>;
#else
using Teacher = ln::decoder<shape>;
#endif
static_assert(ln::distillation<ln::decoder<shape>, Teacher>::footprint({.source = 1, .target = 1}) >
              0);
