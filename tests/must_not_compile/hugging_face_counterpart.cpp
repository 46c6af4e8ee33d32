// SPDX-License-Identifier: MIT
// Hugging Face files hold only T5, Llama, GPT-2 and Mamba.
// expect: linnet: this model type has no counterpart at Hugging Face
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
using Model = ln::decoder<shape, ln::position::none>;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) {
  return bool(ln::load_safetensors(w, "f", ln::naming::hugging_face{}));
}
