// SPDX-License-Identifier: MIT
// GGUF files are decoded, not kept.
// expect: linnet: load GGUF files into the f32 model and quantize
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
