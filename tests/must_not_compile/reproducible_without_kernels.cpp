// SPDX-License-Identifier: MIT
// The same bits everywhere need kernels that are compiled only where they are asked for.
// expect: linnet::compute::reproducible: its kernels are not compiled unless asked for
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using arithmetic = ln::compute::reproducible;
#else
using arithmetic = ln::compute::fast;
#endif
static_assert(ln::decoder<ln::zoo::stories260k::shape, arithmetic>::parameters() > 0);
