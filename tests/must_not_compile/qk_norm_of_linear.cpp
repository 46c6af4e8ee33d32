// SPDX-License-Identifier: MIT
// Features of keys are not normalised.
// expect: linnet::attention::qk_norm: this kind's keys are not of its making
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using of = ln::attention::linear<>;
#else
using of = ln::attention::full;
#endif
ln::attention::qk_norm<of> policy;
