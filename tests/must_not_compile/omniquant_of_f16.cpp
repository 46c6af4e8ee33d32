// SPDX-License-Identifier: MIT
// omniquant learns ranges, which numbers without scales do not have.
// expect: linnet::omniquant: learns ranges of what shares a scale
#include <linnet/compression.hpp>
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
#if defined(LINNET_FAIL)
using Storage = ln::storage::f16;
#else
using Storage = ln::storage::int4<>;
#endif
bool rounds(const ln::weights<Model>& w, const ln::decoder_batch& batch) {
  const auto batches = [&](ln::index) { return batch; };
  return static_cast<bool>(ln::quantize_in_blocks<Storage>(w, batches, {}, ln::omniquant{}));
}
