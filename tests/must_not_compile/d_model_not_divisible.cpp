// SPDX-License-Identifier: MIT
// Without a width of heads of their own, heads share the width of the stream.
// expect: linnet::decoder_shape: d_model must be a multiple of heads
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index heads = 3;
#else
constexpr ln::index heads = 4;
#endif
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = heads,
                                  .kv_heads = heads,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
bool runs(const ln::packed<Model>& p) {
  auto session = ln::session<Model>::open(p, {.target = 8});
  const ln::token start = 1;
  return session && !session->feed({&start, 1}).empty();
}
