// SPDX-License-Identifier: MIT
// A Fourier transform sees later tokens.
// expect: linnet::decoder: this kind of attention sees later tokens; it fits encoders
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
using Model = ln::decoder<shape, ln::mixer::fnet>;
#else
using Model = ln::decoder<shape, ln::attention::linear<>>;
#endif
static_assert(Model::parameters() > 0);
