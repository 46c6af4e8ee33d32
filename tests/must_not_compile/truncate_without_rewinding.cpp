// SPDX-License-Identifier: MIT
// Tokens cannot be taken back from a kind of attention that does not say it can do without them.
// expect: cannot take tokens back
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
#if !defined(LINNET_FAIL)
  static constexpr bool can_truncate = true;
#endif
  template <ln::attention_shape A>
  struct layer : ln::attention::full::layer<A> {};
};
void back(ln::session<ln::decoder<shape, mine>>& s) { (void)s.truncate(1); }
