// SPDX-License-Identifier: MIT
// Kernels that give the same bits everywhere compute in float.
// expect: linnet::compute::reproducible: its kernels compute in float
#if defined(LINNET_FAIL)
#define LINNET_REPRODUCIBLE
#endif
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
using M = ln::decoder<ln::zoo::stories260k::shape, arithmetic>;
static_assert(sizeof(ln::evaluator<M, double>) > 0);
