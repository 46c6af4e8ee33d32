// SPDX-License-Identifier: MIT
// A model of one's own whose loss() takes no logits.
// expect: linnet: the model lacks loss<T, S>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct mine : ln::decoder<shape> {
#if defined(LINNET_FAIL)
  template <class T, class S>
  static ln::loss_sum loss(const params<ln::form::packed<T, S>>&, params<ln::form::gradient<T>>*,
                           const batch&, workspace<T>&, const ln::ops::execution&);
#endif
};
static_assert(ln::trainer<mine>::footprint({}) > 0);
