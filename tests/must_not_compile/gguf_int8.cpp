// SPDX-License-Identifier: MIT
// GGUF files are decoded, or kept as blocks of their own.
// expect: linnet: GGUF files are loaded as storage::q8_0, q4_0, q4_1 or floats
#include <linnet/gguf.hpp>
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
using Model = ln::decoder<shape, ln::storage::int8>;
#else
using Model = ln::decoder<shape>;
#endif
bool save(const ln::weights<Model>& w) { return bool(ln::save_gguf(w, "f")); }
