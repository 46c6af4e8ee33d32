// SPDX-License-Identifier: MIT
// An encoder looks up whole rows of its table.
// expect: linnet::encoder: embedding::tensor_train fits decoders
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 2, .vocabulary = 12, .context = 8};
#if defined(LINNET_FAIL)
constexpr ln::tensor_train_shape cores{.rows = {4, 3}, .columns = {2, 4}, .ranks = {3}};
using Embedding = ln::embedding::tensor_train<cores>;
#else
using Embedding = ln::embedding::factorised<4>;
#endif
static_assert(ln::encoder<shape, Embedding>::parameters() > 0);
