// SPDX-License-Identifier: MIT
// Texts of a model are written token by token.
// expect: linnet::generate_texts: tokens of one block see each other
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
using kind = ln::attention::block_causal<4>;
#else
using kind = ln::attention::full;
#endif
ln::result<ln::generated_texts> written(const ln::packed<ln::decoder<shape, kind>>& p) {
  return ln::generate_texts(p, {});
}
