// SPDX-License-Identifier: MIT
// The rows of a tensor train are nowhere whole, as a tied head would read them.
// expect: linnet::embedding::tensor_train: a tied head would need whole rows
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 12,
                                  .context = 8};
constexpr ln::tensor_train_shape cores{.rows = {4, 3}, .columns = {2, 4}, .ranks = {3}};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::embedding::tensor_train<cores>>;
#else
using Model = ln::decoder<shape, ln::embedding::tensor_train<cores>, ln::tie::untied>;
#endif
static_assert(Model::parameters() > 0);
