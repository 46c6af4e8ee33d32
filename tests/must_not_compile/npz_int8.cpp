// SPDX-License-Identifier: MIT
// Arrays of NumPy are numbers, not codes with scales.
// expect: linnet: .npz files hold weights in f32, f64 or f16
#include <linnet/linnet.hpp>
#include <linnet/numpy.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::storage::int8>;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_npz(w, "f")); }
