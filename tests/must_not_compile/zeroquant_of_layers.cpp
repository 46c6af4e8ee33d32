// SPDX-License-Identifier: MIT
// Blocks that are stored in several ways are not trained one after the other.
// expect: linnet::quantize_in_blocks: this method trains blocks of one storage
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
using Model = ln::decoder<shape>;
using int4 = ln::storage::int4<>;
#if defined(LINNET_FAIL)
using Stored = ln::storage::layers<ln::storage::first<1, ln::storage::int8>, int4>;
#else
using Stored = int4;
#endif
bool rounds(const ln::weights<Model>& w, const ln::decoder_batch& batch) {
  const auto batches = [&](ln::index) { return batch; };
  return static_cast<bool>(ln::quantize_in_blocks<Stored>(w, batches, {}, ln::zeroquant{}));
}
