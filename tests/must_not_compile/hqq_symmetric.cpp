// SPDX-License-Identifier: MIT
// HQQ moves zero points.
// expect: linnet::hqq: moves zero points, so it needs a storage that has
// lines: 26: clang names every function on the way to a matrix
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
#if defined(LINNET_FAIL)
using Storage = ln::storage::int4<>;
#else
using Storage = ln::storage::q4_1;
#endif
bool rounds(const ln::weights<ln::decoder<shape>>& w) {
  return static_cast<bool>(ln::quantize<Storage>(w, ln::hqq{}));
}
