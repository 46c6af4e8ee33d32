// SPDX-License-Identifier: MIT
// Prompts are not continued together where tokens see those that follow.
// expect: linnet::generate_batch: tokens of one block see each other
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
bool written(ln::session<ln::decoder<shape, kind>>& s,
             std::span<const std::span<const ln::token>> prompts) {
  return ln::generate_batch(
      s, prompts, 3, [](std::size_t, std::span<float>) { return ln::token{0}; },
      [](std::size_t, ln::token) { return true; });
}
