// SPDX-License-Identifier: MIT
// Sessions read packed weights.
// expect: linnet: what runs a model reads packed weights: pack\(\) them first
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
bool opens(const ln::weights<Model>& w) {
#if defined(LINNET_FAIL)
  return bool(ln::session<Model>::open(w, {.target = 8}));
#else
  const auto p = ln::pack(w);
  return bool(ln::session<Model>::open(p, {.target = 8}));
#endif
}
