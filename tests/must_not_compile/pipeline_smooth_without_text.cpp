// SPDX-License-Identifier: MIT
// A step that reads statistics needs a text to run.
// expect: it is what by\(method, text\) returns
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace step = ln::step;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using first = step::smooth;
#else
using first = step::rotate;
#endif
bool smooths(const ln::weights<ln::decoder<shape>>& w) {
  return static_cast<bool>(ln::apply(w, first{}, step::quantize<ln::storage::int4<>>{}));
}
