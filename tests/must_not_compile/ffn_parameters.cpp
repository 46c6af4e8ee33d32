// SPDX-License-Identifier: MIT
// The template of a feed-forward's layer has three parameters.
// expect: linnet: your ffn:: policy needs `template <index D, index F, bool Bias> using layer`
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct mine : ln::ffn::policy {
#if defined(LINNET_FAIL)
  template <ln::index D, ln::index F>
  using layer = ln::ffn::relu::layer<D, F, false>;
#else
  template <ln::index D, ln::index F, bool Bias>
  using layer = ln::ffn::relu::layer<D, F, Bias>;
#endif
};
using Model = ln::decoder<shape, mine>;
bool trains(ln::weights<Model>& w) {
  auto train = ln::trainer<Model>::open(w, {.batch = 1, .target = 8}, ln::adamw{});
  return train && train->step({}) >= 0;
}
