// SPDX-License-Identifier: MIT
// Nine rows are too few for twelve tokens.
// expect: linnet::embedding::tensor_train: the product of its rows must be the vocabulary or more
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 12,
                                  .context = 8};
#if defined(LINNET_FAIL)
constexpr ln::index first = 3;
#else
constexpr ln::index first = 4;
#endif
constexpr ln::tensor_train_shape cores{.rows = {first, 3}, .columns = {2, 4}, .ranks = {3}};
using Model = ln::decoder<shape, ln::embedding::tensor_train<cores>, ln::tie::untied>;
static_assert(Model::parameters() > 0);
