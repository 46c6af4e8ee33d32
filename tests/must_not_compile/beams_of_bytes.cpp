// SPDX-License-Identifier: MIT
// Methods that choose one id after the other do not fit tokens that consist of bytes.
// expect: linnet::beam_search: this model's tokens consist of bytes
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
static_assert(ln::beam_search<Model>::footprint({.target = 8}, {}) > 0);
