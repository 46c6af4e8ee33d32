// SPDX-License-Identifier: MIT
// An objective says whether its loss has the same bits everywhere.
// expect: linnet::compute::reproducible: this objective's loss is computed by what it does not cover
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
using M = ln::decoder<ln::zoo::stories260k::shape, arithmetic>;
struct own {
  template <class Any>
  static bool accepts(const ln::decoder_batch&, const ln::limits&) {
    return true;
  }
  static ln::ops::label_cross_entropy token_loss(const ln::ops::execution&,
                                                 const ln::decoder_batch&) {
    return {};
  }
};
double step(ln::trainer<M>& train, const ln::decoder_batch& b) { return train.step(b, own{}); }
