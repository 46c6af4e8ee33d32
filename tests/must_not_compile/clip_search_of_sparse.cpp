// SPDX-License-Identifier: MIT
// A search of ranges reads inputs that a sparse storage has left out.
// expect: methods that read inputs round whole rows, but gptq
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
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using storage = ln::storage::n_of_m<ln::storage::int4<8>, 2, 4>;
#else
using storage = ln::storage::int4<8>;
#endif
bool rounds(const ln::weights<Model>& w, const ln::calibration<Model>& stats) {
  return static_cast<bool>(ln::quantize<storage>(w, stats, ln::clip_search{}));
}
