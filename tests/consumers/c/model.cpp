// SPDX-License-Identifier: MIT
// The one C++ unit of a library with a C interface: a model type and a function.

#include <linnet/c_interface.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace {
constexpr ln::decoder_shape numbers{.d_model = 16,
                                    .d_ff = 24,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .layers = 1,
                                    .vocabulary = 9,
                                    .context = 8};
}

extern "C" const linnet_api* counting_model(std::uint32_t abi) {
  return ln::c_interface<ln::decoder<numbers>>(abi);
}
