// SPDX-License-Identifier: MIT
// Mamba orders tokens by itself; decoders rotate by default.
// expect: linnet::decoder: this kind of mixing has no rotary positions; add position::none
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
using Model = ln::decoder<shape, ln::mixer::mamba<>, ln::ffn::skip>;
#else
using Model = ln::decoder<shape, ln::mixer::mamba<>, ln::ffn::skip, ln::position::none>;
#endif
static_assert(Model::parameters() > 0);
