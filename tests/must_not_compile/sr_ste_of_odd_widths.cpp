// SPDX-License-Identifier: MIT
// A pattern of n of m inputs divides the inputs of every matrix.
// expect: the inputs of every matrix must be a multiple of the pattern's width
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 18,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using Compute = ln::compute::sr_ste<2, 4>;
#else
using Compute = ln::compute::sr_ste<1, 2>;
#endif
using Trainer = ln::trainer<Model, ln::adamw, float, Compute>;
bool opens(ln::weights<Model>& w) { return static_cast<bool>(Trainer::open(w, {.target = 8})); }
