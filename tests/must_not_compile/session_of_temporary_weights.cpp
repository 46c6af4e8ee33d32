// SPDX-License-Identifier: MIT
// Weights that would be gone before the session reads them.
// expect: linnet: these packed weights are a temporary; keep them in a variable
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
bool opens(const ln::weights<Model>& w) {
#if defined(LINNET_FAIL)
  return static_cast<bool>(ln::session<Model>::open(ln::pack(w), {}));
#else
  const auto packed = ln::pack(w);
  return static_cast<bool>(ln::session<Model>::open(packed, {}));
#endif
}
