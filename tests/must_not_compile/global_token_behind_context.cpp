// SPDX-License-Identifier: MIT
// A model's global tokens stand in its context.
// expect: linnet::decoder: a global token stands behind the context
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
constexpr ln::index last = 8;
#else
constexpr ln::index last = 7;
#endif
using Model =
    ln::decoder<shape, ln::attention::longformer_at<4, ln::attention::global_tokens<2, last>>>;
static_assert(Model::parameters() > 0);
