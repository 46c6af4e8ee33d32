// SPDX-License-Identifier: MIT
// Hugging Face's models have feed-forwards of their own.
// expect: linnet: this model type has no counterpart at Hugging Face.*use save_safetensors
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
using Model = ln::decoder<shape, ln::ffn::skip>;
#else
using Model = ln::decoder<shape>;
#endif
bool save(const ln::weights<Model>& w) { return bool(ln::save_hugging_face(w, "directory")); }
