// SPDX-License-Identifier: MIT
// GPTQ rounds whole groups of inputs, and a bit mask has none.
// expect: linnet::gptq: of sparse storages it rounds storage::n_of_m
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
using storage = ln::storage::bit_mask<ln::storage::int4<8>, 50>;
#else
using storage = ln::storage::int4<8>;
#endif
bool rounds(const ln::weights<Model>& w, const ln::calibration<Model>& stats) {
  return static_cast<bool>(ln::quantize<storage>(w, stats, ln::gptq{}));
}
