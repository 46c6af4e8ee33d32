// SPDX-License-Identifier: MIT
// A draft speaks of the same tokens as the target.
// expect: the models have different vocabularies
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
constexpr ln::decoder_shape other = [] {
  ln::decoder_shape s = shape;
#if defined(LINNET_FAIL)
  s.vocabulary = 11;
#endif
  return s;
}();
static_assert(ln::speculative<ln::decoder<shape>, ln::decoder<other>>::footprint({}, 2) > 0);
