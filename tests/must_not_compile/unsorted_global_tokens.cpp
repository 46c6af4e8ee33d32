// SPDX-License-Identifier: MIT
// Positions of global tokens ascend, each given once.
// expect: linnet::attention::global_tokens: positions of a sequence count from 0 and ascend
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Positions = ln::attention::global_tokens<0, 7, 7>;
#else
using Positions = ln::attention::global_tokens<0, 7>;
#endif
static_assert(Positions::list.holds(7));
