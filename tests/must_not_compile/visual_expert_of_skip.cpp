// SPDX-License-Identifier: MIT
// Where there is no feed-forward, none can stand beside it.
// expect: linnet::ffn::visual_expert: is of a feed-forward that keeps nothing of earlier tokens
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::ffn::skip;
#else
using of = ln::ffn::swiglu;
#endif
ln::ffn::visual_expert<of> policy;
