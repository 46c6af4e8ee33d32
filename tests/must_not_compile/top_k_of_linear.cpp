// SPDX-License-Identifier: MIT
// A feed-forward of one matrix has no neurons to choose from.
// expect: linnet::ffn::top_k: is of a standard or gated feed-forward
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::ffn::linear;
#else
using of = ln::ffn::gelu;
#endif
ln::ffn::top_k<4, of> policy;
