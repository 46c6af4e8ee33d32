// SPDX-License-Identifier: MIT
// A layer of one's own that plans no buffers: its own `cache` needs a `plan`.
// expect: linnet: the layer lacks cache<T> or plan<T>
// lines: 40: every layer around it is named on the way, and asks for its plan
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct mine : ln::ffn::policy {
  template <ln::index D, ln::index F, bool Bias>
  struct layer : ln::linear<D, D, Bias> {
#if defined(LINNET_FAIL)
    template <class T>
    struct cache {};
#endif
  };
};
static_assert(ln::decoder<shape, mine>::parameters() > 0);
