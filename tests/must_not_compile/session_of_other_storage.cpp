// SPDX-License-Identifier: MIT
// The storage type of the weights is part of the model.
// expect: linnet: these weights are packed for another model, scalar or storage type
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
using Stored = ln::decoder<shape, ln::storage::int8>;
#else
using Stored = ln::decoder<shape>;
#endif
bool opens(const ln::packed<Stored>& p) {
  return bool(ln::session<ln::decoder<shape>>::open(p, {.target = 8}));
}
