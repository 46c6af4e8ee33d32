// SPDX-License-Identifier: MIT
// Codes are not pruned.
// expect: linnet::prune: the source must be stored in f32
#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::storage::int8>;
#else
using Model = ln::decoder<shape>;
#endif
bool prunes(const ln::weights<Model>& w) {
  return static_cast<bool>(ln::prune(w, ln::magnitude{}));
}
