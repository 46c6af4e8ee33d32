// SPDX-License-Identifier: MIT
// Rejected drafts have to be taken back.
// expect: rejected tokens must be taken back
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using model = ln::rwkv7<shape>;
#else
using model = ln::decoder<shape>;
#endif
static_assert(ln::self_speculative<model>::footprint({}, 2) > 0);
