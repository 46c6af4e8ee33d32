// SPDX-License-Identifier: MIT
// A shape that is the model's own prunes nothing.
// expect: the shape is no narrower than the model's
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
  s.d_ff = 16;
#else
  s.d_ff = 8;
#endif
  return s;
}
using Model = ln::decoder<shape>;
static_assert(ln::narrowed<Model, changed()>::parameters() > 0);
