// SPDX-License-Identifier: MIT
// Gates of adapters are exponentials of the C library.
// expect: linnet::compute::reproducible: this adapter computes what it does not cover
// lines: 18: clang++ misses members of the base as well
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
static_assert(ln::adapted<M, ln::dynamic_lora<2, 1, 1>>::parameters() > 0);
