// SPDX-License-Identifier: MIT
// Quantized weights have no place in Hugging Face's layout.
// expect: linnet: quantized weights are not kept in Hugging Face's layout
#include <linnet/json.hpp>
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
using Model = ln::decoder<shape, ln::storage::bf16>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_hugging_face(w, "directory")); }
