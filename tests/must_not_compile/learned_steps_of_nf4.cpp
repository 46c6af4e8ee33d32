// SPDX-License-Identifier: MIT
// Learned step sizes need codes that are whole numbers of steps.
// expect: steps::learned needs symmetric integers
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using Stored = ln::storage::nf4;
#else
using Stored = ln::storage::int4<>;
#endif
using Trainer =
    ln::trainer<Model, ln::adamw, float,
                ln::compute::fake_quantized<Stored, ln::compute::f32, ln::steps::learned>>;
auto open(ln::weights<Model>& w) { return Trainer::open(w, {.target = 8}); }
