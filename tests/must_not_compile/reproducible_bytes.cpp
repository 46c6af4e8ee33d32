// SPDX-License-Identifier: MIT
// A byte_pooled model's ends are not computed by reproducible kernels.
// expect: linnet::compute::reproducible: not of byte_pooled models
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
static_assert(ln::byte_pooled<ln::zoo::stories260k::shape, arithmetic>::parameters() > 0);
