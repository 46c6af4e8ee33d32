// SPDX-License-Identifier: MIT
// A profile of a model in double would stay empty.
// expect: is timed in float, and by trainers in compute::f32 and compute::bf16
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::profiled<ln::decoder<shape>>;
#if defined(LINNET_FAIL)
using Run = ln::evaluator<Model, double>;
#else
using Run = ln::evaluator<Model>;
#endif
ln::index used() { return Run::footprint({}); }
