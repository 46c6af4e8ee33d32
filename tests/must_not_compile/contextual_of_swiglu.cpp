// SPDX-License-Identifier: MIT
// Neurons of a SiLU are never 0, so none can be left out.
// expect: linnet::ffn::contextual: is of a standard or gated feed-forward of a ReLU
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::ffn::swiglu;
#else
using of = ln::ffn::relu;
#endif
ln::ffn::contextual<8, of> policy;
