// SPDX-License-Identifier: MIT
// A block has at least one token.
// expect: linnet::attention::block_causal: a block has at least one token
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
using kind = linnet::attention::block_causal<0>;
#else
using kind = linnet::attention::block_causal<1>;
#endif
static_assert(kind::can_truncate);
