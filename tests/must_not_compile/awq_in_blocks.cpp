// SPDX-License-Identifier: MIT
// awq scales neighbours of a matrix before it rounds any.
// expect: the method must round each matrix alone, which awq does not
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
using method = ln::awq;
#else
using method = ln::clip_search;
#endif
bool rounds(const ln::weights<Model>& w, const ln::decoder_batch& batch) {
  const auto batches = [&](ln::index) { return batch; };
  return static_cast<bool>(ln::quantize_in_blocks<ln::storage::int4<>>(w, batches, {}, method{}));
}
