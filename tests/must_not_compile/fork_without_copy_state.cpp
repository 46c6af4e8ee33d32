// SPDX-License-Identifier: MIT
// A kind of attention that keeps state and cannot copy it does not fork.
// expect: needs a copy_state
// lines: 47: it is found in the depth of a running model, and every layer around it is named
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct mine : ln::attention::policy {
  template <ln::attention_shape A>
  struct layer : ln::attention::full::layer<A> {
    using base = ln::attention::full::layer<A>;
#if defined(LINNET_FAIL)
    template <class T>
    static void copy_state(typename base::template cache<T>&) = delete;
#endif
  };
};
bool forks(ln::session<ln::decoder<shape, mine>>& s) { return s.fork(0, 1); }
