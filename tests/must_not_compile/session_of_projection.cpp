// SPDX-License-Identifier: MIT
// Sequences take the prefix that a projection is folded to.
// expect: linnet::session::set_adapter: this adapter is merged, or trained and evaluated
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using Method = ln::prefix_projection<2, 4>;
#else
using Method = ln::prefix_tuning<2>;
#endif
static_assert(ln::detail::serves_session<ln::adapted<Model, Method>, Model>());
