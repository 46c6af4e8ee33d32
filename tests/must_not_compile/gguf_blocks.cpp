// SPDX-License-Identifier: MIT
// GGUF's blocks have 32 values: rows must be made of whole ones to be kept.
// expect: which do not fill the rows of every matrix here
#include <linnet/gguf.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index width = 48;
#else
constexpr ln::index width = 64;
#endif
constexpr ln::decoder_shape shape{.d_model = 32,
                                  .d_ff = width,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape, ln::storage::q4_1>;
bool load(ln::weights<Model>& w) { return bool(ln::load_gguf(w, "f")); }
