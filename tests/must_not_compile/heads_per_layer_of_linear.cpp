// SPDX-License-Identifier: MIT
// Heads that can be left out are those of softmax attention.
// expect: linnet::attention::per_layer: this kind.s heads are not of its making
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Kind = ln::attention::linear<>;
#else
using Kind = ln::attention::full;
#endif
static_assert(ln::attention::per_layer<Kind, 2, 1>::most == 2);
