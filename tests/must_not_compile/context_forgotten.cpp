// SPDX-License-Identifier: MIT
// A shape without `context` is refused by that name, and nothing follows.
// expect: linnet::decoder_shape: context, .* must be given and positive
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape {
  .d_model = 8, .d_ff = 16, .heads = 2, .kv_heads = 1, .layers = 1, .vocabulary = 10,
#if !defined(LINNET_FAIL)
  .context = 8
#endif
};
using Model = ln::decoder<shape>;
bool runs(const ln::packed<Model>& p) {
  auto session = ln::session<Model>::open(p, {.target = 8});
  const ln::token start = 1;
  return session && !session->feed({&start, 1}).empty();
}
