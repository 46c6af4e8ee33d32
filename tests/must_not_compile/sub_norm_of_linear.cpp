// SPDX-License-Identifier: MIT
// A feed-forward of one matrix has no hidden values to normalise.
// expect: linnet::ffn::sub_norm: is of a standard or gated feed-forward
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::ffn::linear;
#else
using of = ln::ffn::gelu;
#endif
ln::ffn::sub_norm<of> policy;
