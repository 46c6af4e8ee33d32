// SPDX-License-Identifier: MIT
// Neighbouring members of a chain have to fit.
// expect: linnet::chain: neighbouring members differ in width
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
constexpr ln::index twice = 2;
#else
constexpr ln::index twice = 1;
#endif
struct mine : ln::ffn::policy {
  template <ln::index D, ln::index F, bool Bias>
  using layer = ln::chain<ln::named<"up", ln::linear<D, F, Bias>>,
                          ln::named<"down", ln::linear<twice * F, D, Bias>>>;
};
using Model = ln::decoder<shape, mine>;
bool trains(ln::weights<Model>& w) {
  auto train = ln::trainer<Model>::open(w, {.batch = 1, .target = 8}, ln::adamw{});
  return train && train->step({}) >= 0;
}
