// SPDX-License-Identifier: MIT
// Inputs are rounded to int8 only where a product of integers reads the weights.
// expect: linnet: compute::int8 multiplies
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
using storage = linnet::storage::int3<>;
#else
using storage = linnet::storage::int8;
#endif
using computed = linnet::storage::with_compute<storage, linnet::compute::int8>;
static_assert(computed::scaled);
