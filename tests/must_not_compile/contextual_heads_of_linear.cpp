// SPDX-License-Identifier: MIT
// Linear attention keeps one state of all tokens.
// expect: linnet::attention::contextual: this kind's heads are not of its making
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Kind = ln::attention::contextual<2, ln::attention::linear<>>;
#else
using Kind = ln::attention::contextual<2>;
#endif
static_assert(!Kind::supports_low_rank);
