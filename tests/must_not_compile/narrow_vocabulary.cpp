// SPDX-License-Identifier: MIT
// Tokens are no channels.
// expect: vocabulary, context and the numbers of positions must be the model's
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 16,
                                  .d_ff = 16,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
constexpr auto changed() {
  auto s = shape;
#if defined(LINNET_FAIL)
  s.layers = 2, s.vocabulary = 9;
#else
  s.layers = 2;
#endif
  return s;
}
using Model = ln::decoder<shape>;
static_assert(ln::narrowed<Model, changed()>::parameters() > 0);
