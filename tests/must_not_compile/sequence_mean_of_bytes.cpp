// SPDX-License-Identifier: MIT
// A model that writes bytes has other rows than labels of sequences.
// expect: linnet::sequence_mean: the model must have one label for each token
#include <linnet/training.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::byte_pooled<shape>;
#else
using Model = ln::decoder<shape>;
#endif
static_assert(sizeof(ln::sequence_mean<Model>) > 0);
