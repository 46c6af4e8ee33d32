// SPDX-License-Identifier: MIT
// Queries go with all that share their keys and values.
// expect: heads go in whole groups
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
  s.heads = 2;
#else
  s.heads = 2, s.kv_heads = 1;
#endif
  return s;
}
using Model = ln::decoder<shape>;
static_assert(ln::narrowed<Model, changed()>::parameters() > 0);
