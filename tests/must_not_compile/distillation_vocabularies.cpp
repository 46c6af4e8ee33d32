// SPDX-License-Identifier: MIT
// A teacher speaks of the same tokens as its student.
// expect: a teacher and the student have different vocabularies
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
static_assert(ln::distillation<ln::decoder<shape>, ln::decoder<other>>::footprint({}) > 0);
