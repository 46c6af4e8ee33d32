// SPDX-License-Identifier: MIT
// Blocks that share matrices cannot be trained one after the other.
// expect: linnet::quantize_in_blocks: this method trains block by block
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
using Model = ln::decoder<shape, ln::sharing::ffn>;
#else
using Model = ln::decoder<shape>;
#endif
bool rounds(const ln::weights<Model>& w, const ln::decoder_batch& batch) {
  const auto batches = [&](ln::index) { return batch; };
  return static_cast<bool>(
      ln::quantize_in_blocks<ln::storage::int4<>>(w, batches, {}, ln::zeroquant{}));
}
