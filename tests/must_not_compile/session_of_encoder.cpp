// SPDX-License-Identifier: MIT
// An encoder has nothing to continue.
// expect: linnet::session: this kind of attention cannot continue cached sequences
// lines: 9 (one reason, and not what else a session asks for)
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8};
using Model = ln::encoder<shape>;
#if defined(LINNET_FAIL)
static_assert(ln::session<Model>::footprint({}) > 0);
#else
static_assert(ln::embedder<Model>::footprint({}) > 0);
#endif
