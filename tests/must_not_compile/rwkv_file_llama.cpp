// SPDX-License-Identifier: MIT
// rwkv.cpp's files hold RWKV models.
// expect: linnet: rwkv.cpp files hold models of the types
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 4};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape>;
#else
using Model = ln::rwkv4<shape>;
#endif
bool load(ln::weights<Model>& w) { return static_cast<bool>(ln::load_rwkv(w, "file")); }
