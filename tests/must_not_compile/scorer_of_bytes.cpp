// SPDX-License-Identifier: MIT
// The scorer of a model of bytes needs the bytes of each token.
// expect: linnet::session_scorer: this model's tokens consist of bytes
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::byte_pooled<shape>;
#else
using Model = ln::decoder<shape>;
#endif
void score(ln::session<Model>& s) { ln::session_scorer paths(s); }
