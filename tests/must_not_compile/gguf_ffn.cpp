// SPDX-License-Identifier: MIT
// llama.cpp has no Llama with another feed-forward than SwiGLU.
// expect: linnet: GGUF files are read into models that llama.cpp has
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
using Model = ln::decoder<shape, ln::ffn::gated_gelu>;
#else
using Model = ln::decoder<shape>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_gguf(w, "f")); }
