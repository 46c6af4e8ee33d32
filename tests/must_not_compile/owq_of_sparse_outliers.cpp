// SPDX-License-Identifier: MIT
// owq keeps whole inputs; a storage of single numbers has no place for them.
// expect: keeps whole inputs of a matrix; give it storage::outlier_columns
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
using storage = ln::storage::sparse_outliers<ln::storage::int4<8>, 2>;
#else
using storage = ln::storage::outlier_columns<ln::storage::int4<8>, 2>;
#endif
bool rounds(const ln::weights<Model>& w, const ln::calibration<Model>& stats) {
  return static_cast<bool>(ln::quantize<storage>(w, stats, ln::owq{}));
}
