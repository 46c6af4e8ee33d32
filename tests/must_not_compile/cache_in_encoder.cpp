// SPDX-License-Identifier: MIT
// An encoder reads whole texts: there is nothing to cache.
// expect: linnet::encoder: an encoder keeps no keys and values
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 16};
#if defined(LINNET_FAIL)
using Model = ln::encoder<shape, ln::kv::int8>;
#else
using Model = ln::encoder<shape>;
#endif
static_assert(Model::parameters() > 0);
