// SPDX-License-Identifier: MIT
// RWKV's feed-forward keeps the token before: an expert would see that of another text.
// expect: linnet::ffn::experts: is of a feed-forward that keeps nothing of earlier tokens
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::ffn::rwkv4_channel_mix;
#else
using of = ln::ffn::swiglu;
#endif
ln::index in() { return ln::ffn::experts<3, 2, of>::layer<8, 16, false>::in; }
