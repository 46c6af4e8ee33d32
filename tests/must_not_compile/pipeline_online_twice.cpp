// SPDX-License-Identifier: MIT
// What is rotated online already takes no other transform.
// expect: that is not rotated yet
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
using second = step::rotate_online;
#else
using second = step::rotate;
#endif
bool turns(const ln::weights<ln::decoder<shape>>& w) {
  return static_cast<bool>(ln::apply(w, step::rotate_online{}, second{}));
}
