// SPDX-License-Identifier: MIT
// A decoder does not become an encoder.
// expect: the shape must be of the model's family
#include <linnet/compression.hpp>
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
constexpr ln::encoder_shape smaller{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8};
#else
constexpr auto smaller = [] {
  auto s = shape;
  s.layers = 1;
  return s;
}();
#endif
static_assert(ln::narrowed<ln::decoder<shape>, smaller>::parameters() > 0);
