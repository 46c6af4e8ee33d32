// SPDX-License-Identifier: MIT
// Two matrices of an own layer stand for one only if it says so.
// expect: a layer of the model does not pair with its place in the counterpart
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct bottleneck : ln::ffn::policy {
  using collapsed = ln::ffn::linear;
  template <ln::index D>
  using first = ln::named<"first", ln::linear<D, 2>>;
  template <ln::index D>
  using second = ln::named<"second", ln::linear<2, D>>;
  template <ln::index D, ln::index, bool>
#if defined(LINNET_FAIL)
  using layer = ln::chain<first<D>, second<D>>;
#else
  using layer = ln::chain<ln::named<"", ln::linear_product<first<D>, second<D>>>>;
#endif
};
using model = ln::decoder<shape, bottleneck>;
ln::weights<ln::collapsed<model>> counterpart_pairs(const ln::weights<model>& w) {
  return ln::collapse(w);
}
