// SPDX-License-Identifier: MIT
// Layers stay in their order.
// expect: give the layers that stay, in order
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
auto drop(const ln::weights<ln::decoder<shape>>& w) {
#if defined(LINNET_FAIL)
  return ln::drop_layers<2, 0>(w);
#else
  return ln::drop_layers<0, 2>(w);
#endif
}
