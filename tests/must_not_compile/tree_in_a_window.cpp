// SPDX-License-Identifier: MIT
// A cache that evicts by place takes no tree of tokens.
// expect: this model's cache keeps texts, not trees
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
using kind = ln::attention::sliding_window<4>;
#else
using kind = ln::attention::full;
#endif
bool branches(ln::session<ln::decoder<shape, kind>>& s, std::span<const ln::token> tokens,
              std::span<const ln::index> parents) {
  return !s.feed_tree(tokens, parents).empty();
}
