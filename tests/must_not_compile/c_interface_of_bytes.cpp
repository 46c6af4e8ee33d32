// SPDX-License-Identifier: MIT
// Tokens of C are one id each.
// expect: linnet::c_interface: models whose tokens are one id each
#include <linnet/c_interface.hpp>
#include <linnet/linnet.hpp>
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
const linnet_api* table() { return ln::c_interface<Model>(LINNET_ABI); }
