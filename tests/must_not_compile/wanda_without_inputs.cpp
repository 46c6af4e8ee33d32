// SPDX-License-Identifier: MIT
// Wanda weighs weights by what matrices read.
// expect: linnet::prune: this method reads the inputs of each matrix; give it what
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
bool prunes(const ln::weights<Model>& w) {
#if defined(LINNET_FAIL)
  return static_cast<bool>(ln::prune(w, ln::wanda{}));
#else
  return static_cast<bool>(ln::prune(w, ln::magnitude{}));
#endif
}
